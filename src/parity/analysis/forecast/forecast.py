"""Which score a leaderboard will show: an interval, and what makes it wide.

score = (c·p·seen + (1 - c·p)·unseen) · exp(F + e). F is common to all that goes to one leaderboard
with a CV over the same rows: that the CV's rows are a sample, that the hidden ones are another, and
how CV carries over. It is learnt from earlier pairs, together with p, for a pair cannot tell a
harder test from one with more unseen rows. e is the submission's own.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.analysis.forecast.leaderboard import LeaderboardPrior, ScorePair
from parity.analysis.forecast.score_slices import SEEN, UNSEEN, ScoreSlices
from parity.competition.scoring.bootstrap import checked

Floats = NDArray[np.float64]
SOURCES = ("cv", "hidden", "share", "transfer")
"""What makes a forecast wide: the CV's rows, the hidden test's, p, and how CV carries over."""
LEVELS = (0.5, 0.9)
_FACTORS, _SPREADS = 61, 9  # points of the grid over F and over e's standard deviation
_REACH = 4.0  # standard deviations of F that the grid spans each way
_LEAST = 1e-4  # a score of 0 has no logarithm


@dataclass(frozen=True, slots=True)
class Forecast:
    """A score before it is known.

    Attributes:
        median: as likely above as below.
        mean: expected score.
        half: 50 % interval.
        wide: 90 % interval.
        sources: source → its part of the variance, each let loose alone; they sum to 1.
        share: mean, 5 % and 95 % of the seen share, after the pairs.
        factor: the same of exp(F).
        pairs: how many earlier pairs it learnt from.
    """

    median: float
    mean: float
    half: tuple[float, float]
    wide: tuple[float, float]
    sources: dict[str, float]
    share: tuple[float, float, float]
    factor: tuple[float, float, float]
    pairs: int

    def as_json(self) -> dict[str, Any]:
        """Return plain values; `from_json` gives the same forecast back, bit for bit."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, record: Any) -> "Forecast":
        """Return what `as_json` was given.

        Raises:
            BadData: other keys than a forecast's.
        """
        told = checked(record, tuple(cls.__dataclass_fields__), "a forecast")
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
        }
        return cls(**plain)


def forecast(
    cv: ScoreSlices,
    board: LeaderboardPrior,
    *,
    covered: float = 1.0,
    seed: int = 0,
    draws: int = 20_000,
) -> Forecast:
    """Return the score that a leaderboard will show.

    Args:
        cv: the submission's CV by slice.
        board: what is known of the leaderboard.
        covered: c, the part of p that the model's own training rows still show; below 1 where its
            misconceptions were held out of them.
        seed: of the draws.
        draws: from what is believed after the pairs.

    Source: the variance of a mixture of two domain means by the delta method (Efron and Tibshirani
    1993, ch. 21), and Bayes' rule on a grid of p, F and e's spread (Gelman et al. 2013, ch. 3).
    """
    generator = np.random.default_rng(seed)
    shared = _sampling(cv, board, covered) | {"transfer": board.transfer.factor**2}
    p, factor, spread = _posterior(board, shared, draws, generator)
    own = spread * generator.standard_normal(draws)
    p_mean, factor_mean = p.mean(), factor.mean()
    whole = _score(cv, covered * p, factor + own)
    common = float(_score(cv, covered * p_mean, factor).var()) / (sum(shared.values()) or 1.0)
    variance = {name: common * shared.get(name, 0.0) for name in SOURCES}
    variance["share"] = float(_score(cv, covered * p, factor_mean).var())
    variance["transfer"] += float(_score(cv, covered * p_mean, factor_mean + own).var())
    total = sum(variance.values())
    half, wide = (np.quantile(whole, [(1 - level) / 2, (1 + level) / 2]) for level in LEVELS)
    return Forecast(
        float(np.median(whole)),
        float(whole.mean()),
        (float(half[0]), float(half[1])),
        (float(wide[0]), float(wide[1])),
        {name: variance[name] / total if total else 0.0 for name in SOURCES},
        _told(p),
        _told(np.exp(factor)),
        len(board.pairs),
    )


def _score(cv: ScoreSlices, p: Floats, logarithm: Floats) -> Floats:
    """Return the scores of drawn shares and logarithms of factors, (n,) where one of them is."""
    mixed = p * cv.mean[SEEN] + (1 - p) * cv.mean[UNSEEN]
    scored: Floats = np.clip(mixed * np.exp(logarithm), 0.0, 1.0)
    return scored


def _sampling(cv: ScoreSlices, board: LeaderboardPrior, covered: float) -> dict[str, float]:
    """Return the variance of the score's logarithm over samples of the CV's and of hidden rows."""
    p = covered * board.share.mean
    weight = np.array([p, 1 - p])
    mixed = max(float(weight @ cv.mean), _LEAST)
    # In the hidden test a slice's mean is over p·n rows and weighs p: p²·v/(p·n).
    hidden = weight @ (cv.variance * cv.rows) / board.hidden.rows
    return {
        "cv": float(weight**2 @ cv.variance) / mixed**2,
        "hidden": float(hidden) / mixed**2,
    }


def _posterior(
    board: LeaderboardPrior, shared: dict[str, float], count: int, generator: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Draw p, F and e's standard deviation, (count,) each, given the pairs."""
    share, prior = board.share, float(np.sqrt(sum(shared.values())))
    factors = np.linspace(-_REACH, _REACH, _FACTORS) * prior if prior else np.zeros(1)
    scale = np.linspace(-2, 2, _SPREADS)  # powers of two
    spreads = board.transfer.residual * 2**scale
    belief = np.log(np.maximum(share.weight, 1e-300))[:, None, None]
    if prior:
        belief = belief - 0.5 * (factors / prior)[None, :, None] ** 2
    belief = belief - 0.5 * scale[None, None, :] ** 2
    for pair in board.pairs:
        # Over other rows, that CV's own sampling stands between the two, and so does ours.
        apart = 2 * shared["cv"] if pair.other else 0.0
        around = np.sqrt(np.maximum(spreads**2 + apart, _LEAST**2))
        belief = belief + _likelihood(pair, share.at, factors, around)
    weight = np.exp(belief - belief.max()).ravel()
    summed = np.cumsum(weight)
    cell = np.searchsorted(summed, generator.random(count) * summed[-1], side="right")
    at_p, at_f, at_s = np.unravel_index(cell, (len(share.at), len(factors), len(spreads)))
    within = generator.random((2, count)) - 0.5  # of a cell of the grid
    p = share.at[at_p] + within[0] * _step(share.at)
    drawn = factors[at_f] + within[1] * _step(factors)
    return np.clip(p, share.at[0], share.at[-1]), drawn, spreads[at_s]


def _likelihood(pair: ScorePair, p: Floats, factors: Floats, spreads: Floats) -> Floats:
    """Return the logarithm of how likely a pair's score is, (p, F, spread)."""
    share = pair.covered * p
    mixed = np.maximum(share * pair.seen + (1 - share) * pair.unseen, _LEAST)
    off = np.log(max(pair.score, _LEAST)) - np.log(mixed)[:, None] - factors[None, :]
    likely: Floats = -0.5 * (off[:, :, None] / spreads) ** 2 - np.log(spreads)
    return likely


def _step(grid: Floats) -> float:
    return float(grid[1] - grid[0]) if len(grid) > 1 else 0.0


def _told(drawn: Floats) -> tuple[float, float, float]:
    low, high = np.quantile(drawn, [0.05, 0.95])
    return float(drawn.mean()), float(low), float(high)
