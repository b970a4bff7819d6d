"""Every stage and command, found in two folders: one declaration in each file.

The graph, the command line, `tasks.py`, `status`, the demo, the report and the documents read this
table. Nothing that a stage computes with is imported here.
"""

import importlib
import pkgutil
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.pipeline.declaration import Command, Stage
from parity.run.command_line import command_words, join_command
from parity.run.errors import ParityError

if TYPE_CHECKING:  # it loads pydantic, which `--help` does not need
    from parity.run.experiment import Run

STAGES = "parity.pipeline.stages"
"""Package whose modules each declare a `STAGE`."""
COMMANDS = "parity.pipeline.commands"
"""Package whose modules each declare a `COMMAND`."""


@cache
def stages() -> tuple[Stage, ...]:
    """Return every stage, each after those that it needs."""
    declared = {stage.name: stage for stage in _declarations(STAGES, "STAGE")}
    return tuple(sorted(declared.values(), key=lambda stage: (_depth(stage, declared), stage.name)))


@cache
def commands() -> tuple[Command, ...]:
    """Return every command that is not a stage, by name."""
    return tuple(sorted(_declarations(COMMANDS, "COMMAND"), key=lambda command: command.name))


@cache
def table() -> Mapping[str, Command]:
    """Return name → stage or command: the stages in pipeline order, then the commands."""
    return {command.name: command for command in (*stages(), *commands())}


def stage_names(**fields: Any) -> tuple[str, ...]:
    """Return the names of the stages in order; only of those whose fields have these values."""
    return tuple(
        stage.name
        for stage in stages()
        if all(getattr(stage, field) == value for field, value in fields.items())
    )


def find_stage(name: str) -> Stage:
    """Return a stage by name."""
    return next(stage for stage in stages() if stage.name == name)


def summary_of(command: Command) -> str:
    """Return a command's summary, a stage's with its number in the pipeline."""
    if isinstance(command, Stage):
        return f"{stage_names().index(command.name) + 1}. {command.summary}"
    return command.summary


def import_function(dotted: str) -> Any:
    """Import and return a function by its dotted name, `module:function`."""
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)


def works_on_all_runs(command: Command, arguments: Namespace) -> bool:
    """Return whether an option was given with which the command opens no run file."""
    return any(
        getattr(arguments, option.keyword) != option.value_without
        for option in command.options
        if not option.needs_run
    )


def forget() -> None:
    """Forget what was found, so that the next call looks at the folders again."""
    for cached in (stages, commands, table):
        cached.cache_clear()


def complete_fix(
    words: Sequence[str],
    *,
    run_file: Path | None = None,
    overrides: Sequence[str] = (),
    round_: int = 0,
) -> tuple[str, ...]:
    """Return the words of an error's `fix` with run file, overrides and round.

    Args:
        words: words of the command, verb first. Words that name a run file are complete.
        run_file: run file of the command that failed; None adds nothing.
        overrides: its `section.key=value` settings.
        round_: its round.
    """
    verb, *flags = words
    command = table().get(verb)
    if command is None or run_file is None or "--run" in flags:
        has_round = command is None or command.has_round
        return tuple(words) if has_round else _without_round(words)
    return command_words(
        verb,
        *flags,
        run_file=run_file if command.run_file != "none" else None,
        overrides=overrides if command.has_overrides else (),
        round_=round_ if command.has_round and "--round" not in flags else 0,
    )


def render_fix(words: Sequence[str], run: "Run | None" = None) -> str:
    """Return the command of an error's `fix`, complete for a run."""
    if run is None:
        return join_command(words)
    return join_command(
        complete_fix(words, run_file=run.file, overrides=run.config.overrides, round_=run.round)
    )


def describe_error(error: ParityError, run: "Run | None" = None) -> str:
    """Return the message of an error with the command that fixes it, on one line."""
    if not error.fix:
        return str(error)
    return f"{str(error).removesuffix('.')}. Run: {render_fix(error.fix, run)}"


def _without_round(words: Sequence[str]) -> tuple[str, ...]:
    """Return words without `--round N`."""
    return tuple(
        word
        for before, word in zip(["", *words], words, strict=False)
        if "--round" not in (before, word)
    )


def _declarations(package: str, attribute: str) -> Iterator[Any]:
    """Yield what the modules of a package declare under a name."""
    folder = importlib.import_module(package)
    for entry in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{package}.{entry.name}")
        yield getattr(module, attribute)


def _depth(stage: Stage, declared: Mapping[str, Stage]) -> int:
    """Return the length of the longest chain of stages that come before this one."""
    before = (*stage.needs, *stage.follows)
    return 1 + max((_depth(declared[name], declared) for name in before), default=0)
