"""A write is whole or never was: the old stays, and nothing temporary is left behind."""

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
    """Go wrong in the middle of writing a folder, or a file where the name has an ending."""
    with files.replacing(path) as temporary:
        if not path.suffix:
            temporary.mkdir()
            temporary /= "weights"
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError("half way")


def test_a_file_and_the_folders_above_it_are_made(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b" / "c.txt", "x\r\ny\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"x\r\ny\n"
    assert list(tree(tmp_path)) == ["a/b/c.txt"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for text in ("a longer text", "short"):
        files.write_text(tmp_path / "c.txt", text)
    assert tree(tmp_path) == {"c.txt": "short"}


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter", weights="old", config="old")
    write_folder(tmp_path / "adapter", weights="new")
    assert tree(tmp_path) == {"adapter/weights": "new"}
    assert names(tmp_path) == ["adapter"]


def test_a_file_gives_way_to_a_folder(tmp_path: Path) -> None:
    files.write_text(tmp_path / "adapter", "a file")
    write_folder(tmp_path / "adapter", weights="new")
    assert tree(tmp_path) == {"adapter/weights": "new"}


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    write_folder(tmp_path / "shared", weights="precious")
    (tmp_path / "adapter").symlink_to("shared", target_is_directory=True)
    (tmp_path / "dangling").symlink_to("nowhere")
    write_folder(tmp_path / "adapter", weights="new")
    write_folder(tmp_path / "dangling", weights="new")
    assert tree(tmp_path / "shared") == {"weights": "precious"}
    assert not (tmp_path / "adapter").is_symlink()
    assert not (tmp_path / "dangling").is_symlink()


def test_the_old_file_stays_when_the_block_raises(tmp_path: Path) -> None:
    files.write_text(tmp_path / "c.txt", "old")
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / "c.txt")
    assert tree(tmp_path) == {"c.txt": "old"}


def test_the_old_folder_stays_when_the_block_raises(tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter", weights="old", config="old")
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / "adapter")
    assert tree(tmp_path) == {"adapter/weights": "old", "adapter/config": "old"}
    assert names(tmp_path) == ["adapter"]


def test_nothing_is_there_when_the_first_write_fails(tmp_path: Path) -> None:
    for name in ("c.txt", "adapter"):
        with pytest.raises(RuntimeError, match="half way"):
            fail_half_way(tmp_path / name)
    with pytest.raises(TypeError):
        files.write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}, {"a": {2}}])
    with pytest.raises(UnicodeEncodeError):
        files.write_text(tmp_path / "c.txt", "half \ud800")
    assert names(tmp_path) == []


def test_whoever_is_killed_in_the_middle_of_a_write_leaves_the_old(tmp_path: Path) -> None:
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
    ended = subprocess.run([sys.executable, "-c", program, tmp_path / "adapter"], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert tree(tmp_path / "adapter") == {"weights": "old"}
    write_folder(tmp_path / "adapter", weights="new")
    assert tree(tmp_path / "adapter") == {"weights": "new"}


def test_whoever_is_killed_while_the_old_is_removed_leaves_no_half_of_it(tmp_path: Path) -> None:
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
    ended = subprocess.run([sys.executable, "-c", program, tmp_path / "adapter"], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "adapter").exists()


def test_what_another_process_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    left = tmp_path / f".adapter.{os.getpid()}.tmp"  # a process of the same number
    left.mkdir()
    (left / "weights").write_text("half", encoding="utf-8")
    write_folder(tmp_path / "adapter", config="new")
    assert tree(tmp_path) == {"adapter/config": "new"}


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    files.remove(tmp_path / "adapter")
    assert names(tmp_path) == []


@in_one_folder
@given(rows)
def test_lines_of_json_come_back(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, iter(rows))
    assert files.read_jsonl(path) == rows
    assert path.read_bytes().count(b"\n") == len(rows)


@in_one_folder
@given(rows)
def test_json_for_a_person_comes_back(tmp_path: Path, rows: list[Any]) -> None:
    files.write_json(tmp_path / "value.json", rows)
    assert files.read_json(tmp_path / "value.json") == rows


def test_signs_that_some_take_for_a_line_s_end_end_no_line(tmp_path: Path) -> None:
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
def test_a_line_that_is_no_json_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(BadData) as caught:
        files.read_jsonl(path)
    assert str(caught.value) == f"{path}, {problem}"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{\n"a":\n', "not JSON (Expecting value, line 3)"),
        (b"", "not JSON (Expecting value, line 1)"),
        (b'{"a":"\xff"}', "not UTF-8 (invalid start byte)"),
    ],
)
def test_a_file_that_is_no_json_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(data)
    with pytest.raises(BadData) as caught:
        files.read_json(path)
    assert str(caught.value) == f"{path}: {problem}"


def test_a_link_is_the_same_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "weights", "heavy")
    files.link(tmp_path / "weights", tmp_path / "again")
    assert (tmp_path / "again").samefile(tmp_path / "weights")
    assert not (tmp_path / "again").is_symlink()


def test_a_link_to_a_link_is_the_file_that_it_leads_to(tmp_path: Path) -> None:
    files.write_text(tmp_path / "blobs" / "ab12", "heavy")
    (tmp_path / "weights").symlink_to(Path("blobs") / "ab12")  # as a hub's cache has them
    files.link(tmp_path / "weights", tmp_path / "again")
    assert not (tmp_path / "again").is_symlink()
    assert (tmp_path / "again").samefile(tmp_path / "blobs" / "ab12")


def test_where_the_disk_has_no_links_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", none)
    files.write_text(tmp_path / "weights", "heavy")
    files.link(tmp_path / "weights", tmp_path / "again")
    assert tree(tmp_path) == {"weights": "heavy", "again": "heavy"}
    assert not (tmp_path / "again").samefile(tmp_path / "weights")


def test_a_link_to_nothing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="weights"):
        files.link(tmp_path / "weights", tmp_path / "again")
    assert names(tmp_path) == []
