"""How a task of `tasks.py` becomes one process: its options are flags of the same names."""

import inspect
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from invoke.context import Context
from invoke.parser.argument import Argument
from invoke.tasks import Task, task

DEMO = "runs/demo.toml"
Help = dict[str, str]
SWITCHES = ("accept_contaminated", "accept_risk", "dry_run", "json", "online", "quick")
"""Options without a value."""


def launch(c: Context, *words: str) -> None:
    """Start this Python as a person would; its exit code becomes ours."""
    print("$ python", shlex.join(words), file=sys.stderr, flush=True)
    watched = sys.stdout.isatty() and sys.stderr.isatty()  # then progress is a bar
    c.run(shlex.join([sys.executable, *words]), pty=watched, in_stream=False)


def words(name: str, run: str, sets: Sequence[str], flags: Mapping[str, str | bool]) -> list[str]:
    """Return the words that start one stage; an empty flag was not given."""
    words = [f"--set={value}" for value in sets]
    for flag, value in flags.items():
        flag = f"--{flag.strip('_').replace('_', '-')}"
        words += [f"{flag}={value}" if value is not True else flag] * bool(value)
    return ["-m", "parity", name, *[run] * bool(run), *words]


def verb(name: str, does: str, *options: Help, run: str = DEMO, switches: str = "") -> "Task[Any]":
    """Make the task that starts a stage or tool: its options are flags of the same names.

    Args:
        name: of the stage.
        does: its line of help.
        options: option → its line of help.
        run: the run file where none is named.
        switches: further options without a value, by name.
    """
    helps = {option: line for given in options for option, line in given.items()}
    bare = dict.fromkeys([*SWITCHES, *switches.split()], False)
    defaults: dict[str, str | bool | None] = {"run": run, "set_": None, **bare}

    def start(c: Context, **given: Any) -> None:
        file, sets = given.pop("run", ""), given.pop("set_", ())
        launch(c, *words(name, file, sets, given))

    plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
    start.__doc__ = does
    start.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("c", plain),
            *(inspect.Parameter(one, plain, default=defaults.get(one, "")) for one in helps),
        ]
    )
    iterable = ["set_"] * ("set_" in helps)
    made: Task[Any] = task(
        name=name.rpartition(".")[2],
        help=helps,
        iterable=iterable,
        auto_shortflags=False,
        default=name == "story",
    )(start)
    return made


class _Side(Argument):
    """A word of a task that may be left out.

    invoke knows no such words: while there are words one that is missing is taken, and when there
    are no more it counts as given.
    """

    @property
    def value(self) -> Any:
        """Return the word, None where a further one would be taken for it."""
        found = Argument.value.fget(self)  # type: ignore[attr-defined]
        ended = any(one.function == "complete_context" for one in inspect.stack(0)[1:4])
        return "" if found is None and ended else found

    @value.setter
    def value(self, word: Any) -> None:
        self.set_value(word)


class Sided(Task[Any]):
    """A task whose words may be left out."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return its arguments."""
        found: list[Argument] = super().get_arguments(ignore_unknown_help)
        for one in found:
            one.__class__ = _Side if one.positional else Argument
        return found
