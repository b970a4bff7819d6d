"""Say something to Kaggle once, whatever is lost: a reply, the connection, or this process.

Before anything is said a mark is left here, and taken away when what came of it is known. Whoever
finds a mark was cut off in between, and gives Kaggle time to show what it took before speaking
again; it may show a version only some polls after it has made it.
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
"""Seconds in which what Kaggle took would show."""


def ensure_once(
    clock: Clock,
    mark: Path,
    look: Callable[[], T | None],
    tell: Callable[[], T],
    prove: Callable[[T], object],
) -> tuple[T, bool]:
    """Return what Kaggle holds, and whether it was told now.

    Args:
        clock: what waiting goes by.
        mark: a file of this thing alone; its folder is made.
        look: returns what Kaggle holds of it, None where nothing.
        tell: makes Kaggle hold it, and returns what `look` would.
        prove: returns once Kaggle shows what it was told; until then the mark stays.

    Raises:
        Refused: Kaggle took it not.
        Mismatch, RunFailed: it took it, and `prove` knows what became of it.
        Unknown: it may have taken it, and does not show it; the mark stays.
    """
    if (found := taken(clock, mark, look)) is not None:
        return found, False
    files.write_text(mark, "")
    try:
        made = tell()
    except KaggleRejected:
        files.remove(mark)
        raise
    except OutcomeUnknown:
        if (shown := polling.poll_until(clock, look, GRACE)) is None:
            raise
        made = shown
    try:
        prove(made)
    except (Mismatch, RunFailed):
        files.remove(mark)
        raise
    files.remove(mark)
    return made, True


def taken(clock: Clock, mark: Path, look: Callable[[], T | None]) -> T | None:
    """Return what Kaggle holds, None where nothing; no mark is left.

    Where there is one, Kaggle gets time to show what it was told.
    """
    found = look()
    if found is None and mark.is_file():
        found = polling.poll_until(clock, look, GRACE)
    files.remove(mark)
    return found
