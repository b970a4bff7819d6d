"""Backtest how well leaderboard scores follow from CVs in the diary's run log.

`python -m benchmarks.run_log.golden` prints it: each training in turn is left out and predicted.

`families.csv` has the rows of the diary's run log (the seed data's `runs.csv`) that have a public
score, copied digit for digit; it was fixed before any model was fitted. Columns: `row` is the row's
index in the log, from 0; `family` the training that the row comes from; `untuned` the base model's
CV (empty: the row is the base model; 0.21 where the log has no value); `excluded` why the row is
left out.

The log has no seen and unseen scores. The model infers them: the gap between them is proportional
to what fine-tuning gained on CV, and zero for a base model. The seen share of each split is the
log's, that of the leaderboard is a quarter. So LB = CV - b * (fall of the seen share) * (gain),
with one free parameter b.
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
"""Split → share of validation rows with a seen misconception, from the log's README."""
SECOND = "by model"
"""Name of the second attempt, declared before it ran: the first did not beat the line."""
LEVELS = (0.5, 0.9)
"""Levels of the intervals."""
LINE = "line on CV"
"""Name of the reference model: a straight line on CV."""
_NOTES = (
    "mean: score minus prediction. Below the line's rmse: by how much, with its 95 %",
    "interval over trainings and the trainings needed to show it with 80 % power.",
    "seen share: LB = CV - b x fall of the seen share x gain of fine-tuning. The log",
    "has no seen and unseen scores: their gap is taken as proportional to the gain.",
    f"{SECOND}: the second attempt, declared after the first did not beat the line:",
    "times a factor per base model, shrunk toward a common factor.",
)
_LEADERBOARD_SHARE = 0.25  # seen rows of the leaderboard: pitfalls, part H
_FLOOR = 0.01  # smallest CV minus its fall: the logarithm needs a positive number
_MIN_TRAININGS = 4  # fewer leave no degree of freedom for the spread
_SLOPES = np.linspace(0.0, 1.5, 31)  # b of the second attempt
_RATIOS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # variance between models over variance within

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Predicted = tuple[Floats, Floats, int]
"""Means, scales and degrees of freedom of the t distributions of the pairs left out."""
Model = Callable[["Pairs", Mask], Predicted]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a CV and a leaderboard score.

    Attributes:
        family: training of each pair, (n,) str.
        cv: MAP@25, (n,) float64.
        lb: MAP@25 on the public leaderboard, (n,) float64.
        shift: fall of the seen share times the gain of fine-tuning on CV, (n,) float64.
    """

    family: NDArray[np.str_]
    cv: Floats
    lb: Floats
    shift: Floats


@dataclass(frozen=True, slots=True)
class Backtest:
    """Errors of one model on trainings it was not fitted on.

    Attributes:
        error: leaderboard score minus prediction, in MAP, (n,) float64.
        covered: shares of pairs inside the 50 % and the 90 % interval.
    """

    error: Floats
    covered: tuple[float, ...]

    @property
    def rmse(self) -> float:
        """Root mean squared error over all pairs, in MAP."""
        return float(np.sqrt(np.mean(self.error**2)))


def read_pairs(path: Path = TABLE) -> Pairs:
    """Return the pairs of a table of families, without the excluded ones.

    Raises:
        BadData: a pair has no family, or its split has no seen share.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["excluded"]]
    for row in rows:
        if not row["family"] or row["split"] not in SEEN:
            raise BadData(f"{row['run']} needs a family and a split of {sorted(SEEN)} in {path}")
    cv = np.array([float(row["cv"]) for row in rows])
    untuned = np.array([float(row["untuned"] or row["cv"]) for row in rows])
    fall = np.array([SEEN[row["split"]] for row in rows]) - _LEADERBOARD_SHARE
    return Pairs(
        np.array([row["family"] for row in rows]),
        cv,
        np.array([float(row["lb"]) for row in rows]),
        fall * (cv - untuned),
    )


def model_of(family: str) -> str:
    """Return the base model of a training, which the training's name begins with.

    >>> model_of("icl-r1"), model_of("qwen14b-lr2e4"), model_of("bge-small-untuned")
    ('bge-icl', 'qwen14b', 'bge-small')
    """
    if family.startswith("icl-"):
        return "bge-icl"
    return "-".join(family.split("-")[: 2 if family.startswith("bge-") else 1])


def backtest(pairs: Pairs) -> dict[str, Backtest]:
    """Return the errors of LB = CV, of a line on CV and of two seen share models.

    Raises:
        BadData: there are fewer than four trainings.
    """
    if len(np.unique(pairs.family)) < _MIN_TRAININGS:
        raise BadData(f"a backtest needs pairs of at least {_MIN_TRAININGS} trainings")
    models: dict[str, Model] = {
        "LB = CV": _as_cv,
        LINE: _line,
        "seen share": _seen_share,
        SECOND: _by_model,
    }
    return {name: _left_out(pairs, model) for name, model in models.items()}


@dataclass(frozen=True, slots=True)
class RmseGap:
    """Difference between the rmse of two models.

    Attributes:
        value: other model's rmse minus this model's, in MAP; negative where this model is worse.
        low: lower end of the 95 % interval, over trainings.
        high: upper end of the 95 % interval.
        needed: trainings needed to show the difference with 80 % power; 0 where the models have
            equal errors.
    """

    value: float
    low: float
    high: float
    needed: int


def gap(pairs: Pairs, model: Backtest, other: Backtest, *, draws: int = 10_000) -> RmseGap:
    """Compare the errors of two models by resampling trainings.

    Source: cluster bootstrap, percentile form; `needed` is the sample size of a paired z test of
    squared errors.
    """
    _, family, count = np.unique(pairs.family, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(family, item.error**2) for item in (model, other)], axis=1)
    drawn = np.random.default_rng(0).integers(len(count), size=(draws, len(count)))
    rmse = np.sqrt(sums[drawn].sum(axis=1) / count[drawn].sum(axis=1)[:, None])
    low, high = np.quantile(rmse[:, 1] - rmse[:, 0], [0.025, 0.975])
    difference = sums[:, 1] - sums[:, 0]
    needed = power.needed(float(difference.std(ddof=1)), float(difference.mean())) or 0
    return RmseGap(other.rmse - model.rmse, float(low), float(high), needed)


def text(pairs: Pairs, results: dict[str, Backtest]) -> str:
    """Return the table of all models, at most 80 columns wide."""
    lines = [
        f"The diary's log: {len(pairs.lb)} pairs of CV and public score, "
        f"{len(np.unique(pairs.family))} trainings, one left out.",
        "",
        f"{'':10}  {'rmse':>6}  {'mean':>7}  {'in 50 %':>7}  {'in 90 %':>7}  below the line's rmse",
    ]
    for name, result in results.items():
        half, wide = (f"{share:.1%}" for share in result.covered)
        line = f"{name:10}  {result.rmse:6.4f}  {result.error.mean():+7.4f}  {half:>7}  {wide:>7}"
        if name != LINE:
            by = gap(pairs, result, results[LINE])
            line += f"  {by.value:+.4f} ({by.low:+.4f}, {by.high:+.4f}) {by.needed}"
        lines.append(line)
    return "\n".join([*lines, "", *_NOTES])


def _left_out(pairs: Pairs, model: Model) -> Backtest:
    """Predict each training by a model that is fitted on the rest."""
    error, covered = np.zeros(len(pairs.lb)), np.zeros((len(LEVELS), len(pairs.lb)), dtype=bool)
    for family in np.unique(pairs.family):
        out = pairs.family == family
        mean, scale, degrees = model(pairs, ~out)
        error[out] = pairs.lb[out] - mean
        for row, level in enumerate(LEVELS):
            bound = stats.t.ppf((1 + level) / 2, degrees) * scale
            covered[row, out] = np.abs(error[out]) <= bound
    return Backtest(error, tuple(float(row.mean()) for row in covered))


def _as_cv(pairs: Pairs, fitted: Mask) -> Predicted:
    return _linear(pairs, fitted, np.zeros((len(pairs.cv), 0)), pairs.cv)


def _line(pairs: Pairs, fitted: Mask) -> Predicted:
    terms = np.stack([np.ones(len(pairs.cv)), pairs.cv], axis=1)
    return _linear(pairs, fitted, terms, np.zeros(len(pairs.cv)))


def _seen_share(pairs: Pairs, fitted: Mask) -> Predicted:
    return _linear(pairs, fitted, -pairs.shift[:, None], pairs.cv)


def _linear(pairs: Pairs, fitted: Mask, terms: Floats, offset: Floats) -> Predicted:
    """Fit lb = offset + terms·b with equal weight per training and predict the pairs left out."""
    target, x = (pairs.lb - offset)[fitted], terms[fitted]
    weight, degrees = _weights(pairs.family[fitted], terms.shape[1])
    inverse = np.linalg.inv(x.T @ (x * weight[:, None]))
    b = inverse @ (x.T @ (weight * target))
    spread = float(weight @ (target - x @ b) ** 2) / degrees
    new = terms[~fitted]
    scale = np.sqrt(spread * (1 + np.sum((new @ inverse) * new, axis=1)))
    return offset[~fitted] + new @ b, scale, degrees


def _by_model(pairs: Pairs, fitted: Mask) -> Predicted:
    """Predict by lb = (cv - b·shift) · exp(common + the model's effect), shrunk toward 0.

    b, common and the variance between models are fitted by likelihood; a model without another
    training gets the common factor.

    Source: random effects by generalized least squares (Laird and Ware 1982).
    """
    _, model = np.unique([model_of(family) for family in pairs.family], return_inverse=True)
    weight, _ = _weights(pairs.family[fitted], 0)
    precision = np.bincount(model[fitted], weight, minlength=model.max() + 1)
    fits = []
    for slope in _SLOPES:
        base = np.log(np.maximum(pairs.cv - slope * pairs.shift, _FLOOR))
        off = (np.log(pairs.lb) - base)[fitted]
        for ratio in _RATIOS:
            shrinkage = 1 / (1 + ratio * precision)  # of each model's mean
            cost, factor, scale = _factors(off, weight, model[fitted], ratio * shrinkage)
            mean = np.exp(base + factor[model])[~fitted]
            fits.append((cost - float(np.log(shrinkage).sum()), mean, mean * scale[model[~fitted]]))
    _, mean, scale = min(fits, key=lambda item: item[0])
    return mean, scale, len(np.unique(pairs.family[fitted])) - 2


def _factors(
    off: Floats, weight: Floats, model: NDArray[np.int64], remaining: Floats
) -> tuple[float, Floats, Floats]:
    """Fit the common factor and the factor of each model, all in logarithms.

    Args:
        off: logarithm of leaderboard score over prediction by b alone, (n,) float64.
        weight: weight of each pair, (n,) float64.
        model: index of each pair's model, (n,) int64.
        remaining: variance of a model's effect given its pairs, over the variance within, (m,).

    Returns:
        Minus twice the log-likelihood up to a constant, the factors (m,), and the scale of a
        further pair of each model (m,).
    """
    sums = np.bincount(model, weight * off, minlength=len(remaining))
    weights = np.bincount(model, weight, minlength=len(remaining))
    certainty = float(np.sum(weights - weights**2 * remaining))
    common = float(np.sum(sums - weights * remaining * sums)) / certainty
    effect = remaining * (sums - weights * common)
    residual = weight * (off - common)
    spread = max(float(residual @ (off - common - effect[model])), _FLOOR**4)
    # Where a model has many pairs, its effect absorbs an error of the common factor.
    unknown = remaining + (1 - weights * remaining) ** 2 / certainty
    scale = np.sqrt(spread / (weight.sum() - 2) * (1 + unknown))
    return len(off) * float(np.log(spread)), common + effect, scale


def _weights(family: NDArray[np.str_], terms: int) -> tuple[Floats, int]:
    """Return weights that sum to 1 per training, and the degrees of freedom of the spread."""
    _, index, count = np.unique(family, return_inverse=True, return_counts=True)
    return 1 / count[index], len(count) - terms


def main() -> None:
    """Print the backtest."""
    pairs = read_pairs()
    print(text(pairs, backtest(pairs)))


if __name__ == "__main__":
    main()
