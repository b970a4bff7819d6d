"""Run a child process whose progress a person sees, and whose last words an error can quote."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO


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


def watched(words: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None) -> Ended:
    """Run a child to its end, passing on its progress as it comes.

    Only lines of progress are passed on; what else it says on standard error is noise unless it
    fails, and then its last line tells.

    Args:
        words: program and arguments.
        env: its whole environment.
        cwd: where it runs.
    """
    # A file takes any amount of output; a pipe that nobody reads meanwhile would fill and block.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as told:
        with subprocess.Popen(
            words, env=env, cwd=cwd, stdout=told, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stderr is not None
            last = _pass_on(child.stderr)
        told.seek(0)
        return Ended(child.returncode, told.read(), last)


def _pass_on(errors: IO[str]) -> str:
    last = "no word of why"
    for line in errors:
        if line.strip():
            last = line.strip()
        if "%|" in line:
            sys.stderr.write(line)
            sys.stderr.flush()
    return last
