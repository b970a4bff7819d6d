"""Build the commands that messages print, spelled as the program was started."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

PROGRAM = "PARITY_PROGRAM"
"""Environment variable with the program's name; `./inv`, Invoke and the console script set it."""
_MODULE = "python -m parity"
_CHECKOUT_ONLY = "dev."  # tasks of tasks.py that the package does not have


def program(verb: str = "") -> str:
    """Return how the program was started: `./inv`, `invoke`, `parity` or `python -m parity`.

    Args:
        verb: the command to print; one of `tasks.py` alone is always spelled for Invoke.
    """
    name = os.environ.get(PROGRAM) or _MODULE
    return "./inv" if verb.startswith(_CHECKOUT_ONLY) and name != "invoke" else name


def command_words(
    verb: str,
    *flags: str,
    run_file: Path | None = None,
    overrides: Sequence[str] = (),
    round_: int = 0,
) -> tuple[str, ...]:
    """Return the words of a command without the program, verb first.

    >>> command_words("mine", "--dry-run", run_file=Path("a.toml"), overrides=["x.y=1"], round_=2)
    ('mine', '--run', 'a.toml', '--set=x.y=1', '--round', '2', '--dry-run')

    Args:
        verb: name of a stage or command.
        flags: further words, last.
        run_file: run file to name; None names none.
        overrides: the user's `section.key=value` settings.
        round_: round of the run; 0 is the default and is not printed.
    """
    words = [verb]
    if run_file is not None:
        words += ["--run", run_file.as_posix()]
    words += [f"--set={value}" for value in overrides]
    if round_:
        words += ["--round", str(round_)]
    return (*words, *flags)


def build_command(
    verb: str,
    *flags: str,
    run_file: Path | None = None,
    overrides: Sequence[str] = (),
    round_: int = 0,
) -> str:
    """Return a complete command that can be pasted into a shell."""
    return join_command(
        command_words(verb, *flags, run_file=run_file, overrides=overrides, round_=round_)
    )


def join_command(words: Sequence[str]) -> str:
    """Return a command from its words, verb first, with the program in front."""
    return f"{program(words[0])} {shlex.join(words)}"
