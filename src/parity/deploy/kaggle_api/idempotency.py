"""Idempotent write requests to Kaggle, across lost replies, dropped connections and crashes.

A mark file is written before the request and removed once the outcome is known. A process that
finds a mark knows that an earlier one was interrupted, so it first polls Kaggle: a new version may
become visible only some polls after it was created.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.clock import Clock
from parity.run import files
from parity.run.errors import KaggleRejected, Mismatch, OutcomeUnknown, RunFailed

T = TypeVar("T")

GRACE = 300.0
"""Time in seconds after which an accepted request is visible on Kaggle."""


def ensure_once(
    clock: Clock,
    mark: Path,
    look: Callable[[], T | None],
    create: Callable[[], T],
    verify: Callable[[T], object],
) -> tuple[T, bool]:
    """Return what Kaggle holds, and whether this call created it.

    Args:
        clock: clock for waiting.
        mark: mark file of this request only; its folder is created.
        look: returns what Kaggle holds, None if nothing.
        create: sends the request and returns what `look` would.
        verify: returns once Kaggle shows the result; until then the mark stays.

    Raises:
        KaggleRejected: Kaggle refused the request.
        Mismatch, RunFailed: Kaggle accepted it, and `verify` found it wrong.
        OutcomeUnknown: the request may have succeeded but is not visible; the mark stays.
    """
    if (existing := find_existing(clock, mark, look)) is not None:
        return existing, False
    files.write_text(mark, "")
    try:
        created = create()
    except KaggleRejected:
        files.remove(mark)
        raise
    except OutcomeUnknown:
        if (visible := polling.poll_until(clock, look, GRACE)) is None:
            raise
        created = visible
    try:
        verify(created)
    except (Mismatch, RunFailed):
        files.remove(mark)
        raise
    files.remove(mark)
    return created, True


def find_existing(clock: Clock, mark: Path, look: Callable[[], T | None]) -> T | None:
    """Return what Kaggle holds, None if nothing, and remove the mark.

    If there is a mark, poll for the result of the interrupted request.
    """
    existing = look()
    if existing is None and mark.is_file():
        existing = polling.poll_until(clock, look, GRACE)
    files.remove(mark)
    return existing
