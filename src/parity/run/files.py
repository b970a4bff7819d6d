"""Read and write files; writes are atomic: to a temporary file in the same folder, then renamed."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.run.digest import canonical
from parity.run.errors import BadData


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends without an error.

    The parent folder is created. `path` may be a file or a folder; a folder is replaced entirely.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            remove(path)
        temporary.replace(path)
    finally:
        _remove(temporary)


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists; a killed process never leaves half of a folder."""
    if path.exists() or path.is_symlink():
        doomed = path.with_name(f".{path.name}.{os.getpid()}.old")
        _remove(doomed)
        path.replace(doomed)
        _remove(doomed)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, with its newlines unchanged."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as `.npy`."""
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value, indented, with sorted keys."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`.

    Raises:
        BadData: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: not UTF-8 ({error.reason})") from error
    except json.JSONDecodeError as error:
        raise BadData(f"{path}: not JSON ({error.msg}, line {error.lineno})") from error


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON values in canonical form, one on each line."""
    write_text(path, "".join(canonical(row) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[Any]:
    """Return the JSON values of `path`, one from each line.

    Raises:
        BadData: a line is not JSON; names file and line.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            raise BadData(f"{path}, line {number}: not UTF-8 ({error.reason})") from error
        except json.JSONDecodeError as error:
            raise BadData(f"{path}, line {number}: not JSON ({error.msg})") from error
    return rows


def link(source: Path, target: Path) -> None:
    """Hard-link `target` to `source`; copy it if the disk cannot link."""
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        raise
    except OSError:  # another disk, or a file system without hard links
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
