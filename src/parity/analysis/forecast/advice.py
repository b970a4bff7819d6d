"""Report which CV ranked earlier runs as the leaderboard did."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from parity.analysis.forecast import power
from parity.analysis.forecast.power import PairPower
from parity.competition.scoring.bootstrap import Interval
from parity.run.progress import wrap_lines

LEAST = 5
"""Smallest number of pairs of CV and leaderboard score for advice."""
MEASURES = ("all", "projection", "unseen")
"""Measures by which an epoch may be chosen."""
_DRAWS = 1000
_BOUNDS = (2.5, 97.5)
_TUNED = ", tuned"  # without base models
_NAME = 26  # columns of the first field

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EpochScore:
    """Scores of one adapter of one training on one split.

    Attributes:
        training: name of the training.
        split: name of the split.
        number: number of the epoch; 1 where unknown, 0 for a base model.
        cv: measure → score, for the measures of `MEASURES` that are known.
        score: score on the leaderboard; None where it was never submitted.
    """

    training: str
    split: str
    number: int
    cv: Mapping[str, float]
    score: float | None = None


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Rank correlation of a CV with the leaderboard.

    Attributes:
        name: split, or rule that chose the epoch, and the measure.
        pairs: number of ranked pairs.
        spearman: Spearman's rho with its 95 % interval; None below `LEAST` pairs or where all
            scores of one side are equal.
        kendall: Kendall's tau-b, the same.
    """

    name: str
    pairs: int
    spearman: Interval | None
    kendall: Interval | None


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice from earlier scores.

    Attributes:
        pairs: number of adapters with a CV and a leaderboard score.
        splits: rank correlation of each split's CVs; empty below `LEAST` pairs.
        choices: rank correlation of each rule that chooses an epoch; empty below `LEAST` pairs.
        epochs: pairs of epochs of one training in the same order by CV and by leaderboard, and
            pairs that both order.
        compared: each run and the next by CV.
        notes: assumptions and omissions, a line each.
        next: next command or step.
    """

    pairs: int
    splits: tuple[RankCorrelation, ...]
    choices: tuple[RankCorrelation, ...]
    epochs: tuple[int, int]
    compared: tuple[PairPower, ...]
    notes: tuple[str, ...]
    next: str

    @property
    def line(self) -> str:
        """The advice in one line."""
        if self.pairs < LEAST:
            return f"too few pairs of CV and leaderboard score for advice ({self.pairs} of {LEAST})"
        complete = [split for split in self.splits if not split.name.endswith(_TUNED)]
        best = [_first(ranked) for ranked in (complete, self.choices)]
        return f"closest to the leaderboard's order of {self.pairs} pairs: {'; '.join(best)}"

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "line": self.line}


def best_of(ranked: Sequence[RankCorrelation]) -> str:
    """Return the names with the highest Kendall correlation; empty where there is none."""
    values = [(item.kendall.value, item.name) for item in ranked if item.kendall]
    return " = ".join(name for value, name in values if value == max(values)[0])


def as_good(ranked: Sequence[RankCorrelation]) -> tuple[str, ...]:
    """Return the names of the others whose interval reaches the value of the best.

    This does not test a difference, which would need runs that both ranked. It prevents a first
    place by chance from being reported as a result.
    """
    intervals = [(item.name, item.kendall) for item in ranked if item.kendall]
    best = max((kendall.value for _, kendall in intervals), default=0.0)
    return tuple(name for name, kendall in intervals if kendall.value < best <= kendall.high)


def by_split(epochs: Sequence[EpochScore]) -> tuple[RankCorrelation, ...]:
    """Return the rank correlation of each split's CVs, by each measure, with the leaderboard.

    Where base models are among the adapters, the tuned ones also get a result without them: base
    models score lowest on every split, which makes any split look good.
    """
    scored = [epoch for epoch in epochs if epoch.score is not None]
    results = []
    for split in sorted({epoch.split for epoch in scored}):
        for measure in MEASURES:
            rows = [row for row in scored if row.split == split and measure in row.cv]
            tuned = [row for row in rows if row.number]
            if rows:
                results.append(_ranked(f"{split} by {measure}", rows, measure))
            if 0 < len(tuned) < len(rows):
                results.append(_ranked(f"{split} by {measure}{_TUNED}", tuned, measure))
    return tuple(results)


def by_choice(epochs: Sequence[EpochScore]) -> tuple[RankCorrelation, ...]:
    """Return the rank correlation of the CV of the epoch that each rule chooses.

    Base models have no epoch and are left out. A training's leaderboard score is its highest,
    because a rule may choose an epoch that was never submitted. A training counts once for each
    split that it was scored on.
    """
    groups: dict[tuple[str, str], list[EpochScore]] = defaultdict(list)
    for epoch in epochs:
        if epoch.number:
            groups[epoch.training, epoch.split].append(epoch)
    best_scores = {
        key: max((item.score for item in group if item.score is not None), default=None)
        for key, group in groups.items()
    }
    results = []
    for name, measure, choose in _choices():
        rows = [
            EpochScore(*key, 0, {measure: choose(scored).cv[measure]}, best_scores[key])
            for key, group in groups.items()
            if best_scores[key] is not None
            and (scored := [item for item in group if measure in item.cv])
        ]
        if rows:
            results.append(_ranked(name, rows, measure))
    return tuple(results)


def concordant_epochs(epochs: Sequence[EpochScore]) -> tuple[int, int]:
    """Return how many pairs of epochs of one training CV and score order alike, and of how many.

    Ties on either side are ignored.
    """
    scored = [
        (epoch, epoch.score) for epoch in epochs if epoch.score is not None and "all" in epoch.cv
    ]
    signs = [
        np.sign((a.cv["all"] - b.cv["all"]) * (x - y))
        for (a, x), (b, y) in combinations(scored, 2)
        if (a.training, a.split) == (b.training, b.split)
    ]
    return signs.count(1), signs.count(1) + signs.count(-1)


def correlate(cv: Floats, score: Floats, family: Sequence[str]) -> tuple[Interval, Interval] | None:
    """Return Spearman's and Kendall's rank correlation with 95 % intervals.

    Args:
        cv: (n,) float64.
        score: (n,) float64.
        family: training of each pair, n names; its epochs are resampled together.

    Returns:
        Both correlations; None where all values of one side are equal. Such resamples are ignored.

    Source: Spearman's rho with mean ranks, Kendall's tau-b; cluster bootstrap, percentile form.
    """
    point = _correlations(cv, score)
    if np.isnan(point).any():
        return None
    names, index = np.unique(np.array(family), return_inverse=True)
    members = [np.flatnonzero(index == number) for number in range(len(names))]
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(_DRAWS):
        rows = np.concatenate([members[n] for n in generator.integers(len(names), size=len(names))])
        drawn.append(_correlations(cv[rows], score[rows]))
    valid = np.array([item for item in drawn if not np.isnan(item).any()] or [point])
    bounds = np.percentile(valid, _BOUNDS, axis=0)
    spearman, kendall = (Interval(*map(float, (point[n], *bounds[:, n]))) for n in range(2))
    return spearman, kendall


def text(advice: Advice) -> str:
    """Return the advice for a terminal of 80 columns."""
    lines = wrap_lines(advice.line)
    if advice.splits:
        lines += ["", f"{'ranked by CV':{_NAME}} {'pairs':>5}  {'Spearman 95 %':21} Kendall 95 %"]
        lines += [_line(item) for item in (*advice.splits, *advice.choices)]
        concordant, pairs = advice.epochs
        lines.append(
            f"epochs of one training: {concordant} of {pairs} pairs in the leaderboard's order"
        )
    if advice.compared:
        lines += ["", power.text(advice.compared)]
    for note in advice.notes:
        lines += wrap_lines(note)
    return "\n".join([*lines, *wrap_lines(f"next: {advice.next}")])


def _first(ranked: Sequence[RankCorrelation]) -> str:
    best, rivals = best_of(ranked), as_good(ranked)
    if not best:
        return "too few pairs of one kind"
    return f"{best} ({', '.join(rivals)} may be as good)" if rivals else best


def _choices() -> list[tuple[str, str, Callable[[list[EpochScore]], EpochScore]]]:
    """Return name, measure and function of each rule that chooses an epoch."""
    best = [(f"best epoch by {name}", name, partial(_best, measure=name)) for name in MEASURES]
    return [("last epoch", "all", _last), *best]


def _best(group: list[EpochScore], measure: str) -> EpochScore:
    return max(group, key=lambda item: item.cv[measure])


def _last(group: list[EpochScore]) -> EpochScore:
    return max(group, key=lambda item: item.number)


def _ranked(name: str, rows: Sequence[EpochScore], measure: str) -> RankCorrelation:
    if len(rows) < LEAST:
        return RankCorrelation(name, len(rows), None, None)
    cv = np.array([row.cv[measure] for row in rows])
    score = np.array([row.score for row in rows], dtype=np.float64)
    intervals = correlate(cv, score, [row.training for row in rows])
    return RankCorrelation(name, len(rows), *(intervals or (None, None)))


def _correlations(x: Floats, y: Floats) -> Floats:
    """Return rho and tau-b, both NaN where all values of one side are equal."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.array([np.nan, np.nan])
    rho = np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]
    a, b = (np.sign(values[:, None] - values[None, :]) for values in (x, y))
    return np.array([rho, np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))])


def _line(item: RankCorrelation) -> str:
    name = f"{item.name[:_NAME]:{_NAME}} {item.pairs:5d}"
    if item.spearman is None or item.kendall is None:
        reason = "too few pairs" if item.pairs < LEAST else "all equal"
        return f"{name}  {reason}"
    intervals = (
        f"{interval.value:+.2f} ({interval.low:+.2f}, {interval.high:+.2f})"
        for interval in (item.spearman, item.kendall)
    )
    return f"{name}  {' '.join(intervals)}"
