"""A gap between a CV and a leaderboard score: sampling, the unseen share, or neither."""

import pytest

from parity.analysis.compare import leaderboard_gap
from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores, Slice
from parity.competition.scoring.row_metrics import Metric


def slice_of(rows: int, value: float, half: float) -> Slice:
    interval = Interval(value, value - half, value + half)
    return Slice(rows, rows // 2, interval, interval)


# The gap of the log of runs: CV 0.47 on a split with 29 % unseen rows, leaderboard 0.30.
GAP = Scores(
    metric=Metric("map", 25),
    all=slice_of(864, 0.47, 0.03),
    seen=slice_of(610, 0.56, 0.035),
    unseen=slice_of(254, 0.25, 0.05),
    projection=Interval(0.3275, 0.29, 0.365),
    seen_share=0.25,
)


@pytest.mark.parametrize(
    ("number", "cause"),
    [(0.47, "sampling"), (0.44, "sampling"), (0.30, "unseen share"), (0.36, "unseen share")],
)
def test_a_gap_is_explained(number: float, cause: str) -> None:
    assert leaderboard_gap.explain_gap(GAP, number).cause == cause


@pytest.mark.parametrize("number", [0.21, 0.002, 0.95])
def test_an_unexplained_gap_is_reported(number: float) -> None:
    result = leaderboard_gap.explain_gap(GAP, number)
    assert result.cause == "neither"
    assert result.lines[-1] == "explained neither by sampling nor by the unseen share"


def test_the_share_that_would_give_the_number_is_reported() -> None:
    lines = " | ".join(leaderboard_gap.explain_gap(GAP, 0.30).lines)
    share = "seen 0.5600, unseen 0.2500: the leaderboard score needs p = 0.16, within 0.15 to 0.32"
    assert share in lines
    lines = " | ".join(leaderboard_gap.explain_gap(GAP, 0.40).lines)
    assert "p = 0.48, outside 0.15 to 0.32" in lines
    line = leaderboard_gap.explain_gap(GAP, 0.2).lines[-2]
    assert line.endswith("p = -0.16, which is impossible")


def test_an_interval_is_widened_by_the_sampling_of_the_leaderboard() -> None:
    """0.47 + 0.03·√2 is 0.5124."""
    assert [leaderboard_gap.explain_gap(GAP, value).cause for value in (0.5124, 0.5125)] == [
        "sampling",
        "neither",
    ]


def test_without_unseen_rows_there_is_no_projection() -> None:
    scores = Scores(GAP.metric, GAP.all, GAP.all, Slice(0, 0, None, None), None, 0.25)
    result = leaderboard_gap.explain_gap(scores, 0.30)
    assert result.cause == "neither"
    assert any("no projection" in line for line in result.lines)


def test_open_questions_are_measurements_that_are_missing() -> None:
    layers = {"base": "b", "adapter": "a", "texts": "t", "tokens": ""}
    lines = leaderboard_gap.open_questions(layers, {"cv", "rehearsal"})
    assert not any("rehearsal" in line for line in lines)
    assert "the ledger has no record of the kernel on Kaggle" in lines
    assert "never measured: tokens" in lines
    complete = {**layers, "tokens": "k"}
    assert len(leaderboard_gap.open_questions(complete, {"rehearsal", "kernel"})) == 1


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [({"cv"}, ("rehearse",)), ({"rehearsal"}, ("follow",)), ({"rehearsal", "kernel"}, ())],
)
def test_the_next_measurement_is_the_first_that_is_missing(
    kinds: set[str], expected: tuple[str, ...]
) -> None:
    assert leaderboard_gap.next_measurement(kinds) == expected
