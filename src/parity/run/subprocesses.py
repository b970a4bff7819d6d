"""Run a child process whose progress a person sees, and whose last words an error can quote."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TIMED_OUT = 124
"""Exit code of a child that was ended because its time was over."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        code: its exit code.
        output: what it wrote to standard output.
        last: the last line it wrote to standard error.
    """

    code: int
    output: str
    last: str


def run_with_progress(
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    seconds: float | None = None,
) -> Ended:
    """Run a child to its end, passing on its progress as it comes.

    Only lines of progress are passed on; what else it says on standard error is noise unless it
    fails, and then its last line tells.

    Args:
        words: program and arguments.
        env: its whole environment.
        cwd: where it runs.
        seconds: when it is ended, with all that it started; None lets it run.
    """
    # A file takes any amount of output; a pipe that nobody reads meanwhile would fill and block.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as told:
        with subprocess.Popen(
            words,
            env=env,
            cwd=cwd,
            stdout=told,
            stderr=subprocess.PIPE,
            text=True,
            process_group=None if seconds is None else 0,  # so that its own children end with it
        ) as child:
            assert child.stderr is not None
            with _limit(child, seconds) as over:
                last = _pass_on(child.stderr)
        told.seek(0)
        if over.is_set():
            return Ended(TIMED_OUT, told.read(), f"it had not ended after {seconds:.0f} s")
        return Ended(child.returncode, told.read(), last)


@contextmanager
def _limit(child: "subprocess.Popen[str]", seconds: float | None) -> Iterator[threading.Event]:
    """Yield what is set once the time was over; a child with a limit never outlives the block."""
    over = threading.Event()
    if seconds is None:
        yield over
        return

    def end() -> None:
        over.set()
        _kill(child)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield over
    except BaseException:  # Ctrl-C reaches us alone: the child is in a group of its own
        _kill(child)
        raise
    finally:
        timer.cancel()


def _kill(child: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _pass_on(errors: IO[str]) -> str:
    last = "no word of why"
    for line in errors:
        if line.strip():
            last = line.strip()
        if "%|" in line:
            sys.stderr.write(line)
            sys.stderr.flush()
    return last
