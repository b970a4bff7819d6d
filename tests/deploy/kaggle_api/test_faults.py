"""Every fault of the catalogue: what is told, what Kaggle then holds, and the run after it."""

import time
from pathlib import Path

import pytest
from deploy.kaggle_api import end_to_end, faults
from deploy.kaggle_api.end_to_end import Voyage
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kagglestandin_faults import CATALOGUE
from kagglestandin_server import StandIn

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.clock import WallClock
from parity.run.errors import ParityError, RunFailed

pytestmark = pytest.mark.faults
TABLE = faults.TABLE.read_text(encoding="utf-8").splitlines()


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    end_to_end.hurried(monkeypatch)


def test_the_table_has_a_row_for_every_fault_and_no_other() -> None:
    named = [line.split("`")[1] for line in TABLE if line.startswith("| `")]
    assert named == list(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_fault_is_told_in_one_line_and_the_second_run_completes(
    name: str, tmp_path: Path
) -> None:
    outcome = faults.under(name, tmp_path)
    assert "\n" not in outcome.told
    assert "http" not in outcome.told
    assert faults.row(name, outcome) in TABLE


def _sequence(names: list[list[str]], folder: Path) -> None:
    """Sail under each group of faults in turn, then in calm."""
    with StandIn(end_to_end.harbour()) as standin:
        way = Voyage(standin, folder)
        for group in names:
            standin.calm()
            standin.inject(*group)
            try:
                way.sail()
            except ParityError as error:
                assert error.exit_code in (6, 7, 8, 9), error  # noqa: PT017 - either may be
            standin.check()
        standin.calm()
        try:
            made = way.sail()
        except RunFailed:  # of a version that a storm left to end later, with what it had become
            assert any(name.startswith("kernel-") for group in names for name in group)
            made = way.sail()
        assert made.public == end_to_end.SCORE
        standin.check()


GROUPS = st.lists(
    st.lists(st.sampled_from(sorted(CATALOGUE)), min_size=1, max_size=3), min_size=1, max_size=3
)
LOST = [["CreateDataset-lost", "SaveKernel-lost"], ["CreateCodeSubmission-lost", "PUT-lost"]]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(GROUPS)
@example(LOST)
@example([["kernel-empty-submission", "kernel-never-ends"]])
def test_any_sequence_of_faults_ends_well(
    tmp_path_factory: pytest.TempPathFactory, names: list[list[str]]
) -> None:
    _sequence(names, tmp_path_factory.mktemp("sequence"))


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(GROUPS)
def test_five_hundred_sequences_of_faults_end_well(
    tmp_path_factory: pytest.TempPathFactory, names: list[list[str]]
) -> None:
    _sequence(names, tmp_path_factory.mktemp("sequence"))


def test_the_real_clock_waits_as_kaggle_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "SHORTEST", 0.05)  # ours; the client's own sleeps are as they are
    monkeypatch.setattr(polling, "LONGEST", 0.2)
    with StandIn(end_to_end.harbour()) as standin:
        way = Voyage(standin, tmp_path, WallClock())
        standin.inject("StartBlobUpload-429-seconds", "SaveKernel-429-seconds")
        begun = time.monotonic()
        assert way.sail().public == end_to_end.SCORE
        assert time.monotonic() - begun > 3.9  # two waits of two seconds
        standin.check()
