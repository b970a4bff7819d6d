"""The remembered digest of a file is that of its bytes, also after a change."""

import os
from pathlib import Path

import pytest

from parity.run import digest, file_digests
from parity.run.file_digests import FileDigests


@pytest.fixture(autouse=True)
def no_file_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "SMALL", 0)


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, memory = tmp_path / "weights", tmp_path / "cache" / "digests.json"
    file.write_bytes(b"weights")
    expected = digest.of_file(file)
    assert FileDigests(memory).of_file(file) == expected
    monkeypatch.setattr(digest, "of_file", lambda _: pytest.fail("read again"))
    assert FileDigests(memory).of_file(file) == expected


def test_a_changed_file_has_its_new_digest(tmp_path: Path) -> None:
    file, memory = tmp_path / "weights", tmp_path / "digests.json"
    digests = FileDigests(memory)
    file.write_bytes(b"weights")
    before = digests.of_file(file), file.stat()
    file.write_bytes(b"Weights")  # as long as before
    assert digests.of_file(file) == digest.of_file(file) != before[0]
    replacement = tmp_path / "other"
    replacement.write_bytes(b"WEIGHTS")
    os.utime(replacement, ns=(before[1].st_atime_ns, file.stat().st_mtime_ns))
    replacement.replace(file)  # same size and time, another inode
    assert digests.of_file(file) == digest.of_file(file)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_an_unreadable_memory_is_ignored(tmp_path: Path, text: str) -> None:
    file, memory = tmp_path / "weights", tmp_path / "digests.json"
    file.write_bytes(b"weights")
    memory.write_text(text)
    assert FileDigests(memory).of_file(file) == digest.of_file(file)


def test_a_small_file_is_read_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "SMALL", 100)
    file, memory = tmp_path / "settings", tmp_path / "digests.json"
    file.write_bytes(b"r = 4")
    assert FileDigests(memory).of_file(file) == digest.of_file(file)
    assert not memory.exists()
