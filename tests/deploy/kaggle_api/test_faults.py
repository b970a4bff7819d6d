"""Every fault of the catalogue: its message, what Kaggle holds afterwards, and the next run."""

import time
from pathlib import Path

import pytest
from deploy.kaggle_api import end_to_end, faults
from deploy.kaggle_api.end_to_end import Shipment
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
    end_to_end.shorten_timeouts(monkeypatch)


def test_the_table_has_one_row_for_every_fault() -> None:
    names = [line.split("`")[1] for line in TABLE if line.startswith("| `")]
    assert names == list(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_fault_gives_one_line_and_the_second_run_completes(name: str, tmp_path: Path) -> None:
    outcome = faults.run_with_fault(name, tmp_path)
    assert "\n" not in outcome.message
    assert "http" not in outcome.message
    assert faults.row(name, outcome) in TABLE


def _ship_with_faults(groups: list[list[str]], folder: Path) -> None:
    """Ship with each group of faults in turn, then without faults."""
    with StandIn(end_to_end.make_kaggle()) as standin:
        shipment = Shipment(standin, folder)
        for group in groups:
            standin.clear_faults()
            standin.inject(*group)
            try:
                shipment.ship()
            except ParityError as error:
                assert error.exit_code in (6, 7, 8, 9), error  # noqa: PT017 - any of them may occur
            standin.check()
        standin.clear_faults()
        try:
            scored = shipment.ship()
        except RunFailed:  # of a version that an earlier fault left unfinished
            assert any(name.startswith("kernel-") for group in groups for name in group)
            scored = shipment.ship()
        assert scored.public == end_to_end.SCORE
        standin.check()


GROUPS = st.lists(
    st.lists(st.sampled_from(sorted(CATALOGUE)), min_size=1, max_size=3), min_size=1, max_size=3
)
LOST = [["CreateDataset-lost", "SaveKernel-lost"], ["CreateCodeSubmission-lost", "PUT-lost"]]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(GROUPS)
@example(LOST)
@example([["kernel-empty-submission", "kernel-never-ends"]])
def test_any_sequence_of_faults_ends_in_a_score(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[str]]
) -> None:
    _ship_with_faults(groups, tmp_path_factory.mktemp("sequence"))


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(GROUPS)
def test_five_hundred_sequences_of_faults_end_in_a_score(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[str]]
) -> None:
    _ship_with_faults(groups, tmp_path_factory.mktemp("sequence"))


def test_the_wall_clock_waits_as_long_as_kaggle_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        polling, "SHORTEST", 0.05
    )  # our polls only; the client's own sleeps keep their length
    monkeypatch.setattr(polling, "LONGEST", 0.2)
    with StandIn(end_to_end.make_kaggle()) as standin:
        shipment = Shipment(standin, tmp_path, WallClock())
        standin.inject("StartBlobUpload-429-seconds", "SaveKernel-429-seconds")
        started = time.monotonic()
        assert shipment.ship().public == end_to_end.SCORE
        assert time.monotonic() - started > 3.9  # two waits of two seconds
        standin.check()
