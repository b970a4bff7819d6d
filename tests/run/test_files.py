"""A write is atomic: a failure keeps the old file and leaves no temporary one."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity.run import files
from parity.run.errors import BadData

texts = st.text(st.characters(exclude_categories=["Cs"]))
rows = st.lists(st.dictionaries(texts, texts | st.integers() | st.lists(texts), max_size=3))

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(path: Path, **contents: str) -> None:
    with files.replacing(path) as temporary:
        temporary.mkdir()
        for name, text in contents.items():
            (temporary / name).write_text(text, encoding="utf-8")


def fail_half_way(path: Path) -> None:
    """Fail while writing a folder, or a file if the name has a suffix."""
    with files.replacing(path) as temporary:
        if not path.suffix:
            temporary.mkdir()
            temporary /= "weights"
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError("half way")


def test_a_file_is_created_with_its_folders(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b" / "c.txt", "x\r\ny\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"x\r\ny\n"
    assert list(tree(tmp_path)) == ["a/b/c.txt"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for text in ("a longer text", "short"):
        files.write_text(tmp_path / "c.txt", text)
    assert tree(tmp_path) == {"c.txt": "short"}


def test_a_folder_is_replaced_entirely(tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter", weights="old", config="old")
    write_folder(tmp_path / "adapter", weights="new")
    assert tree(tmp_path) == {"adapter/weights": "new"}
    assert names(tmp_path) == ["adapter"]


def test_a_folder_replaces_a_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "adapter", "a file")
    write_folder(tmp_path / "adapter", weights="new")
    assert tree(tmp_path) == {"adapter/weights": "new"}


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    write_folder(tmp_path / "shared", weights="precious")
    (tmp_path / "adapter").symlink_to("shared", target_is_directory=True)
    (tmp_path / "dangling").symlink_to("nowhere")
    write_folder(tmp_path / "adapter", weights="new")
    write_folder(tmp_path / "dangling", weights="new")
    assert tree(tmp_path / "shared") == {"weights": "precious"}
    assert not (tmp_path / "adapter").is_symlink()
    assert not (tmp_path / "dangling").is_symlink()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "c.txt", "old")
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / "c.txt")
    assert tree(tmp_path) == {"c.txt": "old"}


def test_a_failed_write_keeps_the_old_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter", weights="old", config="old")
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / "adapter")
    assert tree(tmp_path) == {"adapter/weights": "old", "adapter/config": "old"}
    assert names(tmp_path) == ["adapter"]


def test_a_failed_first_write_leaves_nothing(tmp_path: Path) -> None:
    for name in ("c.txt", "adapter"):
        with pytest.raises(RuntimeError, match="half way"):
            fail_half_way(tmp_path / name)
    with pytest.raises(TypeError):
        files.write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}, {"a": {2}}])
    with pytest.raises(UnicodeEncodeError):
        files.write_text(tmp_path / "c.txt", "half \ud800")
    assert names(tmp_path) == []


def test_a_killed_write_keeps_the_old_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter", weights="old")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from parity.run import files\n"
        "with files.replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.mkdir()\n"
        "    (temporary / 'weights').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", program, tmp_path / "adapter"], check=False)
    assert process.returncode == -signal.SIGKILL
    assert tree(tmp_path / "adapter") == {"weights": "old"}
    write_folder(tmp_path / "adapter", weights="new")
    assert tree(tmp_path / "adapter") == {"weights": "new"}


def test_a_killed_removal_leaves_no_half_of_the_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter", weights="old", config="old")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from parity.run import files\n"
        "gone = []\n"
        "def watch(event, arguments):\n"
        "    if event == 'os.remove' and str(arguments[0]) in ('weights', 'config'):\n"
        "        gone.append(arguments[0])\n"
        "        if len(gone) == 2:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "with files.replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.mkdir()\n"
        "    sys.addaudithook(watch)\n"
    )
    process = subprocess.run([sys.executable, "-c", program, tmp_path / "adapter"], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "adapter").exists()


def test_a_stale_temporary_folder_is_replaced(tmp_path: Path) -> None:
    stale = tmp_path / f".adapter.{os.getpid()}.tmp"  # of a process with the same id
    stale.mkdir()
    (stale / "weights").write_text("half", encoding="utf-8")
    write_folder(tmp_path / "adapter", config="new")
    assert tree(tmp_path) == {"adapter/config": "new"}


def test_removing_a_missing_file_does_nothing(tmp_path: Path) -> None:
    files.remove(tmp_path / "adapter")
    assert names(tmp_path) == []


@in_one_folder
@given(rows)
def test_json_lines_are_read_back(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, iter(rows))
    assert files.read_jsonl(path) == rows
    assert path.read_bytes().count(b"\n") == len(rows)


@in_one_folder
@given(rows)
def test_indented_json_is_read_back(tmp_path: Path, rows: list[Any]) -> None:
    files.write_json(tmp_path / "value.json", rows)
    assert files.read_json(tmp_path / "value.json") == rows


def test_unicode_line_separators_do_not_end_a_line(tmp_path: Path) -> None:
    rows = ["a\u2028b", "a\x85b", "a\r\nb", "a\x0bb"]
    files.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert files.read_jsonl(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"a":1}\n{"a":\n', "line 2: not JSON (Expecting value)"),
        (b'{"a":1}\r\n\n\r\n{"a":2}}\n', "line 4: not JSON (Extra data)"),
        (b'{"a":1}\n{"a":2', "line 2: not JSON (Expecting ',' delimiter)"),
        (b'{"a":"caf\xe9"}\n', "line 1: not UTF-8 (invalid continuation byte)"),
    ],
)
def test_an_invalid_json_line_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(BadData) as error:
        files.read_jsonl(path)
    assert str(error.value) == f"{path}, {problem}"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{\n"a":\n', "not JSON (Expecting value, line 3)"),
        (b"", "not JSON (Expecting value, line 1)"),
        (b'{"a":"\xff"}', "not UTF-8 (invalid start byte)"),
    ],
)
def test_an_invalid_json_file_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(data)
    with pytest.raises(BadData) as error:
        files.read_json(path)
    assert str(error.value) == f"{path}: {problem}"


def test_a_link_is_the_same_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "weights", "heavy")
    files.link(tmp_path / "weights", tmp_path / "link")
    assert (tmp_path / "link").samefile(tmp_path / "weights")
    assert not (tmp_path / "link").is_symlink()


def test_a_link_to_a_symlink_is_the_target_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "blobs" / "ab12", "heavy")
    (tmp_path / "weights").symlink_to(Path("blobs") / "ab12")  # as in the cache of the hub
    files.link(tmp_path / "weights", tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").samefile(tmp_path / "blobs" / "ab12")


def test_a_file_is_copied_if_the_disk_cannot_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", none)
    files.write_text(tmp_path / "weights", "heavy")
    files.link(tmp_path / "weights", tmp_path / "link")
    assert tree(tmp_path) == {"weights": "heavy", "link": "heavy"}
    assert not (tmp_path / "link").samefile(tmp_path / "weights")


def test_a_link_to_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="weights"):
        files.link(tmp_path / "weights", tmp_path / "link")
    assert names(tmp_path) == []
