"""A run prints its commands, has rounds from 0, and lives in the data folder."""

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
