"""Push the kernel: once for each key, and proven by reading back what Kaggle made of it.

Kaggle runs a kernel without a source it does not know, in its newest image and with the network
on unless told otherwise, and says so only in passing; so everything is told, and read back.
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
"""Seconds in which a version whose reply was lost would show itself."""
_BUSY = "session count"
_SETTINGS = ("kind", "private", "internet", "gpu", "image")
_COMPARED = ("text", "datasets", "competitions", "models", *_SETTINGS)


@dataclass(frozen=True, slots=True)
class Pushed:
    """A kernel version that is what was asked for.

    Attributes:
        ref: owner/slug.
        version: its number.
        sent: whether it was saved now.
    """

    ref: str
    version: int
    sent: bool


def key_of(bundle: str, wheelhouse: str, failed: Collection[int] = ()) -> str:
    """Return the key of a kernel; after versions that ended badly it is another.

    >>> key_of("0123456789abcdef00", "fedcba9876543210", {1})
    'bundle 0123456789abcdef, wheelhouse fedcba9876543210, after version 1'
    """
    again = f", after version {max(failed)}" if failed else ""
    return f"bundle {bundle[:16]}, wheelhouse {wheelhouse[:16]}{again}"


def keyed(source: str, key: str) -> str:
    """Return the kernel's source with its key as a last comment, by which it is known again."""
    return f"{source.rstrip()}\n# {key}\n"


def notebook(source: str) -> str:
    """Return the same source as a notebook of one cell, JSON.

    >>> json.loads(notebook("print(1)"))["cells"][0]["source"]
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
    whole = {
        "cells": [cell],
        "metadata": {"kernelspec": python, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, sort_keys=True)


def push(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, failed: Collection[int] = ()
) -> Pushed:
    """Make sure that the kernel's current version is `wanted`; saving it starts its run.

    Args:
        door: to Kaggle.
        wanted: the kernel.
        scratch: folder for marks.
        failed: versions that are known to have ended badly: such a one is saved again.

    Raises:
        Refused: Kaggle took it not, or not with all its sources.
        Mismatch: what Kaggle made of it is something else; names the first difference.
        Unknown: it may have taken it; the same command finds out.
    """
    before = door.kernels.held(wanted.ref)
    mark = scratch / f"{digest.of_value(asdict(wanted))}.mark"

    def look() -> int | None:
        held = door.kernels.held(wanted.ref)
        if held is None or not _stands(wanted, held, failed):
            return None
        old = before is not None and held.version == before.version
        return None if old and _ended_badly(door, held) else held.version

    version, sent = ensure_once(
        door.clock,
        mark,
        look,
        lambda: _save(door, wanted),
        lambda version: _read_back(door, wanted, version),
    )
    return Pushed(wanted.ref, version, sent=sent)


def steps(door: KaggleClient, wanted: KaggleKernel, failed: Collection[int] = ()) -> list[str]:
    """Return the calls that `push` would make, a line each, having only asked.

    Raises:
        Mismatch: Kaggle holds it with another setting.
    """
    held = door.kernels.held(wanted.ref)
    if held is not None and _stands(wanted, held, failed) and not _ended_badly(door, held):
        return [f"{wanted.ref}: version {held.version} is this kernel: nothing to save"]
    sources = [*wanted.datasets, *wanted.models, *wanted.competitions]
    return [
        f"SaveKernel {wanted.ref}, {wanted.kind}, private, internet off, {wanted.machine}",
        f"  image {wanted.image}",
        *(f"  source {source}" for source in sources),
        "GetKernel: compare what Kaggle made of it",
    ]


def difference(wanted: KaggleKernel, held: KaggleKernel) -> str:
    """Return the first thing in which a kernel is not the one wanted, empty where it is.

    Kaggle may leave the version off a dataset's name when it is asked; the kernel itself then
    proves by digest which one it was given.
    """
    for name in _COMPARED:
        here, there = getattr(wanted, name), getattr(held, name)
        if name == "datasets" and {_unpinned(one) for one in there} == set(there):
            here = tuple(_unpinned(one) for one in here)
        if name == "text" and wanted.kind == "notebook":
            here, there = _cells(here), _cells(there)
        if isinstance(here, tuple):
            here, there = tuple(sorted(here)), tuple(sorted(there))
        if here != there:
            return name
    return ""


def _stands(wanted: KaggleKernel, held: KaggleKernel, failed: Collection[int]) -> bool:
    """Return whether what Kaggle holds is the kernel wanted, and no version known to be bad."""
    if held.version in failed:
        return False
    if odd := difference(wanted, held):
        _refuse_settings(wanted, held, odd)
    return not odd


def _ended_badly(door: KaggleClient, held: KaggleKernel) -> bool:
    return door.kernels.status(held.ref, held.version)[0] in FAILED


def _save(door: KaggleClient, wanted: KaggleKernel) -> int:
    try:
        return door.kernels.push(wanted)
    except KaggleRejected as error:
        if _BUSY not in str(error):
            raise
        raise KaggleRejected(
            f"{error}; wait for another session's end, then the same command"
        ) from error


def _read_back(door: KaggleClient, wanted: KaggleKernel, version: int) -> None:
    """Check that the version is what was asked for; it may show a moment later."""
    shown: KaggleKernel | None = None

    def look() -> bool | None:
        nonlocal shown
        shown = door.kernels.held(wanted.ref)
        return True if shown is not None and shown.version >= version else None

    if polling.poll_until(door.clock, look, GRACE) is None or shown is None:
        raise OutcomeUnknown(
            f"{wanted.ref} version {version} does not show; the same command looks again"
        )
    if shown.version > version:
        raise Mismatch(
            f"{wanted.ref} is at version {shown.version}, saved was {version}: somebody else "
            "pushed; the same command pushes this one again"
        )
    if odd := difference(wanted, shown):
        _refuse_settings(wanted, shown, odd)
        raise Mismatch(
            f"{wanted.ref} version {version}: its {odd} is not what was told; stop it on its page, "
            "and the same command pushes it again"
        )


def _refuse_settings(wanted: KaggleKernel, held: KaggleKernel, odd: str) -> None:
    """Refuse our own kernel with another setting: pushed again, Kaggle would do the same again.

    Raises:
        Mismatch: it is so; says where to set it right.
    """
    if odd in _SETTINGS and _cells(held.text) == _cells(wanted.text):
        raise Mismatch(
            f"{held.ref} version {held.version}: Kaggle made its {odd} {getattr(held, odd)!r}, "
            f"told was {getattr(wanted, odd)!r}; set it in the kernel's settings on its page and "
            "save, and the same command goes on with that version"
        )


def _unpinned(source: str) -> str:
    return "/".join(source.split("/")[:2])


def _cells(text: str) -> object:
    """Return a notebook's sources, for Kaggle adds metadata of its own."""
    try:
        return ["".join(cell.get("source", "")) for cell in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return text  # no notebook
