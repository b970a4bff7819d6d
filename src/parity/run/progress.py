"""Progress with time left: a bar on a terminal, a line now and then in a pipe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

_LINE_SECONDS = 15.0  # in a pipe a bar is a line; more often would drown the log


@contextmanager
def progress(label: str, total: int, unit: str = "it", done: int = 0) -> Iterator["tqdm[None]"]:
    """Yield a bar; call `.update(n)` on it.

    Args:
        label: what is going on, in a few words.
        total: how many units the work has.
        unit: the name of one unit.
        done: units finished before (a resumed stage).
    """
    terminal = sys.stderr.isatty()
    with tqdm(
        desc=label,
        total=total,
        initial=done,
        unit=unit,
        ncols=78,
        ascii=not terminal,
        mininterval=0.2 if terminal else _LINE_SECONDS,
        delay=1.0,  # silent when the work takes less
        leave=terminal,
        file=sys.stderr,
    ) as bar:
        yield bar
