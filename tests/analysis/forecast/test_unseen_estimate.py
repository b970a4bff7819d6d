"""What labels alone say of what they never show."""

import numpy as np
import pytest

from parity.analysis.forecast.unseen_estimate import Bounds, chao1, seen_coverage, unseen_mass

DRAWS = 200


def test_chao1_by_hand() -> None:
    found = chao1([1, 1, 1, 1, 2, 2, 5, 0])
    assert found.value == pytest.approx(4 * 3 / (2 * 3))
    assert found.low < found.value < found.high
    assert found.low * found.high == pytest.approx(found.value**2)


def test_chao1_covers_the_truth_of_equally_likely_kinds() -> None:
    draw, held = np.random.default_rng(0), 0
    for _ in range(DRAWS):
        counts = np.bincount(draw.integers(100, size=120), minlength=100)
        found = chao1(counts.tolist())
        held += found.low <= int(np.sum(counts == 0)) <= found.high
    assert held >= 0.9 * DRAWS


def test_nothing_once_means_nothing_missed() -> None:
    assert chao1([3, 4, 0]) == Bounds(0.0, 0.0, 0.0, 0.0)
    assert unseen_mass([3, 4, 0]).value == 0.0


def test_the_mass_by_hand() -> None:
    found = unseen_mass([1, 1, 1, 2, 5])
    assert found.value == pytest.approx(0.3)
    assert found.error == pytest.approx(np.sqrt(3 + 2 - 9 / 10) / 10)


def test_the_mass_covers_the_truth_of_unequal_kinds() -> None:
    """Kinds as rare as 1/rank, as labels are: the mass is what the next draw would show."""
    draw, held = np.random.default_rng(0), 0
    chance = 1 / np.arange(1, 401)
    chance /= chance.sum()
    for _ in range(DRAWS):
        counts = np.bincount(draw.choice(400, size=500, p=chance), minlength=400)
        found = unseen_mass(counts.tolist())
        held += found.low <= float(chance[counts == 0].sum()) <= found.high
    assert 0.9 * DRAWS <= held < DRAWS


@pytest.mark.parametrize("counts", [[], [0, 0], [1], [1, 1, 1]])
def test_where_nothing_came_twice_anything_may_come(counts: list[int]) -> None:
    found = unseen_mass(counts)
    assert (found.value, found.high) == (1.0, 1.0)


def test_what_a_training_covers() -> None:
    assert seen_coverage({1: 6, 2: 3, 3: 1}, {1, 3, 9}) == 0.7
    assert seen_coverage({}, {1}) == 1.0
