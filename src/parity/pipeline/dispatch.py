"""Start the function of one command with what was parsed."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity.pipeline import registry
from parity.pipeline.declaration import Command
from parity.run import resources
from parity.run.experiment import open_run

RUN_IN_IMAGE = "parity.pipeline.command_cores.run_in_image:run_stage_in_image"
"""Function that starts a stage inside the built image."""


def start(command: Command, arguments: argparse.Namespace, words: Sequence[str]) -> Any:
    """Run a stage or command; return what `--json` prints.

    Its module is imported only now: `status` needs no torch and starts at once.

    Args:
        command: declaration.
        arguments: parsed words.
        words: words as the user wrote them, to start the same command inside the image.
    """
    options = {option.keyword: getattr(arguments, option.keyword) for option in command.options}
    overrides = tuple(arguments.overrides) if command.has_overrides else ()
    if command.run_file == "optional":
        return _call(command, arguments.run and Path(arguments.run), overrides=overrides, **options)
    if command.run_file == "none":
        return _call(
            command, **({"overrides": overrides} if command.has_overrides else {}), **options
        )
    if registry.works_on_all_runs(command, arguments) and not _has_run_file(arguments):
        return _call(command, None, **options)
    run = open_run(Path(arguments.run), overrides, getattr(arguments, "round", 0))
    if command.runs_in_image and arguments.where == "image":
        return registry.import_function(RUN_IN_IMAGE)(run, words)
    return _call(command, run, **options)


def _has_run_file(arguments: argparse.Namespace) -> bool:
    """Return whether the run file exists; a command that works without one can still use it."""
    return resources.resolve(Path(arguments.run)).is_file()


def _call(command: Command, *arguments: Any, **options: Any) -> Any:
    return registry.import_function(command.function)(*arguments, **options)
