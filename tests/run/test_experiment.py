"""A run prints its commands, has its own folder, and names the settings it is scored under."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from parity.run.command_line import PROGRAM
from parity.run.errors import BadConfig
from parity.run.experiment import Run, open_run

OVERRIDE = 'prompt.instruction=It\'s "so"'


@pytest.fixture
def file(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy a run file to a folder of its own, with a space in its name."""
    shutil.copy(root / "runs/demo.toml", tmp_path / "a run.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PROGRAM, "./inv")
    return Path("a run.toml")


def words_of(run: Run, verb: str, *flags: str) -> list[str]:
    return shlex.split(run.command(verb, *flags))


def test_a_command_names_file_overrides_and_round(file: Path) -> None:
    run = open_run(file, (OVERRIDE,), 2)
    expected = ["train", "--run", "a run.toml", f"--set={OVERRIDE}", "--round", "2", "--flag"]
    assert list(run.command_words("train", "--flag")) == expected
    assert words_of(run, "train", "--flag") == ["./inv", *expected]


def test_a_command_of_the_first_round_names_none(file: Path) -> None:
    assert words_of(open_run(file, (), 2).at(0), "prepare") == (
        ["./inv", "prepare", "--run", "a run.toml"]
    )


def test_a_round_below_zero_is_refused(file: Path) -> None:
    with pytest.raises(BadConfig, match="round -1 does not exist"):
        open_run(file, (), -1)


@pytest.mark.parametrize(
    ("value", "folder"), [("elsewhere", "elsewhere"), ("", "data"), (None, "data")]
)
def test_runs_are_in_the_data_folder(
    value: str | None, folder: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARITY_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("PARITY_DATA", value)
    assert open_run(file).workspace.root == Path(folder) / "runs" / "a run"


# Settings that models are scored under


@pytest.fixture
def with_evaluations(file: Path) -> Path:
    """Add two evaluations to the run file."""
    text = file.read_text(encoding="utf-8")
    file.write_text(
        f"{text}\n[evaluations.half.scoring]\nseen_share = 0.5\n"
        "[evaluations.short.prompt]\nquery_max_length = 64\n",
        encoding="utf-8",
    )
    return file


def test_a_run_has_its_own_settings_until_another_choice(with_evaluations: Path) -> None:
    run = open_run(with_evaluations)
    assert (run.evaluation, run.config.scoring.seen_share) == ("", 0.25)
    half = run.evaluated_as("half")
    assert (half.evaluation, half.config.scoring.seen_share) == ("half", 0.5)
    assert run.evaluated_as("") is run
    assert half.evaluated_as("half") is half
    assert half.evaluated_as("") is half
    assert half.evaluated_as("short") == run.evaluated_as("short")
    assert half.with_own_settings() == run
    assert run.with_own_settings() is run
    assert half.at(2).with_own_settings().round == 2


def test_a_wrong_evaluation_is_refused_when_the_file_is_opened(with_evaluations: Path) -> None:
    with_evaluations.write_text("[evaluations.half.scoring]\nshare = 0.5\n", encoding="utf-8")
    expected = r"^a run\.toml: evaluations\.half\.scoring\.share: unknown key$"
    with pytest.raises(BadConfig, match=expected):
        open_run(with_evaluations)


def test_overrides_of_scoring_have_a_digest_for_a_name(with_evaluations: Path) -> None:
    run = open_run(with_evaluations, ("scoring.seen_share=0.5",))
    assert re.fullmatch(r"[0-9a-f]{8}", run.evaluation)
    assert open_run(with_evaluations, ("scoring.seen_share = 0.50",)).evaluation == run.evaluation
    assert open_run(with_evaluations, ("scoring.seen_share=0.6",)).evaluation != run.evaluation
    assert open_run(with_evaluations).evaluated_as("half").evaluation == "half"


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.epochs=9", "mining.seed=3"),
        ("encoder.device=cpu",),
        ("encoder.token_budget=512", "encoder.parallelism=model"),
    ],
)
def test_an_evaluation_can_have_overrides_that_change_no_score(
    with_evaluations: Path, overrides: tuple[str, ...]
) -> None:
    run = open_run(with_evaluations, overrides)
    half = run.evaluated_as("half")
    assert (run.evaluation, half.evaluation) == ("", "half")
    assert half.config.overrides == overrides
    assert half.config.training == run.config.training


@pytest.mark.parametrize(
    "override",
    ["scoring.seen_share=0.25", " scoring.seen_share = 0.25", "prompt.example_count=3"],
)
def test_an_override_with_the_value_of_the_run_file_needs_no_name(
    with_evaluations: Path, override: str
) -> None:
    run = open_run(with_evaluations, (override,))
    assert run.evaluation == ""
    assert run.with_own_settings() == open_run(with_evaluations)


@pytest.mark.parametrize("override", ["scoring.bootstrap=200", "scoring.seen_share=0.25"])
def test_a_name_and_overrides_of_scoring_exclude_each_other(
    with_evaluations: Path, override: str
) -> None:
    run = open_run(with_evaluations, ("training.epochs=9", override))
    expected = rf"^--as half and --set {re.escape(override)} both choose how models are scored\."
    with pytest.raises(BadConfig, match=expected):
        run.evaluated_as("half")


def test_own_settings_keep_the_other_overrides(with_evaluations: Path) -> None:
    unrelated = ("training.epochs=9", "encoder.device=cpu")
    run = open_run(with_evaluations, ("scoring.bootstrap=200", *unrelated), 1)
    assert run.evaluation
    assert run.with_own_settings() == open_run(with_evaluations, unrelated, 1)
    half = open_run(with_evaluations, unrelated).evaluated_as("half")
    assert half.config.encoder.device == "cpu"
    assert half.with_own_settings() == open_run(with_evaluations, unrelated)
