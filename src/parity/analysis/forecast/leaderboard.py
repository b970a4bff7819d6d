"""Describe what is known about a leaderboard: seen share, number of rows, earlier pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from parity.analysis.forecast.unseen_estimate import Bounds
from parity.run.errors import BadConfig

Floats = NDArray[np.float64]
_GRID = 201  # seen shares of the grid
_MARGIN = 0.01  # the Beta density is not finite at 0 and 1


@dataclass(frozen=True, slots=True)
class SeenShare:
    """Belief about p, the share of hidden rows whose label is in the training data.

    Attributes:
        at: seen shares, (k,) float64 in [0, 1], ascending.
        weight: their probabilities, (k,) float64, sum 1.
    """

    at: Floats
    weight: Floats

    @classmethod
    def fixed(cls, p: float) -> "SeenShare":
        """Return the certain belief in `p`."""
        return cls(np.array([p]), np.ones(1))

    @classmethod
    def uniform(cls, low: float, high: float) -> "SeenShare":
        """Return equal probabilities for every share from `low` to `high`."""
        return cls(np.linspace(low, high, _GRID), np.full(_GRID, 1 / _GRID))

    @classmethod
    def beta(cls, mean: float, rows: float) -> "SeenShare":
        """Return a Beta density around `mean`, as certain as after a number of observed rows.

        Args:
            mean: expected share; 0 and 1 are certain.
            rows: sum of the two parameters of the Beta density, above 0.

        Raises:
            BadConfig: the mean is outside 0 to 1, or `rows` is not above 0.
        """
        if not 0 <= mean <= 1 or rows <= 0:
            raise BadConfig(
                f"a seen share of {mean:g} worth {rows:g} rows; want 0 to 1, and rows above 0"
            )
        if mean in (0.0, 1.0):
            return cls.fixed(mean)
        at = np.linspace(_MARGIN, 1 - _MARGIN, _GRID)
        return cls(at, _normed(stats.beta.pdf(at, mean * rows, (1 - mean) * rows)))

    def updated(self, mass: Bounds) -> "SeenShare":
        """Return the belief given how often the labels of train occur.

        Rows sampled as train was are unseen with probability `mass`. Hosts who sample differently
        make a harder test, so the unseen share is at least that: the likelihood of p is the
        probability that the mass is at most 1 - p. It changes little where the prior already
        expects many unseen rows.

        Args:
            mass: probability of an unseen label, from `unseen_estimate.unseen_mass`.
        """
        likelihood = stats.norm.cdf(1 - self.at, mass.value, max(mass.error, 1e-6))
        weight = self.weight * likelihood
        if not weight.sum() > 0:  # the prior excludes the estimate: keep the prior
            return self
        return replace(self, weight=_normed(weight))

    @property
    def mean(self) -> float:
        """The expected share."""
        return float(self.at @ self.weight)

    def quantile(self, level: float) -> float:
        """Return the quantile of p at a probability `level`."""
        index = int(np.searchsorted(np.cumsum(self.weight), level - 1e-12))
        return float(self.at[min(index, len(self.at) - 1)])


@dataclass(frozen=True, slots=True)
class HiddenTest:
    """Size of the hidden test.

    Attributes:
        rows: number of scored rows; infinite to ignore its sampling.
    """

    rows: float

    @classmethod
    def of(cls, questions: int, rows_per_question: float) -> "HiddenTest":
        """Return the size in rows of a number of questions."""
        return cls(questions * rows_per_question)


@dataclass(frozen=True, slots=True)
class ScorePair:
    """An earlier submission to the same leaderboard.

    Attributes:
        seen: MAP on the seen rows of its CV.
        unseen: MAP on the unseen rows of its CV.
        score: leaderboard score, above 0.
        covered: as in `forecast`.
        other: True where its CV is on other rows than the forecast's CV; on the same rows, their
            sampling error is common to both.
    """

    seen: float
    unseen: float
    score: float
    covered: float = 1.0
    other: bool = False


@dataclass(frozen=True, slots=True)
class CvToLbNoise:
    """Standard deviations of log leaderboard score around the mixture of seen and unseen.

    Attributes:
        factor: deviation common to all submissions to one leaderboard, before any pair is known;
            its mean is 0, a factor of 1.
        residual: deviation of one submission; the median of a log-normal prior that spans a
            factor of 4 in both directions.
    """

    factor: float = 0.10
    residual: float = 0.08


@dataclass(frozen=True, slots=True)
class LeaderboardPrior:
    """Prior knowledge about a leaderboard.

    Attributes:
        share: belief about the seen share of the hidden rows, relative to all labeled rows.
        hidden: size of the hidden test.
        pairs: earlier submissions.
        transfer: noise between CV and leaderboard.
    """

    share: SeenShare
    hidden: HiddenTest
    pairs: Sequence[ScorePair] = ()
    transfer: CvToLbNoise = CvToLbNoise()


def _normed(weight: Floats) -> Floats:
    normed: Floats = weight / weight.sum()
    return normed
