"""A run as a stage sees it: run file, config, round and folders."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from parity.run import resources
from parity.run.command_line import command_words, join_command
from parity.run.config import run_file as configs
from parity.run.config import stage_settings
from parity.run.config.evaluation import SECTIONS
from parity.run.config.run_file import Config
from parity.run.errors import BadConfig
from parity.run.paths import RunPaths

DATA = Path("data")
"""Folder of all runs, unless `PARITY_DATA` names another one."""
RUNS = Path("runs")
"""Folder of the run files, with folders in it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One experiment at one round.

    Attributes:
        file: path of the run file, as the user wrote it.
        config: config, with the overrides applied.
        workspace: folders of the run.
        round: number of the round, from 0.
        evaluation: name of the settings that models are scored under: empty for those of the run
            file, the name of one of its evaluations, or digits of a digest for settings that only
            `--set` gives.
    """

    file: Path
    config: Config
    workspace: RunPaths
    round: int = 0
    evaluation: str = ""

    @property
    def source(self) -> Path:
        """Folder with the competition's files; one that ships with the package if none is here."""
        return resources.resolve(Path(self.config.data.source))

    def at(self, round_: int) -> "Run":
        """Return the same run at another round."""
        return replace(self, round=round_)

    def evaluated_as(self, name: str) -> "Run":
        """Return the run with the settings of an evaluation of its run file; empty changes nothing.

        Raises:
            BadConfig: there is no such evaluation, or `--set` changes its settings too.
        """
        if name in ("", self.evaluation):
            return self
        changed = [override for override in self.config.overrides if _is_for_scoring(override)]
        if changed:
            raise BadConfig(
                f"--as {name} and --set {changed[0]} both choose how models are scored. Use one"
            )
        config = stage_settings.evaluation_config(self.with_own_settings().config, name)
        return replace(self, config=config, evaluation=name)

    def with_own_settings(self) -> "Run":
        """Return the run with the settings of its run file to score models under."""
        overrides = self.config.overrides
        kept = tuple(override for override in overrides if not _is_for_scoring(override))
        if not self.evaluation and kept == overrides:
            return self
        return open_run(self.file, kept, self.round)

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


def run_files() -> list[Path]:
    """Return the run files in `runs/` and its folders, by path."""
    return sorted(RUNS.rglob("*.toml"))


def run_file_of(name: str) -> Path:
    """Return the run file of a run; a path in `runs/` if there is no such file."""
    return next((path for path in run_files() if path.stem == name), RUNS / f"{name}.toml")


def open_run(file: Path, overrides: tuple[str, ...] = (), round_: int = 0) -> Run:
    """Read a run file and return the run, with its folders under the data folder.

    Raises:
        BadConfig: the file or an override is wrong.
    """
    path = resources.resolve(file)
    config = configs.load(path, overrides)
    try:
        stage_settings.check_evaluations(config)
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from error
    workspace = RunPaths(data_folder(), config.name)
    workspace.stage("mine", round_)  # refuses a negative round
    return Run(file, config, workspace, round_, _overridden(path, config))


def _overridden(path: Path, config: Config) -> str:
    """Return the name of settings that overrides choose for scoring; empty for the file's."""
    if not any(map(_is_for_scoring, config.overrides)):
        return ""
    is_changed = stage_settings.evaluation_settings(config) != stage_settings.evaluation_settings(
        configs.load(path)
    )
    return stage_settings.settings_name(config) if is_changed else ""


def _is_for_scoring(override: str) -> bool:
    """Return whether an override changes how models are scored, not only where."""
    key = override.partition("=")[0].strip()
    is_scored_with = key not in stage_settings.NEUTRAL | {stage_settings.PARALLELISM}
    return key.partition(".")[0] in SECTIONS and is_scored_with
