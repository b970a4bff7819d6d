"""Forecast a leaderboard score: an interval, and the sources of its width.

score = (c·p·seen + (1 - c·p)·unseen) · exp(F + e). F is common to all submissions to one
leaderboard with a CV on the same rows: the CV's rows are a sample, the hidden rows are another, and
the CV may not carry over exactly. F and p are estimated together from earlier pairs, because a pair
cannot distinguish a harder test from a test with more unseen rows. e is specific to a submission.
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
"""Sources of width: sampling of the CV's rows, of the hidden rows, p, and CV-to-LB transfer."""
LEVELS = (0.5, 0.9)
"""Levels of the intervals."""
_FACTORS, _SPREADS = 61, 9  # points of the grid over F and over e's standard deviation
_REACH = 4.0  # standard deviations of F that the grid spans each way
_LEAST = 1e-4  # a score of 0 has no logarithm


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecast of a leaderboard score.

    Attributes:
        median: median score.
        mean: expected score.
        half: 50 % interval.
        wide: 90 % interval.
        sources: source → share of the variance, each source varied alone; they sum to 1.
        share: mean, 5 % and 95 % quantile of the seen share, given the earlier pairs.
        factor: mean, 5 % and 95 % quantile of exp(F).
        pairs: number of earlier pairs.
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
        """Return plain values, from which `from_json` restores the same forecast, bit for bit."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, record: Any) -> "Forecast":
        """Return the forecast that `as_json` wrote.

        Raises:
            BadData: the keys are not those of a forecast.
        """
        fields = checked(record, tuple(cls.__dataclass_fields__), "a forecast")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return cls(**values)


def forecast(
    cv: ScoreSlices,
    board: LeaderboardPrior,
    *,
    covered: float = 1.0,
    seed: int = 0,
    draws: int = 20_000,
) -> Forecast:
    """Return the forecast of a submission's leaderboard score.

    Args:
        cv: CV of the submission, seen and unseen.
        board: prior knowledge about the leaderboard, and earlier pairs.
        covered: c, share of the seen rows whose label is in the model's training rows; below 1
            where a validation set was held out.
        seed: seed of the draws.
        draws: number of draws from the posterior.

    Source: the variance of a mixture of two domain means by the delta method (Efron and Tibshirani
    1993, ch. 21), and Bayes' rule on a grid of p, F and e's spread (Gelman et al. 2013, ch. 3).
    """
    generator = np.random.default_rng(seed)
    shared = _sampling(cv, board, covered) | {"transfer": board.transfer.factor**2}
    p, factor, spread = _posterior(board, shared, draws, generator)
    residual = spread * generator.standard_normal(draws)
    p_mean, factor_mean = p.mean(), factor.mean()
    scores = _score(cv, covered * p, factor + residual)
    common = float(_score(cv, covered * p_mean, factor).var()) / (sum(shared.values()) or 1.0)
    variance = {name: common * shared.get(name, 0.0) for name in SOURCES}
    variance["share"] = float(_score(cv, covered * p, factor_mean).var())
    variance["transfer"] += float(_score(cv, covered * p_mean, factor_mean + residual).var())
    total = sum(variance.values())
    half, wide = (np.quantile(scores, [(1 - level) / 2, (1 + level) / 2]) for level in LEVELS)
    return Forecast(
        float(np.median(scores)),
        float(scores.mean()),
        (float(half[0]), float(half[1])),
        (float(wide[0]), float(wide[1])),
        {name: variance[name] / total if total else 0.0 for name in SOURCES},
        _describe(p),
        _describe(np.exp(factor)),
        len(board.pairs),
    )


def _score(cv: ScoreSlices, p: Floats, logarithm: Floats) -> Floats:
    """Return scores from drawn shares and logarithms of factors, (n,) if either is an array."""
    mixed = p * cv.mean[SEEN] + (1 - p) * cv.mean[UNSEEN]
    scored: Floats = np.clip(mixed * np.exp(logarithm), 0.0, 1.0)
    return scored


def _sampling(cv: ScoreSlices, board: LeaderboardPrior, covered: float) -> dict[str, float]:
    """Return the variance of the log score that sampling of CV rows and of hidden rows causes."""
    p = covered * board.share.mean
    weight = np.array([p, 1 - p])
    mixed = max(float(weight @ cv.mean), _LEAST)
    # In the hidden test the mean of a slice is over p·n rows and has weight p: p²·v/(p·n).
    hidden = weight @ (cv.variance * cv.rows) / board.hidden.rows
    return {
        "cv": float(weight**2 @ cv.variance) / mixed**2,
        "hidden": float(hidden) / mixed**2,
    }


def _posterior(
    board: LeaderboardPrior, shared: dict[str, float], count: int, generator: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Draw p, F and the standard deviation of e, (count,) each, given the earlier pairs."""
    share, prior = board.share, float(np.sqrt(sum(shared.values())))
    factors = np.linspace(-_REACH, _REACH, _FACTORS) * prior if prior else np.zeros(1)
    scale = np.linspace(-2, 2, _SPREADS)  # powers of two
    spreads = board.transfer.residual * 2**scale
    belief = np.log(np.maximum(share.weight, 1e-300))[:, None, None]
    if prior:
        belief = belief - 0.5 * (factors / prior)[None, :, None] ** 2
    belief = belief - 0.5 * scale[None, None, :] ** 2
    for pair in board.pairs:
        # A CV on other rows adds the sampling error of those rows and of this CV's.
        sampling = 2 * shared["cv"] if pair.other else 0.0
        scales = np.sqrt(np.maximum(spreads**2 + sampling, _LEAST**2))
        belief = belief + _likelihood(pair, share.at, factors, scales)
    weight = np.exp(belief - belief.max()).ravel()
    summed = np.cumsum(weight)
    cell = np.searchsorted(summed, generator.random(count) * summed[-1], side="right")
    at_p, at_f, at_s = np.unravel_index(cell, (len(share.at), len(factors), len(spreads)))
    offset = generator.random((2, count)) - 0.5  # within a cell of the grid
    p = share.at[at_p] + offset[0] * _step(share.at)
    drawn = factors[at_f] + offset[1] * _step(factors)
    return np.clip(p, share.at[0], share.at[-1]), drawn, spreads[at_s]


def _likelihood(pair: ScorePair, p: Floats, factors: Floats, spreads: Floats) -> Floats:
    """Return the log-likelihood of a pair's score, (p, F, spread)."""
    share = pair.covered * p
    mixed = np.maximum(share * pair.seen + (1 - share) * pair.unseen, _LEAST)
    off = np.log(max(pair.score, _LEAST)) - np.log(mixed)[:, None] - factors[None, :]
    likely: Floats = -0.5 * (off[:, :, None] / spreads) ** 2 - np.log(spreads)
    return likely


def _step(grid: Floats) -> float:
    return float(grid[1] - grid[0]) if len(grid) > 1 else 0.0


def _describe(drawn: Floats) -> tuple[float, float, float]:
    low, high = np.quantile(drawn, [0.05, 0.95])
    return float(drawn.mean()), float(low), float(high)
