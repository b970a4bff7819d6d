"""What is known of a leaderboard before its score: the seen share, its size, earlier pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from parity.analysis.forecast.unseen_estimate import Bounds
from parity.run.errors import BadConfig

Floats = NDArray[np.float64]
_GRID = 201  # seen shares weighed
_SPARE = 0.01  # a share of 0 or 1 has no logarithm, and no Beta density


@dataclass(frozen=True, slots=True)
class SeenShare:
    """What is believed of p, the share of hidden rows with a misconception that train shows.

    Attributes:
        at: seen shares, (k,) float64 in [0, 1], ascending.
        weight: their probabilities, (k,) float64, sum 1.
    """

    at: Floats
    weight: Floats

    @classmethod
    def fixed(cls, p: float) -> "SeenShare":
        """Return the belief that it is `p` and nothing else."""
        return cls(np.array([p]), np.ones(1))

    @classmethod
    def uniform(cls, low: float, high: float) -> "SeenShare":
        """Return the belief that every share from `low` to `high` is as likely."""
        return cls(np.linspace(low, high, _GRID), np.full(_GRID, 1 / _GRID))

    @classmethod
    def beta(cls, mean: float, rows: float) -> "SeenShare":
        """Return a Beta density around `mean`, as sure as after looking at so many rows.

        Args:
            mean: expected share; 0 and 1 are certain.
            rows: the Beta's two parameters together, over 0.

        Raises:
            BadConfig: a mean outside 0 to 1, or no rows.
        """
        if not 0 <= mean <= 1 or rows <= 0:
            raise BadConfig(f"a seen share of {mean:g} worth {rows:g} rows; want 0 to 1, over 0")
        if mean in (0.0, 1.0):
            return cls.fixed(mean)
        at = np.linspace(_SPARE, 1 - _SPARE, _GRID)
        return cls(at, _normed(stats.beta.pdf(at, mean * rows, (1 - mean) * rows)))

    def beside(self, mass: Bounds) -> "SeenShare":
        """Return the belief after the labels of train had their say.

        Rows drawn as train's were are unseen with a chance of `mass`; hosts who draw otherwise do
        so to ask more, so the unseen share is that or larger: the likelihood of p is the chance
        that the mass is at most 1 - p. It says little where the prior already expects many unseen.

        Args:
            mass: of the unseen, as `richness.unseen_mass` returns it.
        """
        likelihood = stats.norm.cdf(1 - self.at, mass.value, max(mass.error, 1e-6))
        weight = self.weight * likelihood
        if not weight.sum() > 0:  # a prior that rules out what train says stands as it is
            return self
        return replace(self, weight=_normed(weight))

    @property
    def mean(self) -> float:
        """The expected share."""
        return float(self.at @ self.weight)

    def quantile(self, level: float) -> float:
        """Return the share that p is below with probability `level`."""
        place = int(np.searchsorted(np.cumsum(self.weight), level - 1e-12))
        return float(self.at[min(place, len(self.at) - 1)])


@dataclass(frozen=True, slots=True)
class HiddenTest:
    """The size of the hidden test.

    Attributes:
        rows: scored rows; infinite where its own sampling shall not count.
    """

    rows: float

    @classmethod
    def of(cls, questions: int, rows_per_question: float) -> "HiddenTest":
        """Return the size in rows of so many questions."""
        return cls(questions * rows_per_question)


@dataclass(frozen=True, slots=True)
class ScorePair:
    """An earlier submission to the same leaderboard.

    Attributes:
        seen: MAP on the seen rows of its CV.
        unseen: MAP on the unseen rows.
        score: what the leaderboard showed, over 0.
        covered: as in `forecast`.
        other: whether its CV is over other rows than the one that is forecast from; where it is
            over the same ones, their sampling is no noise between the two.
    """

    seen: float
    unseen: float
    score: float
    covered: float = 1.0
    other: bool = False


@dataclass(frozen=True, slots=True)
class CvToLbNoise:
    """How a leaderboard follows from the right mixture of seen and unseen, in logarithms.

    Both are standard deviations; why the residual is what it is stands in `run/config/section.py`.

    Attributes:
        factor: of what is common to all that goes to one leaderboard, before any pair is known;
            its mean is 0, a factor of 1.
        residual: of what is each submission's own; the middle of what is weighed, a factor of 4
            either way, log-normally.
    """

    factor: float = 0.10
    residual: float = 0.08


@dataclass(frozen=True, slots=True)
class LeaderboardPrior:
    """All that is known of a leaderboard.

    Attributes:
        share: belief of the seen share of the hidden rows, relative to all labeled rows.
        hidden: how large it is.
        pairs: what went there before.
        transfer: belief of the common factor.
    """

    share: SeenShare
    hidden: HiddenTest
    pairs: Sequence[ScorePair] = ()
    transfer: CvToLbNoise = CvToLbNoise()


def _normed(weight: Floats) -> Floats:
    normed: Floats = weight / weight.sum()
    return normed
