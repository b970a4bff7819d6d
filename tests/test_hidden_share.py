"""Bounds and an estimate of the unseen share of a hidden test from counts of labels."""

import numpy as np
import pytest
from shipped_data import synthetic_folder

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
from parity.competition.query import Position, QueryId


@pytest.fixture(scope="module")
def labels_by_question() -> Labels:
    return labels(kaggle_files.read(synthetic_folder()).qrels)


def test_labels_are_counted_by_question() -> None:
    right = {"3_B": 5, "3_A": 7, "1_C": 5, "2_A": 9}
    qrels = {QueryId(row): frozenset({Position(kind)}) for row, kind in right.items()}
    assert labels(qrels) == {1: [5], 2: [9], 3: [7, 5]}
    assert count(labels(qrels)) == Count(questions=3, rows=4, kinds=3, once=2)


def test_the_ratios_are_per_row_and_per_question() -> None:
    result = signs(Count(10, 30, 20, 9), Count(6, 20, 15, 7))
    assert result.tolist() == pytest.approx([0.5, 0.2, 2.5])


def test_bounds_by_hand() -> None:
    # Five new labels in ten rows; two more are single than in train. If all five are single, five
    # rows are unseen and three of train's single labels occur again; if two, at least eight rows.
    assert bounds(Count(10, 30, 20, 9), Count(6, 20, 15, 7)) == pytest.approx((0.5, 1.0))
    # Two single labels fewer: at least two of train's occur again, so two rows are seen.
    assert bounds(Count(10, 30, 20, 5), Count(6, 20, 15, 7)) == pytest.approx((0.5, 0.8))


@pytest.mark.parametrize("seed", range(12))
def test_the_unseen_share_is_within_the_bounds(labels_by_question: Labels, seed: int) -> None:
    train, hidden = cut(labels_by_question, 0.2, np.random.default_rng(seed))
    assert {**train, **hidden} == labels_by_question
    assert train.keys().isdisjoint(hidden)
    assert len(hidden) >= round(0.2 * len(labels_by_question))
    low, high = bounds(count(labels_by_question), count(train))
    assert low <= unseen(train, hidden) <= high


def test_unseen_is_a_share_of_rows() -> None:
    assert unseen({1: [5, 6]}, {2: [5, 7, 8], 3: [7]}) == 0.75


def test_the_estimate_distinguishes_hard_from_easy_tests(labels_by_question: Labels) -> None:
    cuts = [cut(labels_by_question, 0.2, np.random.default_rng(seed)) for seed in range(30)]
    cuts.sort(key=lambda item: unseen(*item))
    for train, hidden in (cuts[0], cuts[-1]):
        points = estimate(train, count(labels_by_question), draws=150)
        assert points[0] - 0.12 <= unseen(train, hidden) <= points[-1] + 0.12
        assert np.all(np.diff(points) >= 0)
    easy, hard = (estimate(cuts[at][0], count(labels_by_question), draws=150)[2] for at in (0, -1))
    assert hard > easy + 0.1
    repeated = estimate(cuts[0][0], count(labels_by_question), draws=150)
    assert repeated.tolist() == estimate(cuts[0][0], count(labels_by_question), draws=150).tolist()
