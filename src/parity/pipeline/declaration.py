"""What a stage or a command declares: name, summary, options, inputs, and its function by name.

This module imports nothing of the package, so that listing every stage loads no model.
"""

import argparse
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

DEFAULT_RUN = "runs/demo.toml"
"""Run file where the user names none."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option or a positional argument of a command.

    Attributes:
        flag: spelling, such as `--import`; a positional argument has no dashes.
        help: one line for `--help`.
        dest: keyword of the command's function; by default the flag's name.
        type: function that converts the text.
        default: value without the option.
        choices: values allowed; empty allows all.
        is_switch: True where the option takes no value.
        on: value of a switch that is set.
        names: names of a positional argument that takes several words, one for each word.
        is_repeated: True where it may be given several times; the value is a list.
        is_required: True where the command needs a value.
        needs_run: False where a value makes the command work on all runs, without a run file.
        group: name shared by options that exclude each other.
        metavar: name of the value in `--help`; by default FILE or the flag's name.
    """

    flag: str
    help: str
    _: KW_ONLY
    dest: str = ""
    type: Callable[[str], Any] = str
    default: Any = None
    choices: tuple[str, ...] = ()
    is_switch: bool = False
    on: Any = True
    names: tuple[str, ...] = ()
    is_repeated: bool = False
    is_required: bool = False
    needs_run: bool = True
    group: str = ""
    metavar: str = ""

    @property
    def keyword(self) -> str:
        """Name of the value in the parsed arguments and of the function's keyword."""
        return self.dest or self.flag.strip("-").replace("-", "_")

    @property
    def is_positional(self) -> bool:
        """Whether the value is given without a flag."""
        return not self.flag.startswith("-")

    @property
    def value_name(self) -> str:
        """Name of the value in `--help`."""
        return self.metavar or ("FILE" if self.type is Path else self.flag.strip("-").upper())

    @property
    def value_without(self) -> Any:
        """Value where the user does not give the option."""
        if self.names or self.is_repeated:
            return []
        return False if self.is_switch and self.default is None else self.default


def at_least(least: float) -> Callable[[str], float]:
    """Return a function that reads a number like `least` and refuses a smaller one."""

    def number(text: str) -> float:
        value = type(least)(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text}: must be {least} or more")
        return value

    return number


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the program.

    Attributes:
        name: word that starts it.
        summary: one sentence for `--help`, in the imperative.
        function: dotted name, `module:function`. It is imported when the command runs, and takes
            the run first (unless `run_file` says otherwise) and each option as a keyword.
        options: options, without those that many commands share.
        run_file: `default` opens the run file and passes the run; `optional` passes the path or
            None; `none` has no run file.
        has_overrides: True where `--set` changes the run file.
        has_round: True where `--round` chooses the round.
        has_json: True where `--json` prints one JSON object.
        runs_in_image: True where `--where image` runs it in the built image.
        is_internal: True where only the program itself starts it; it is not listed.
    """

    name: str
    summary: str
    function: str
    _: KW_ONLY
    options: tuple[Option, ...] = ()
    run_file: Literal["default", "optional", "none"] = "default"
    has_overrides: bool = True
    has_round: bool = False
    has_json: bool = False
    runs_in_image: bool = False
    is_internal: bool = False

    @property
    def all_options(self) -> tuple[Option, ...]:
        """Options of the command and those that it shares with others, as `--help` lists them."""
        return (
            *self.options,
            *((WHERE,) * self.runs_in_image),
            *((JSON,) * self.has_json),
            *((ROUND,) * self.has_round),
            *((RUN,) * (self.run_file == "default")),
            *((OPTIONAL_RUN,) * (self.run_file == "optional")),
            *((SET,) * self.has_overrides),
        )


@dataclass(frozen=True, slots=True)
class Stage(Command):
    """A stage of the pipeline: a command whose work is recorded and checked.

    Attributes:
        needs: names of the stages whose work it reads, in order.
        reads: names of needed stages and patterns of their files that it reads; of a stage that is
            not listed it reads everything.
        needs_without_validation: `needs` where the split has no validation set; by default the
            same, without the stages that do not apply then.
        follows: names of stages that come first in the pipeline's order, although it runs without.
        config: sections of the run file that decide its work.
        unused: `section.key` of these sections that it does not use.
        settings: dotted name of a function from the run's config to the config that it uses; empty
            where it uses the run's.
        model: model that it loads by default: `best` (the round's best adapter), `previous` (the
            best adapter of the round before, or the base model) or `initial` (as `init_from` in
            `[training]`); empty for none.
        has_any_split: True where it makes the split of its own settings from the prepared rows.
        has_round: False for a stage that is done once for all rounds.
        every_round: True where each round does it, even one that another round follows.
        needs_validation: True where it applies only to a split with a validation set.
        needs_kaggle: True where it talks to Kaggle; the demo leaves these out.
        measures_kernel: True where its manifest holds the speed of what the kernel does.
        subfolder: folder in the stage's own that the main result goes to.
        evidence: kind of the evidence it adds to the ledger; empty for none.
        changed_inputs: dotted name of a function that says which input changed that no stage made.
    """

    needs: tuple[str, ...] = ()
    reads: tuple[tuple[str, tuple[str, ...]], ...] = ()
    needs_without_validation: tuple[str, ...] | None = None
    follows: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    settings: str = ""
    model: Literal["", "best", "previous", "initial"] = ""
    has_any_split: bool = False
    has_round: bool = True
    every_round: bool = False
    needs_validation: bool = False
    needs_kaggle: bool = False
    measures_kernel: bool = False
    subfolder: str = ""
    evidence: str = ""
    changed_inputs: str = ""


RUN = Option(
    "--run",
    f"run file, one experiment (default: {DEFAULT_RUN})",
    type=Path,
    default=Path(DEFAULT_RUN),
)
OPTIONAL_RUN = Option("--run", "run file (default: every run file in runs/)", type=Path)
SET = Option(
    "--set",
    "section.key=value over the run file; may be repeated",
    dest="overrides",
    is_repeated=True,
    metavar="SECTION.KEY=VALUE",
)
MODEL = Option(
    "--model",
    "base, best, last, epoch-N, round-R/epoch-N, RUN/round-R/epoch-N or a folder (default: best)",
    default="",
    metavar="MODEL",
)
EVALUATION = Option(
    "--as",
    "NAME of [evaluations.NAME] in the run file, whose settings are used",
    dest="evaluation",
    default="",
    metavar="NAME",
)
ROWS = Option(
    "--rows",
    "SPLIT=N, scored rows of a split of the table of runs; may be repeated (default: its column "
    "`rows`)",
    is_repeated=True,
    needs_run=False,
    metavar="SPLIT=N",
)
ROUND = Option(
    "--round",
    "round; round r mines with the adapter of round r-1 (default: 0)",
    type=int,
    default=0,
)
WHERE = Option(
    "--where",
    "here, or image: in the image built by `image` (default: here)",
    choices=("here", "image"),
    default="here",
)
JSON = Option("--json", "print one JSON object on standard output", is_switch=True)
DRY_RUN = Option("--dry-run", "print every request it would make; change nothing", is_switch=True)
