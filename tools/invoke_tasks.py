"""Make Invoke tasks from the table of commands; each starts `python -m parity COMMAND`."""

import inspect
import keyword
import os
import shlex
import sys
from collections.abc import Iterable
from typing import Any

from invoke import program
from invoke.context import Context
from invoke.parser.argument import Argument
from invoke.tasks import Task, task

from parity.pipeline.declaration import Command, Option
from parity.pipeline.registry import summary_of
from parity.run.command_line import PROGRAM

_PLAIN = inspect.Parameter.POSITIONAL_OR_KEYWORD


def launch(c: Context, *words: str) -> None:
    """Run this Python with some words; return with its exit code."""
    print("$ python", shlex.join(words), file=sys.stderr, flush=True)
    os.environ.setdefault(PROGRAM, "invoke")  # how the messages of the process spell commands
    is_terminal = sys.stdout.isatty() and sys.stderr.isatty()  # then progress is a bar
    c.run(shlex.join([sys.executable, *words]), pty=is_terminal, in_stream=False)


def command_task(command: Command, *, is_default: bool = False) -> "Task[Any]":
    """Return the task that starts a stage or a command, with the same options."""
    options = {
        _parameter(name): option for option in command.all_options for name in _names(option)
    }

    def start(c: Context, **values: Any) -> None:
        words = [
            word for name, option in options.items() for word in _words(option, values.get(name))
        ]
        launch(c, "-m", "parity", command.name, *words)

    start.__doc__ = summary_of(command)
    parameters = [
        inspect.Parameter(name, _PLAIN, default=_default(o)) for name, o in options.items()
    ]
    parameters.sort(key=lambda item: item.default is not inspect.Parameter.empty)
    start.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("c", _PLAIN), *parameters]
    )
    result: Task[Any] = task(
        klass=OptionalWordsTask,
        name=command.name.rpartition(".")[2],
        help={name: option.help for name, option in options.items()},
        positional=[name for name, option in options.items() if option.is_positional],
        iterable=[name for name, option in options.items() if option.is_repeated],
        auto_shortflags=False,
        default=is_default,
    )(start)
    return result


def tool_task(name: str, summary: str, *commands: str, is_default: bool = False) -> "Task[Any]":
    """Return the task that runs Python with fixed words, one command after the other."""

    def start(c: Context) -> None:
        for words in commands:
            launch(c, *shlex.split(words))

    start.__doc__ = summary
    result: Task[Any] = task(name=name, default=is_default)(start)
    return result


def list_in_order() -> None:
    """Make `--list` print tasks in the order in which they were added, not by name."""
    # Invoke has no setting for it; its module that prints the list sorts by this name alone.
    program.sorted = list  # type: ignore[attr-defined]


def _names(option: Option) -> Iterable[str]:
    return option.names or (option.flag.strip("-"),)


def _parameter(name: str) -> str:
    """Return the parameter of an option; Invoke drops the underscore of `import_`."""
    name = name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _default(option: Option) -> Any:
    if option.is_positional:
        return inspect.Parameter.empty
    if option.is_switch:
        return False
    return None if option.is_repeated else ""


def _words(option: Option, value: Any) -> list[str]:
    """Return the words of one option; a value that is empty was not given."""
    if not value:
        return []
    if option.is_positional:
        return [value]
    if option.is_switch:
        return [option.flag]
    return [f"{option.flag}={item}" for item in (value if option.is_repeated else [value])]


class _OptionalWord(Argument):
    """A positional argument that may be left out.

    Invoke does not have these: while words follow, a missing positional argument takes the next
    one, and when no words are left the argument counts as given.
    """

    @property
    def value(self) -> Any:
        """Word of the argument; None where a further word may still be taken for it."""
        word = Argument.value.fget(self)  # type: ignore[attr-defined]
        is_complete = any(frame.function == "complete_context" for frame in inspect.stack(0)[1:4])
        return "" if word is None and is_complete else word

    @value.setter
    def value(self, word: Any) -> None:
        self.set_value(word)


class OptionalWordsTask(Task[Any]):
    """A task whose positional arguments may be left out."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return its arguments; Invoke takes the help out of the task, so it is put back."""
        help_texts = dict(self.help)
        arguments: list[Argument] = super().get_arguments(ignore_unknown_help)
        self.help = help_texts
        for argument in arguments:
            argument.__class__ = _OptionalWord if argument.positional else Argument
        return arguments
