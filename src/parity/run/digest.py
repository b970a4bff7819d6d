"""Compute sha256 digests of values, files and folders; equal values have equal digests."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20  # bytes


def canonical(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces.

    >>> canonical({"b": 1, "a": [1.5, "x"]})
    '{"a":[1.5,"x"],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def of_bytes(data: bytes) -> str:
    """Return the sha256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def of_text(text: str) -> str:
    """Return the sha256 of `text` as UTF-8.

    >>> of_text("")[:8]
    'e3b0c442'
    """
    return of_bytes(text.encode("utf-8"))


def of_value(value: Any) -> str:
    """Return the sha256 of a JSON value in canonical form."""
    return of_text(canonical(value))


def of_lines(lines: Iterable[str]) -> str:
    """Return the sha256 of a list of texts, each preceded by its length to avoid collisions."""
    state = hashlib.sha256()
    for line in lines:
        data = line.encode("utf-8")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    state = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def of_tree(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Return relative POSIX path → sha256 for every file under `folder`, or only for `names`."""
    if names is None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
    else:
        paths = sorted(folder / name for name in names)
    return {path.relative_to(folder).as_posix(): of_file(path) for path in paths}
