"""How well the golden log's leaderboard values follow from its CVs, one training left out.

`families.csv`: the rows of the golden run table (`shared/seed/runs.csv` of the project's briefing)
that have a public score, figures copied digit for digit; fixed before anything was fitted. `row` is
the place there from 0; `family` the training a row comes from; `untuned` the base's own CV (empty:
the row is untuned; 0.21 where the log has none); `excluded` why a row is left out.

The log has no seen and unseen scores. They are inferred: the gap between them is taken as
proportional to what tuning gained on CV, and as none where nothing was tuned; the seen share of
each split is the log's own, that of the leaderboard a quarter. So LB = CV - b · (fall of the seen
share) · (gain), with one free number b.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from parity.analysis.forecast import power
from parity.run.errors import BadData

TABLE = Path(__file__).with_name("families.csv")
SEEN = {"v1": 0.706, "v2": 0.634, "v3": 0.742, "cv": 0.742}
"""Share of validation rows with a seen misconception, by split (the log's own README)."""
SECOND = "by model"
"""The second attempt, declared before it was tried: the first did not beat the line."""
LEVELS = (0.5, 0.9)

LINE = "line on CV"
_NOTES = (
    "mean: of score less prediction. Under the line's rmse: with its 95 % interval",
    "over trainings, and the trainings that would show it four times in five.",
    "seen share: LB = CV - b x fall of the seen share x gain of tuning. The log has",
    "no seen and unseen scores: their gap is taken as proportional to the gain.",
    f"{SECOND}: the second attempt, declared because the first did not beat the",
    "line: times a factor for each base model, shrunk to a common one.",
)
_SHARE = 0.25  # of seen rows on the leaderboard: pitfalls, part H
_FLOOR = 0.01  # of a CV less its fall: below has no use and no logarithm
_LEAST = 4  # trainings: fewer fit no line and leave a spread
_SLOPES = np.linspace(0.0, 1.5, 31)  # b of the second attempt
_RATIOS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # variance between models over that within

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Predicted = tuple[Floats, Floats, int]
"""Means, scales of a t distribution and its degrees of freedom, of the pairs left out."""
Model = Callable[["Pairs", Mask], Predicted]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of CV and leaderboard.

    Attributes:
        family: the training each belongs to, (n,) str.
        cv: MAP@25, (n,) float64.
        lb: MAP@25 on the public leaderboard, (n,) float64.
        shift: how far the seen share falls, times what tuning gained on CV, (n,) float64.
    """

    family: NDArray[np.str_]
    cv: Floats
    lb: Floats
    shift: Floats


@dataclass(frozen=True, slots=True)
class Backtest:
    """Errors of one model over trainings it was not fitted on.

    Attributes:
        error: leaderboard less prediction, in MAP, (n,) float64.
        covered: parts of pairs inside the 50 % and 90 % intervals.
    """

    error: Floats
    covered: tuple[float, ...]

    @property
    def rmse(self) -> float:
        """Over all pairs, in MAP."""
        return float(np.sqrt(np.mean(self.error**2)))


def read(path: Path = TABLE) -> Pairs:
    """Return the pairs of a table of families, without those it excludes.

    Raises:
        BadData: a pair without a family, or of a split whose seen share is not known.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["excluded"]]
    for row in rows:
        if not row["family"] or row["split"] not in SEEN:
            raise BadData(f"{path}: {row['run']} needs a family and a split of {sorted(SEEN)}")
    cv = np.array([float(row["cv"]) for row in rows])
    untuned = np.array([float(row["untuned"] or row["cv"]) for row in rows])
    fall = np.array([SEEN[row["split"]] for row in rows]) - _SHARE
    return Pairs(
        np.array([row["family"] for row in rows]),
        cv,
        np.array([float(row["lb"]) for row in rows]),
        fall * (cv - untuned),
    )


def model_of(family: str) -> str:
    """Return the base that a training tunes, which its name begins with.

    >>> model_of("icl-r1"), model_of("qwen14b-lr2e4"), model_of("bge-small-untuned")
    ('bge-icl', 'qwen14b', 'bge-small')
    """
    if family.startswith("icl-"):
        return "bge-icl"
    return "-".join(family.split("-")[: 2 if family.startswith("bge-") else 1])


def backtest(pairs: Pairs) -> dict[str, Backtest]:
    """Return the errors of LB = CV, of a line on CV, and of the seen share model in two forms.

    Raises:
        BadData: fewer than four trainings, which fit no line and leave a spread.
    """
    if len(np.unique(pairs.family)) < _LEAST:
        raise BadData(f"a backtest needs pairs of at least {_LEAST} trainings")
    models: dict[str, Model] = {
        "LB = CV": _as_cv,
        LINE: _line,
        "seen share": _seen_share,
        SECOND: _by_model,
    }
    return {name: _left_out(pairs, model) for name, model in models.items()}


@dataclass(frozen=True, slots=True)
class RmseGap:
    """By how much one model's rmse is under another's; negative where it is over.

    Attributes:
        value: in MAP.
        low: lower end of the 95 % interval, over trainings.
        high: upper end.
        needed: trainings that would show such a difference four times in five; 0 where the two
            err alike.
    """

    value: float
    low: float
    high: float
    needed: int


def gap(pairs: Pairs, model: Backtest, other: Backtest, *, draws: int = 10_000) -> RmseGap:
    """Compare two models' errors, drawing whole trainings.

    Source: cluster bootstrap, percentile form; `needed` is the sample size of a paired z test of
    squared errors, `power.needed`.
    """
    _, place, count = np.unique(pairs.family, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(place, one.error**2) for one in (model, other)], axis=1)
    drawn = np.random.default_rng(0).integers(len(count), size=(draws, len(count)))
    rmse = np.sqrt(sums[drawn].sum(axis=1) / count[drawn].sum(axis=1)[:, None])
    low, high = np.quantile(rmse[:, 1] - rmse[:, 0], [0.025, 0.975])
    fewer = sums[:, 1] - sums[:, 0]
    needed = power.needed(float(fewer.std(ddof=1)), float(fewer.mean())) or 0
    return RmseGap(other.rmse - model.rmse, float(low), float(high), needed)


def text(pairs: Pairs, found: dict[str, Backtest]) -> str:
    """Return the one table of all models, at most 78 columns wide."""
    lines = [
        f"The golden log: {len(pairs.lb)} pairs of CV and public score, "
        f"{len(np.unique(pairs.family))} trainings, one left out.",
        "",
        f"{'':10}  {'rmse':>6}  {'mean':>7}  {'in 50 %':>7}  {'in 90 %':>7}  under the line's rmse",
    ]
    for name, one in found.items():
        half, wide = (f"{part:.1%}" for part in one.covered)
        told = f"{name:10}  {one.rmse:6.4f}  {one.error.mean():+7.4f}  {half:>7}  {wide:>7}"
        if name != LINE:
            by = gap(pairs, one, found[LINE])
            told += f"  {by.value:+.4f} ({by.low:+.4f}, {by.high:+.4f}) {by.needed}"
        lines.append(told)
    return "\n".join([*lines, "", *_NOTES])


def _left_out(pairs: Pairs, model: Model) -> Backtest:
    """Fit with each training in turn left out, and predict it."""
    error, inside = np.zeros(len(pairs.lb)), np.zeros((len(LEVELS), len(pairs.lb)), dtype=bool)
    for family in np.unique(pairs.family):
        out = pairs.family == family
        mean, scale, degrees = model(pairs, ~out)
        error[out] = pairs.lb[out] - mean
        for place, level in enumerate(LEVELS):
            bound = stats.t.ppf((1 + level) / 2, degrees) * scale
            inside[place, out] = np.abs(error[out]) <= bound
    return Backtest(error, tuple(float(one.mean()) for one in inside))


def _as_cv(pairs: Pairs, fitted: Mask) -> Predicted:
    return _linear(pairs, fitted, np.zeros((len(pairs.cv), 0)), pairs.cv)


def _line(pairs: Pairs, fitted: Mask) -> Predicted:
    terms = np.stack([np.ones(len(pairs.cv)), pairs.cv], axis=1)
    return _linear(pairs, fitted, terms, np.zeros(len(pairs.cv)))


def _seen_share(pairs: Pairs, fitted: Mask) -> Predicted:
    return _linear(pairs, fitted, -pairs.shift[:, None], pairs.cv)


def _linear(pairs: Pairs, fitted: Mask, terms: Floats, offset: Floats) -> Predicted:
    """Fit lb = offset + terms·b, each training weighing the same, and predict the others."""
    target, x = (pairs.lb - offset)[fitted], terms[fitted]
    weight, degrees = _weights(pairs.family[fitted], terms.shape[1])
    inverse = np.linalg.inv(x.T @ (x * weight[:, None]))
    b = inverse @ (x.T @ (weight * target))
    spread = float(weight @ (target - x @ b) ** 2) / degrees
    new = terms[~fitted]
    scale = np.sqrt(spread * (1 + np.sum((new @ inverse) * new, axis=1)))
    return offset[~fitted] + new @ b, scale, degrees


def _by_model(pairs: Pairs, fitted: Mask) -> Predicted:
    """Predict by lb = (cv - b·shift) · exp(common + own of the model), the own shrunk to none.

    b, common and how far models part are fitted by likelihood; a model with no other training
    gets the common factor.

    Source: random effects by generalised least squares (Laird and Ware 1982).
    """
    _, model = np.unique([model_of(one) for one in pairs.family], return_inverse=True)
    weight, _ = _weights(pairs.family[fitted], 0)
    precision = np.bincount(model[fitted], weight, minlength=model.max() + 1)
    fits = []
    for slope in _SLOPES:
        base = np.log(np.maximum(pairs.cv - slope * pairs.shift, _FLOOR))
        off = (np.log(pairs.lb) - base)[fitted]
        for ratio in _RATIOS:
            kept = 1 / (1 + ratio * precision)  # of a model's mean; the rest is shrunk away
            cost, factor, left = _factors(off, weight, model[fitted], ratio * kept)
            mean = np.exp(base + factor[model])[~fitted]
            fits.append((cost - float(np.log(kept).sum()), mean, mean * left[model[~fitted]]))
    _, mean, scale = min(fits, key=lambda item: item[0])
    return mean, scale, len(np.unique(pairs.family[fitted])) - 2


def _factors(
    off: Floats, weight: Floats, model: NDArray[np.int64], left: Floats
) -> tuple[float, Floats, Floats]:
    """Fit the common factor and each model's, all in logarithms.

    Args:
        off: leaderboard over what b alone says, (n,) float64.
        weight: of each pair, (n,) float64.
        model: place of each pair's model, (n,) int64.
        left: variance of a model's own factor once its pairs are known, over that within, (m,).

    Returns:
        Minus twice the log-likelihood but for what b and the pairs do not change, the factors
        (m,), and the scale of a further pair of each model (m,).
    """
    sums = np.bincount(model, weight * off, minlength=len(left))
    ones = np.bincount(model, weight, minlength=len(left))
    certainty = float(np.sum(ones - ones**2 * left))
    common = float(np.sum(sums - ones * left * sums)) / certainty
    own = left * (sums - ones * common)
    rest = weight * (off - common)
    spread = max(float(rest @ (off - common - own[model])), _FLOOR**4)
    # Where a model's own pairs decide, an error of the common factor is made good by its own.
    unknown = left + (1 - ones * left) ** 2 / certainty
    scale = np.sqrt(spread / (weight.sum() - 2) * (1 + unknown))
    return len(off) * float(np.log(spread)), common + own, scale


def _weights(family: NDArray[np.str_], terms: int) -> tuple[Floats, int]:
    """Return weights that sum to 1 for each training, and the degrees of freedom left."""
    _, place, count = np.unique(family, return_inverse=True, return_counts=True)
    return 1 / count[place], len(count) - terms
