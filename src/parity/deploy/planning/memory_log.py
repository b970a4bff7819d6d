"""Bytes of a token on each device, measured by earlier stages, in one JSON file for all runs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parity.run import files


def read_bytes_per_token(path: Path, key: str) -> dict[str, float]:
    """Return the kind of work → bytes of one token, as logged under a key.

    Args:
        path: log file; it may be missing.
        key: device and base, as one text.
    """
    logged: dict[str, float] = _read(path).get(key, {})
    return logged


def log_bytes_per_token(path: Path, key: str, kind: str, bytes_per_token: float) -> None:
    """Write the bytes of one token to the log; the largest value of a kind stays.

    Args:
        path: log file, created if it is missing.
        key: device and base, as one text.
        kind: kind of work.
        bytes_per_token: measured bytes; 0, which is not logged, when the peak is unknown.
    """
    if not bytes_per_token:
        return
    log = _read(path)
    logged = log.get(key, {})
    logged[kind] = round(max(bytes_per_token, logged.get(kind, 0.0)), 1)
    files.write_json(path, {**log, key: logged})


def peak_per_token(lists: Iterable[Mapping[str, Any]]) -> float:
    """Return the largest bytes of one token among lists of texts, or 0.

    Args:
        lists: an encoder's measurements, with `peak`, `tokens` and `budget`.
    """
    # A list shorter than one full pack does not show the bytes of a token.
    full = [item for item in lists if item["peak"] and item["tokens"] >= item["budget"]]
    return max((item["peak"] / item["budget"] for item in full), default=0.0)


def _read(path: Path) -> dict[str, dict[str, float]]:
    return files.read_json(path) if path.is_file() else {}
