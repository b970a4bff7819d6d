"""A run as a stage sees it: run file, config, round and folders."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from parity.run import resources
from parity.run.command_line import command_words, join_command
from parity.run.config import run_file as configs
from parity.run.config.run_file import Config
from parity.run.paths import RunPaths

DATA = Path("data")
"""Folder of all runs, unless `PARITY_DATA` names another one."""


@dataclass(frozen=True, slots=True)
class Run:
    """One experiment at one round.

    Attributes:
        file: path of the run file, as the user wrote it.
        config: config, with the overrides applied.
        workspace: folders of the run.
        round: number of the round, from 0.
    """

    file: Path
    config: Config
    workspace: RunPaths
    round: int = 0

    @property
    def source(self) -> Path:
        """Folder with the competition's files; one that ships with the package if none is here."""
        return resources.resolve(Path(self.config.data.source))

    def at(self, round_: int) -> "Run":
        """Return the same run at another round."""
        return replace(self, round=round_)

    def command_words(self, verb: str, *flags: str) -> tuple[str, ...]:
        """Return the words of a command for this run and round, verb first, as an error's `fix`."""
        return command_words(
            verb,
            *flags,
            run_file=self.file,
            overrides=self.config.overrides,
            round_=self.round,
        )

    def command(self, verb: str, *flags: str) -> str:
        """Return the complete command for this run and round, as a person types it.

        Use `at(0)` for a command that has no round, such as `prepare` or `report`.
        """
        return join_command(self.command_words(verb, *flags))


def data_folder() -> Path:
    """Return the data folder: `PARITY_DATA`, or `data`."""
    return Path(os.environ.get("PARITY_DATA") or DATA)


def open_run(file: Path, overrides: tuple[str, ...] = (), round_: int = 0) -> Run:
    """Read a run file and return the run, with its folders under the data folder.

    Raises:
        BadConfig: the file or an override is wrong.
    """
    config = configs.load(resources.resolve(file), overrides)
    data = data_folder()
    workspace = RunPaths(data, config.name)
    workspace.stage("mine", round_)  # refuses a negative round
    return Run(file, config, workspace, round_)
