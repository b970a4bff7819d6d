"""Estimates of unseen labels from the counts of labels."""

import numpy as np
import pytest

from parity.analysis.forecast.unseen_estimate import Bounds, chao1, seen_coverage, unseen_mass

DRAWS = 200


def test_chao1_by_hand() -> None:
    estimate = chao1([1, 1, 1, 1, 2, 2, 5, 0])
    assert estimate.value == pytest.approx(4 * 3 / (2 * 3))
    assert estimate.low < estimate.value < estimate.high
    assert estimate.low * estimate.high == pytest.approx(estimate.value**2)


def test_chao1_covers_the_truth_of_equally_likely_labels() -> None:
    draw, covered = np.random.default_rng(0), 0
    for _ in range(DRAWS):
        counts = np.bincount(draw.integers(100, size=120), minlength=100)
        estimate = chao1(counts.tolist())
        covered += estimate.low <= int(np.sum(counts == 0)) <= estimate.high
    assert covered >= 0.9 * DRAWS


def test_without_single_labels_the_estimates_are_zero() -> None:
    assert chao1([3, 4, 0]) == Bounds(0.0, 0.0, 0.0, 0.0)
    assert unseen_mass([3, 4, 0]).value == 0.0


def test_the_mass_by_hand() -> None:
    estimate = unseen_mass([1, 1, 1, 2, 5])
    assert estimate.value == pytest.approx(0.3)
    assert estimate.error == pytest.approx(np.sqrt(3 + 2 - 9 / 10) / 10)


def test_the_mass_covers_the_truth_of_unequal_labels() -> None:
    """Frequencies fall as 1/rank, as those of labels do."""
    draw, covered = np.random.default_rng(0), 0
    chance = 1 / np.arange(1, 401)
    chance /= chance.sum()
    for _ in range(DRAWS):
        counts = np.bincount(draw.choice(400, size=500, p=chance), minlength=400)
        estimate = unseen_mass(counts.tolist())
        covered += estimate.low <= float(chance[counts == 0].sum()) <= estimate.high
    assert 0.9 * DRAWS <= covered < DRAWS


@pytest.mark.parametrize("counts", [[], [0, 0], [1], [1, 1, 1]])
def test_where_every_label_is_single_the_mass_is_one(counts: list[int]) -> None:
    estimate = unseen_mass(counts)
    assert (estimate.value, estimate.high) == (1.0, 1.0)


def test_a_training_covers_a_share_of_the_rows() -> None:
    assert seen_coverage({1: 6, 2: 3, 3: 1}, {1, 3, 9}) == 0.7
    assert seen_coverage({}, {1}) == 1.0
