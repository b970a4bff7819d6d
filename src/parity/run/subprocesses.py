"""Run a child process: pass on its progress, and keep its last error line for messages."""

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
"""Exit code of a child that exceeded its time limit."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """The result of a child process.

    Attributes:
        code: exit code.
        output: standard output.
        last: last line of standard error.
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
) -> ProcessResult:
    """Run a child process and pass on its progress lines.

    Other lines on standard error are dropped; the last one explains a failure.

    Args:
        words: program and arguments.
        env: complete environment of the child.
        cwd: working directory.
        seconds: time limit, after which the child and its children are killed; None for no limit.
    """
    # A file takes any amount of output; an unread pipe would fill up and block the child.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        with subprocess.Popen(
            words,
            env=env,
            cwd=cwd,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            process_group=None if seconds is None else 0,  # to kill its children with it
        ) as child:
            assert child.stderr is not None
            with _limit(child, seconds) as over:
                last = _pass_on(child.stderr)
        output.seek(0)
        if over.is_set():
            return ProcessResult(
                TIMED_OUT, output.read(), f"it exceeded the limit of {seconds:.0f} s"
            )
        return ProcessResult(child.returncode, output.read(), last)


@contextmanager
def _limit(child: "subprocess.Popen[str]", seconds: float | None) -> Iterator[threading.Event]:
    """Yield an event that is set at the time limit; a child with a limit ends with the block."""
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
    except BaseException:  # Ctrl-C does not reach the child in its own process group
        _kill(child)
        raise
    finally:
        timer.cancel()


def _kill(child: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _pass_on(errors: IO[str]) -> str:
    last = "no error message"
    for line in errors:
        if line.strip():
            last = line.strip()
        if "%|" in line:
            sys.stderr.write(line)
            sys.stderr.flush()
    return last
