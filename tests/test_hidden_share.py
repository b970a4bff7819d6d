"""What counts say of a hidden test: bounds that hold whatever was hidden, an estimate near it."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.hidden_share import (
    Count,
    Labels,
    bounds,
    count,
    cut,
    estimate,
    labels,
    signs,
    unseen,
)
from parity.competition.eedi import kaggle_files
from parity.competition.query import MisconceptionId, QueryId

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def known() -> Labels:
    return labels(kaggle_files.read(ROOT / "data" / "synthetic").qrels)


def test_labels_are_counted_by_question_and_kind() -> None:
    right = {"3_B": 5, "3_A": 7, "1_C": 5, "2_A": 9}
    qrels = {QueryId(row): frozenset({MisconceptionId(kind)}) for row, kind in right.items()}
    assert labels(qrels) == {1: [5], 2: [9], 3: [7, 5]}
    assert count(labels(qrels)) == Count(questions=3, rows=4, kinds=3, once=2)


def test_signs_are_a_row_and_a_question() -> None:
    found = signs(Count(10, 30, 20, 9), Count(6, 20, 15, 7))
    assert found.tolist() == pytest.approx([0.5, 0.2, 2.5])


def test_bounds_by_hand() -> None:
    # Five new kinds in ten rows; two more are single than in train. All five single: five unseen
    # rows, and three of train's singles are shown again; two single: eight rows at least.
    assert bounds(Count(10, 30, 20, 9), Count(6, 20, 15, 7)) == pytest.approx((0.5, 1.0))
    # As many singles fewer: at least two of train's are shown again, so two rows are seen.
    assert bounds(Count(10, 30, 20, 5), Count(6, 20, 15, 7)) == pytest.approx((0.5, 0.8))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_hidden_lies_within_the_bounds(known: Labels, seed: int) -> None:
    train, hidden = cut(known, 0.2, np.random.default_rng(seed))
    assert {**train, **hidden} == known
    assert train.keys().isdisjoint(hidden)
    assert len(hidden) >= round(0.2 * len(known))
    low, high = bounds(count(known), count(train))
    assert low <= unseen(train, hidden) <= high


def test_unseen_is_a_share_of_rows() -> None:
    assert unseen({1: [5, 6]}, {2: [5, 7, 8], 3: [7]}) == 0.75


def test_the_estimate_tells_hard_tests_from_easy_ones(known: Labels) -> None:
    cuts = [cut(known, 0.2, np.random.default_rng(seed)) for seed in range(30)]
    cuts.sort(key=lambda item: unseen(*item))
    for train, hidden in (cuts[0], cuts[-1]):
        points = estimate(train, count(known), draws=150)
        assert points[0] - 0.12 <= unseen(train, hidden) <= points[-1] + 0.12
        assert np.all(np.diff(points) >= 0)
    easy, hard = (estimate(cuts[at][0], count(known), draws=150)[2] for at in (0, -1))
    assert hard > easy + 0.1
    again = estimate(cuts[0][0], count(known), draws=150)
    assert again.tolist() == estimate(cuts[0][0], count(known), draws=150).tolist()
