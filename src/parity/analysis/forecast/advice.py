"""What earlier scores say of the next choice: which CV ranked runs as the leaderboard did."""

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
from parity.run.progress import wrapped

LEAST = 5
"""Pairs of CV and leaderboard below which nothing is advised."""
MEASURES = ("all", "projection", "unseen")
"""By which an epoch may be chosen."""
_DRAWS = 1000
_BOUNDS = (2.5, 97.5)
_TUNED = ", tuned"  # without bare bases
_NAME = 26  # columns of what is ranked

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EpochScore:
    """One adapter of one training, as scored on one split.

    Attributes:
        training: what it is an epoch of.
        split: on which it was scored.
        number: of the epoch, 1 where it is not known; 0 is untuned.
        cv: measure → MAP@k, of `MEASURES` those that are known.
        score: MAP@k on the leaderboard; None where it never went there.
    """

    training: str
    split: str
    number: int
    cv: Mapping[str, float]
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """How a CV ranked what the leaderboard ranked.

    Attributes:
        what: the split, or how the epoch was chosen, and the measure.
        pairs: how many were ranked.
        spearman: rank correlation with its 95 % interval; None below `LEAST` pairs or where one
            side is all ties.
        kendall: tau-b, the same.
    """

    what: str
    pairs: int
    spearman: Interval | None
    kendall: Interval | None


@dataclass(frozen=True, slots=True)
class Advice:
    """What earlier scores say.

    Attributes:
        pairs: adapters with a CV and a leaderboard's score.
        splits: how the CVs of each split ranked them; empty below `LEAST` pairs.
        choices: how each choice of the epoch ranked trainings; empty below `LEAST` pairs.
        epochs: twos of epochs of one training that CV and leaderboard order alike, and all twos
            that both order.
        compared: each run and the next by CV.
        notes: what the numbers rest on, a line each.
        next: the command to start then.
    """

    pairs: int
    splits: tuple[Ranked, ...]
    choices: tuple[Ranked, ...]
    epochs: tuple[int, int]
    compared: tuple[PairPower, ...]
    notes: tuple[str, ...]
    next: str

    @property
    def line(self) -> str:
        """The advice in one line."""
        if self.pairs < LEAST:
            return f"too few pairs ({self.pairs} of {LEAST}) of CV and leaderboard to advise from"
        whole = [split for split in self.splits if not split.what.endswith(_TUNED)]
        told = [_first(ranked) for ranked in (whole, self.choices)]
        return f"of {self.pairs} pairs, ranked most as the leaderboard did: {'; '.join(told)}"

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "line": self.line}


def best_of(ranked: Sequence[Ranked]) -> str:
    """Return what has the highest Kendall correlation, equals together; empty where none has."""
    known = [(one.kendall.value, one.what) for one in ranked if one.kendall]
    return " = ".join(what for value, what in known if value == max(known)[0])


def as_good(ranked: Sequence[Ranked]) -> tuple[str, ...]:
    """Return what else may rank as well as the best: its interval reaches the best's value.

    This is no test of a difference, which would need runs that both ranked; it keeps a first place
    by chance from being told as a finding.
    """
    known = [one for one in ranked if one.kendall]
    best = max((one.kendall.value for one in known if one.kendall), default=0.0)
    return tuple(
        one.what for one in known if one.kendall and one.kendall.value < best <= one.kendall.high
    )


def by_split(epochs: Sequence[EpochScore]) -> tuple[Ranked, ...]:
    """Return how each split's CVs, by each measure, ranked the adapters that have a score.

    Where bare bases are among them, those that were tuned are ranked by themselves too: that tuning
    helps is no news, and makes any split look good.
    """
    scored = [epoch for epoch in epochs if epoch.score is not None]
    found = []
    for split in sorted({one.split for one in scored}):
        for measure in MEASURES:
            rows = [one for one in scored if one.split == split and measure in one.cv]
            tuned = [row for row in rows if row.number]
            if rows:
                found.append(_ranked(f"{split} by {measure}", rows, measure))
            if 0 < len(tuned) < len(rows):
                found.append(_ranked(f"{split} by {measure}{_TUNED}", tuned, measure))
    return tuple(found)


def by_choice(epochs: Sequence[EpochScore]) -> tuple[Ranked, ...]:
    """Return how each choice of the epoch ranked trainings, by the chosen epoch's CV.

    Bare bases have no epoch and are left out. A training is worth the highest of its scores, for a
    choice may fall on an epoch that never went to the leaderboard. Each training is told on each
    split that it was scored on.
    """
    groups: dict[tuple[str, str], list[EpochScore]] = defaultdict(list)
    for epoch in epochs:
        if epoch.number:
            groups[epoch.training, epoch.split].append(epoch)
    worth = {
        key: max((one.score for one in group if one.score is not None), default=None)
        for key, group in groups.items()
    }
    found = []
    for what, measure, pick in _choices():
        rows = [
            EpochScore(*key, 0, {measure: pick(known).cv[measure]}, worth[key])
            for key, group in groups.items()
            if worth[key] is not None and (known := [it for it in group if measure in it.cv])
        ]
        if rows:
            found.append(_ranked(what, rows, measure))
    return tuple(found)


def within(epochs: Sequence[EpochScore]) -> tuple[int, int]:
    """Return how many twos of epochs of one training CV and score order alike, and of how many.

    Ties on either side are passed over.
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
        family: the training of each, n names: its epochs are drawn together.

    Returns:
        None where one side is all ties. Resamples that are, are left out.

    Source: Spearman's rho with mean ranks, Kendall's tau-b; cluster bootstrap, percentile form.
    """
    point = _correlations(cv, score)
    if np.isnan(point).any():
        return None
    names, place = np.unique(np.array(family), return_inverse=True)
    members = [np.flatnonzero(place == number) for number in range(len(names))]
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(_DRAWS):
        rows = np.concatenate([members[n] for n in generator.integers(len(names), size=len(names))])
        drawn.append(_correlations(cv[rows], score[rows]))
    known = np.array([one for one in drawn if not np.isnan(one).any()] or [point])
    bounds = np.percentile(known, _BOUNDS, axis=0)
    spearman, kendall = (Interval(*map(float, (point[n], *bounds[:, n]))) for n in range(2))
    return spearman, kendall


def text(found: Advice) -> str:
    """Return the advice for a terminal of 80 columns."""
    lines = wrapped(found.line)
    if found.splits:
        lines += ["", f"{'ranked by CV':{_NAME}} {'pairs':>5}  {'Spearman 95 %':21} Kendall 95 %"]
        lines += [_rank(split) for split in found.splits]
        lines += [_rank(choice) for choice in found.choices]
        alike, orders = found.epochs
        lines.append(f"epochs of one training: {alike} of {orders} twos in the leaderboard's order")
    if found.compared:
        lines += ["", power.text(found.compared)]
    for note in found.notes:
        lines += wrapped(note)
    return "\n".join([*lines, *wrapped(f"next: {found.next}")])


def _first(ranked: Sequence[Ranked]) -> str:
    best, others = best_of(ranked), as_good(ranked)
    if not best:
        return "too few pairs of one kind"
    return f"{best} (but {', '.join(others)} may do as well)" if others else best


def _choices() -> list[tuple[str, str, Callable[[list[EpochScore]], EpochScore]]]:
    """Return what each choice is called, the measure it reads, and what picks the epoch."""
    best = [(f"best epoch by {name}", name, partial(_best, measure=name)) for name in MEASURES]
    return [("last epoch", "all", _last), *best]


def _best(group: list[EpochScore], measure: str) -> EpochScore:
    return max(group, key=lambda item: item.cv[measure])


def _last(group: list[EpochScore]) -> EpochScore:
    return max(group, key=lambda item: item.number)


def _ranked(what: str, rows: Sequence[EpochScore], measure: str) -> Ranked:
    if len(rows) < LEAST:
        return Ranked(what, len(rows), None, None)
    cv = np.array([row.cv[measure] for row in rows])
    score = np.array([row.score for row in rows], dtype=np.float64)
    found = correlate(cv, score, [row.training for row in rows])
    return Ranked(what, len(rows), *(found or (None, None)))


def _correlations(x: Floats, y: Floats) -> Floats:
    """Return rho and tau-b, both NaN where a side is all ties."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.array([np.nan, np.nan])
    rho = np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]
    a, b = (np.sign(one[:, None] - one[None, :]) for one in (x, y))
    return np.array([rho, np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))])


def _rank(one: Ranked) -> str:
    name = f"{one.what[:_NAME]:{_NAME}} {one.pairs:5d}"
    if one.spearman is None or one.kendall is None:
        why = "too few pairs" if one.pairs < LEAST else "all ties"
        return f"{name}  {why}"
    told = (
        f"{it.value:+.2f} ({it.low:+.2f}, {it.high:+.2f})" for it in (one.spearman, one.kendall)
    )
    return f"{name}  {' '.join(told)}"
