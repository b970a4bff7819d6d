"""Show progress with time left: a bar on a terminal, a line every 15 s in a pipe."""

import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO, TypeAlias

from tqdm import tqdm

Bar: TypeAlias = "tqdm[NoReturn]"

_COLUMNS = 78
_LINE_SECONDS = 15.0  # between two lines in a pipe


@contextmanager
def progress(label: str, total: int, unit: str = "it", done: int = 0) -> Iterator[Bar]:
    """Yield a bar; call `.update(n)` on it.

    Args:
        label: name of the work, in a few words.
        total: number of units.
        unit: name of a unit.
        done: number of units finished before (in a resumed stage).
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
        disable=os.environ.get("RANK", "0") != "0",  # of several processes, only the first
        delay=1.0,  # shorter work shows no bar
        leave=terminal,
        position=None if terminal else 0,  # a nested bar would move the cursor
        file=sys.stderr if terminal else _Lines(sys.stderr),
    )
    with bar:
        yield bar


def wrap_lines(text: str, indent: str = "", hang: str = "  ") -> list[str]:
    r"""Return a long line as lines of at most 78 columns; an empty line as an empty list.

    >>> wrap_lines("one " * 20 + "two", "- ")
    ['- one one one one one one one one one one one one one one one one one one one', '-   one two']

    Args:
        text: the line.
        indent: prefix of each line.
        hang: further prefix of the later lines.
    """
    return textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent + hang,
        break_on_hyphens=False,
    )


def wrap(text: str) -> str:
    r"""Return a long line wrapped to 78 columns, later lines indented.

    >>> wrap("a line that fits")
    'a line that fits'
    """
    return "\n".join(wrap_lines(text))


def log(line: str) -> None:
    """Print a line to standard error without breaking bars, in the first process only."""
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(line, file=sys.stderr)


class _Lines:
    """A stream that writes each state of a bar as a line, without carriage returns."""

    def __init__(self, pipe: TextIO) -> None:
        self._pipe = pipe

    def write(self, text: str) -> None:
        if line := text.strip():
            self._pipe.write(f"{line}\n")

    def flush(self) -> None:
        self._pipe.flush()
