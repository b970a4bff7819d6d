"""A score against a number alone: sampling, the unseen share, or neither."""

import pytest

from parity.analysis.compare import leaderboard_gap
from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores, Slice


def part(rows: int, value: float, half: float) -> Slice:
    found = Interval(value, value - half, value + half)
    return Slice(rows, rows // 2, found, found)


# The log's own gap: CV 0.47 on a split of which 29 % is unseen, LB 0.30.
GAP = Scores(
    k=25,
    all=part(864, 0.47, 0.03),
    seen=part(610, 0.56, 0.035),
    unseen=part(254, 0.25, 0.05),
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
def test_a_gap_that_neither_explains_is_told_so(number: float) -> None:
    found = leaderboard_gap.explain_gap(GAP, number)
    assert found.cause == "neither"
    assert found.told[-1] == "explained neither by sampling nor by the unseen share"


def test_the_share_that_would_give_the_number_is_told() -> None:
    told = " | ".join(leaderboard_gap.explain_gap(GAP, 0.30).told)
    assert "seen 0.5600, unseen 0.2500: the number wants p = 0.16, within 0.15 to 0.32" in told
    told = " | ".join(leaderboard_gap.explain_gap(GAP, 0.40).told)
    assert "p = 0.48, outside 0.15 to 0.32" in told
    assert "p = -1.10: none" not in told
    assert leaderboard_gap.explain_gap(GAP, 0.2).told[-2].endswith("p = -0.16: none")


def test_an_interval_is_widened_by_the_leaderboards_own_sampling() -> None:
    """0.47 + 0.03·√2 is 0.5124."""
    assert [leaderboard_gap.explain_gap(GAP, value).cause for value in (0.5124, 0.5125)] == [
        "sampling",
        "neither",
    ]


def test_without_unseen_rows_there_is_no_projection_to_weigh() -> None:
    bare = Scores(25, GAP.all, GAP.all, Slice(0, 0, None, None), None, 0.25)
    found = leaderboard_gap.explain_gap(bare, 0.30)
    assert found.cause == "neither"
    assert any("no projection" in line for line in found.told)


def test_what_could_still_be_wrong_is_what_was_not_measured() -> None:
    layers = {"base": "b", "adapter": "a", "texts": "t", "tokens": ""}
    told = leaderboard_gap.remaining(layers, {"cv", "rehearsal"})
    assert not any("rehearsed" in line for line in told)
    assert "nothing is known of what Kaggle's machine computed; run: invoke follow" in told
    assert "never measured: tokens" in told
    assert len(leaderboard_gap.remaining({**layers, "tokens": "k"}, {"rehearsal", "kernel"})) == 1
