"""Idempotent push of a kernel, verified by reading back what Kaggle saved.

By default Kaggle runs a kernel in its newest image with internet on, drops sources that it does not
know, and mentions this only in passing. So every setting is sent explicitly and read back.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.idempotency import ensure_once
from parity.deploy.kaggle_api.types import FAILED, KaggleKernel
from parity.run import digest
from parity.run.errors import KaggleRejected, Mismatch, OutcomeUnknown

GRACE = 120.0
"""Time in seconds after which a saved version is visible on Kaggle."""
_BUSY = "session count"
_SETTINGS = ("kind", "private", "internet", "gpu", "image")
_COMPARED = ("text", "datasets", "competitions", "models", *_SETTINGS)


@dataclass(frozen=True, slots=True)
class Pushed:
    """A kernel version that matches the requested kernel.

    Attributes:
        ref: owner/slug.
        version: version number.
        sent: whether this call saved it.
    """

    ref: str
    version: int
    sent: bool


def kernel_key(bundle: str, wheelhouse: str, failed: Collection[int] = ()) -> str:
    """Return the key of a kernel; it changes after each failed version.

    >>> kernel_key("0123456789abcdef00", "fedcba9876543210", {1})
    'bundle 0123456789abcdef, wheelhouse fedcba9876543210, after version 1'
    """
    suffix = f", after version {max(failed)}" if failed else ""
    return f"bundle {bundle[:16]}, wheelhouse {wheelhouse[:16]}{suffix}"


def add_key(source: str, key: str) -> str:
    """Return the kernel's source with its key as the last comment."""
    return f"{source.rstrip()}\n# {key}\n"


def build_notebook(source: str) -> str:
    """Return the source as a notebook with one cell, JSON.

    >>> json.loads(build_notebook("print(1)"))["cells"][0]["source"]
    'print(1)'
    """
    cell: dict[str, object] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "kernel",
        "metadata": {},
        "outputs": [],
        "source": source,
    }
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": [cell],
        "metadata": {"kernelspec": python, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, sort_keys=True)


def push(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, failed: Collection[int] = ()
) -> Pushed:
    """Ensure that the current version on Kaggle is `kernel`; saving it starts a run.

    Args:
        client: Kaggle client.
        kernel: the requested kernel.
        scratch: folder for mark files.
        failed: versions known to have failed; they are pushed again.

    Raises:
        KaggleRejected: Kaggle refused it, or dropped one of its sources.
        Mismatch: Kaggle saved something else; names the first difference.
        OutcomeUnknown: it may have been saved; the same command checks.
    """
    before = client.kernels.get(kernel.ref)
    mark = scratch / f"{digest.of_value(asdict(kernel))}.mark"

    def look() -> int | None:
        current = client.kernels.get(kernel.ref)
        if current is None or not _is_usable(kernel, current, failed):
            return None
        is_old = before is not None and current.version == before.version
        return None if is_old and _has_failed(client, current) else current.version

    version, sent = ensure_once(
        client.clock,
        mark,
        look,
        lambda: _save(client, kernel),
        lambda version: _read_back(client, kernel, version),
    )
    return Pushed(kernel.ref, version, sent=sent)


def planned_calls(
    client: KaggleClient, kernel: KaggleKernel, failed: Collection[int] = ()
) -> list[str]:
    """Return the calls that `push` would make, one per line; only read from Kaggle.

    Raises:
        Mismatch: Kaggle saved this kernel with another setting.
    """
    current = client.kernels.get(kernel.ref)
    if (
        current is not None
        and _is_usable(kernel, current, failed)
        and not _has_failed(client, current)
    ):
        return [f"{kernel.ref}: version {current.version} is this kernel: nothing to save"]
    sources = [*kernel.datasets, *kernel.models, *kernel.competitions]
    return [
        f"SaveKernel {kernel.ref}, {kernel.kind}, private, internet off, {kernel.machine}",
        f"  image {kernel.image}",
        *(f"  source {source}" for source in sources),
        "GetKernel: compare with what Kaggle saved",
    ]


def first_difference(kernel: KaggleKernel, saved: KaggleKernel) -> str:
    """Return the first field in which a saved kernel differs, empty if none does.

    Kaggle may return dataset sources without their versions; the kernel itself then verifies the
    dataset's digest when it runs.
    """
    for name in _COMPARED:
        expected, actual = getattr(kernel, name), getattr(saved, name)
        if name == "datasets" and {_unpinned(source) for source in actual} == set(actual):
            expected = tuple(_unpinned(source) for source in expected)
        if name == "text" and kernel.kind == "notebook":
            expected, actual = _cells(expected), _cells(actual)
        if isinstance(expected, tuple):
            expected, actual = tuple(sorted(expected)), tuple(sorted(actual))
        if expected != actual:
            return name
    return ""


def _is_usable(kernel: KaggleKernel, saved: KaggleKernel, failed: Collection[int]) -> bool:
    """Return whether the version on Kaggle is the requested kernel and is not known to fail."""
    if saved.version in failed:
        return False
    if field := first_difference(kernel, saved):
        _refuse_settings(kernel, saved, field)
    return not field


def _has_failed(client: KaggleClient, saved: KaggleKernel) -> bool:
    return client.kernels.status(saved.ref, saved.version)[0] in FAILED


def _save(client: KaggleClient, kernel: KaggleKernel) -> int:
    try:
        return client.kernels.push(kernel)
    except KaggleRejected as error:
        if _BUSY not in str(error):
            raise
        raise KaggleRejected(
            f"{error}; wait until another session ends, then run the same command again"
        ) from error


def _read_back(client: KaggleClient, kernel: KaggleKernel, version: int) -> None:
    """Check that the saved version is the requested kernel; it may become visible late."""
    saved: KaggleKernel | None = None

    def look() -> bool | None:
        nonlocal saved
        saved = client.kernels.get(kernel.ref)
        return True if saved is not None and saved.version >= version else None

    if polling.poll_until(client.clock, look, GRACE) is None or saved is None:
        raise OutcomeUnknown(
            f"{kernel.ref} version {version} is not visible on Kaggle yet; "
            "run the same command again to check"
        )
    if saved.version > version:
        raise Mismatch(
            f"{kernel.ref} is at version {saved.version}, expected {version}: someone else "
            "pushed; run the same command to push this kernel again"
        )
    if field := first_difference(kernel, saved):
        _refuse_settings(kernel, saved, field)
        raise Mismatch(
            f"{kernel.ref} version {version}: Kaggle saved different {field}; stop it on its "
            "Kaggle page, then run the same command to push it again"
        )


def _refuse_settings(kernel: KaggleKernel, saved: KaggleKernel, field: str) -> None:
    """Refuse our own kernel with a changed setting: after another push Kaggle would change it too.

    Raises:
        Mismatch: a setting differs; says where to change it.
    """
    if field in _SETTINGS and _cells(saved.text) == _cells(kernel.text):
        raise Mismatch(
            f"{saved.ref} version {saved.version}: Kaggle saved {field}={getattr(saved, field)!r} "
            f"but the kernel asks for {getattr(kernel, field)!r}; change it in the kernel's "
            "settings on Kaggle, save, and run the same command to use that version"
        )


def _unpinned(source: str) -> str:
    return "/".join(source.split("/")[:2])


def _cells(text: str) -> object:
    """Return the sources of a notebook's cells; Kaggle adds metadata that is not compared."""
    try:
        return ["".join(cell.get("source", "")) for cell in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return text  # not a notebook
