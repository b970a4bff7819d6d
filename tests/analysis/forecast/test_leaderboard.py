"""The prior of the seen share, and its update by the counts of labels."""

import numpy as np
import pytest

from parity.analysis.forecast.leaderboard import HiddenTest, SeenShare
from parity.analysis.forecast.unseen_estimate import Bounds
from parity.run.errors import BadConfig


def mass(value: float, error: float = 0.01) -> Bounds:
    return Bounds(value, error, value - 2 * error, value + 2 * error)


def test_a_beta_has_the_variance_of_its_rows() -> None:
    share = SeenShare.beta(0.25, 12)
    assert share.weight.sum() == pytest.approx(1)
    assert share.mean == pytest.approx(0.25, abs=0.002)
    spread = np.sqrt(share.weight @ (share.at - share.mean) ** 2)
    assert spread == pytest.approx(np.sqrt(0.25 * 0.75 / 13), abs=0.002)
    assert share.quantile(0.05) == pytest.approx(0.0788, abs=0.006)  # scipy's beta(3, 9)
    assert share.quantile(0.95) == pytest.approx(0.4701, abs=0.006)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_certain_share_is_one_point(p: float) -> None:
    assert SeenShare.beta(p, 12).at.tolist() == [p]


@pytest.mark.parametrize(("mean", "rows"), [(1.5, 12), (-0.1, 12), (0.5, 0)])
def test_a_share_outside_0_to_1_is_refused(mean: float, rows: float) -> None:
    with pytest.raises(BadConfig, match="want 0 to 1, and rows above 0"):
        SeenShare.beta(mean, rows)


def test_labels_only_increase_the_unseen_share() -> None:
    prior = SeenShare.uniform(0.0, 1.0)
    after = prior.updated(mass(0.4))
    assert after.quantile(0.99) < 0.63  # the unseen share is 0.4 or more
    assert after.mean == pytest.approx(0.3, abs=0.01)
    low = SeenShare.uniform(0.1, 0.3)
    assert low.updated(mass(0.4)).weight == pytest.approx(low.weight)


def test_a_prior_that_excludes_the_estimate_is_not_changed() -> None:
    share = SeenShare.fixed(0.9)
    assert share.updated(mass(0.9, 1e-9)) == share


def test_the_hidden_test_has_rows_per_question() -> None:
    assert HiddenTest.of(100, 2.5).rows == 250
