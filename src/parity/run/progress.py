"""Progress with time left: a bar on a terminal, a line now and then in a pipe."""

import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO, TypeAlias

from tqdm import tqdm

Bar: TypeAlias = "tqdm[NoReturn]"

_COLUMNS = 78
_LINE_SECONDS = 15.0  # in a pipe a bar is a line; more often would drown the log


@contextmanager
def progress(label: str, total: int, unit: str = "it", done: int = 0) -> Iterator[Bar]:
    """Yield a bar; call `.update(n)` on it.

    Args:
        label: what is going on, in a few words.
        total: how many units the work has.
        unit: the name of one unit.
        done: units finished before (a resumed stage).
    """
    terminal = sys.stderr.isatty()
    bar = tqdm(
        desc=label,
        total=total,
        initial=done,
        unit=unit,
        ncols=_COLUMNS,
        ascii=not terminal,
        mininterval=0.2 if terminal else _LINE_SECONDS,
        disable=os.environ.get("RANK", "0") != "0",  # of several processes one talks
        delay=1.0,  # silent when the work takes less
        leave=terminal,
        position=None if terminal else 0,  # a bar within a bar would move the cursor
        file=sys.stderr if terminal else _Lines(sys.stderr),
    )
    with bar:
        yield bar


def wrapped(text: str, indent: str = "", hang: str = "  ") -> list[str]:
    r"""Return a long line as lines of at most 78 columns; none of an empty one.

    >>> wrapped("one " * 20 + "two", "- ")
    ['- one one one one one one one one one one one one one one one one one one one', '-   one two']

    Args:
        text: the line.
        indent: before each line.
        hang: further before the later ones.
    """
    return textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent + hang,
        break_on_hyphens=False,
    )


def folded(text: str) -> str:
    r"""Return a long line as lines of at most 78 columns, the later ones set in.

    >>> folded("a line that fits")
    'a line that fits'
    """
    return "\n".join(wrapped(text))


def tell(line: str) -> None:
    """Say one line beside the bars, on standard error; of several processes one talks."""
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(line, file=sys.stderr)


class _Lines:
    """A pipe in which each state of a bar is a line, with no carriage returns."""

    def __init__(self, pipe: TextIO) -> None:
        self._pipe = pipe

    def write(self, text: str) -> None:
        if line := text.strip():
            self._pipe.write(f"{line}\n")

    def flush(self) -> None:
        self._pipe.flush()
