"""A run as a stage sees it: its file, its config, its round, its folders, its fellow processes."""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from parity.run.config import run_file as configs
from parity.run.config.run_file import Config
from parity.run.paths import RunPaths

DATA = Path("data")
"""Where runs lie unless `PARITY_DATA` names another folder."""


@dataclass(frozen=True, slots=True)
class Run:
    """One experiment at one round.

    Attributes:
        file: the run file as it was named.
        config: the resolved config.
        workspace: its folders.
        round: which round a stage is to work on.
    """

    file: Path
    config: Config
    workspace: RunPaths
    round: int = 0

    def at(self, round_: int) -> "Run":
        """Return the same run at another round."""
        return replace(self, round=round_)

    def command(self, stage: str, *flags: str) -> str:
        """Return the command a person types for a stage of this run and round."""
        words = ["invoke", stage, "--run", self.file.as_posix()]
        words += [f"--set={value}" for value in self.config.overrides]
        if self.round and stage not in ("prepare", "report", "wheels"):
            words += ["--round", str(self.round)]
        return shlex.join([*words, *flags])


def data_folder() -> Path:
    """Return where runs lie on this machine."""
    return Path(os.environ.get("PARITY_DATA") or DATA)


def open_run(file: Path, overrides: tuple[str, ...] = (), round_: int = 0) -> Run:
    """Read a run file and place its folders under the data folder.

    Raises:
        BadConfig: the file or an override is wrong.
    """
    config = configs.load(file, overrides)
    data = data_folder()
    workspace = RunPaths(data, config.name)
    workspace.stage("mine", round_)  # refuses a round that cannot be
    return Run(file, config, workspace, round_)
