"""How much of a score gap each layer makes: one layer is swapped after the other, from A to B.

The layers are swapped in the order of `layers.ORDER`, and what was swapped stays swapped, so a part
is what a layer adds to those before it: another order would share what two layers do together in
another way. Rows that one side alone scored are no layer of a model: A's are left out first, B's
come in last, and everything between is compared on the rows of both.

Means are held in whole 2**-40 of MAP. Sums of these are exact in float64, so the parts and the
remainder give the gap to the last digit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import Interval, estimate
from parity.run.config.run_file import ScoringConfig
from parity.run.progress import wrapped

REMAINDER = "remainder"
_GRID = 2.0**40
_NAME = 13  # columns of a layer's name

Values = Mapping[QueryId, float]
"""Average precision of each row."""


@dataclass(frozen=True, slots=True)
class Step:
    """The rows scored anew after a swap.

    Attributes:
        layer: what was swapped; empty where a side was scored anew with nothing swapped, so that
            what moved since the step before is no layer's and goes to the remainder.
        told: what changed, in a few words.
        values: of the rows that both sides scored.
    """

    layer: str
    told: str
    values: Values


@dataclass(frozen=True, slots=True)
class AttributionStep:
    """A layer's part of the gap.

    Attributes:
        layer: its name, `rows` or `REMAINDER`.
        told: what changed.
        part: of the gap, in MAP@k, with its 95 % paired bootstrap interval over questions.
        after: MAP@k once it was swapped.
    """

    layer: str
    told: str
    part: Interval
    after: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """A gap in parts: `start`, and the parts of all rungs, make `end`.

    Attributes:
        k: depth of MAP at which layers were swapped.
        rows: how many rows both sides scored.
        start: MAP@k of A.
        end: MAP@k of B.
        rungs: in the order of the swaps; the last is what no swap explains.
        notes: what could not be swapped and why, a line each.
    """

    k: int
    rows: int
    start: float
    end: float
    rungs: tuple[AttributionStep, ...]
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """MAP@k of B less that of A: exactly the sum of the parts."""
        return self.end - self.start

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "notes": list(self.notes), "gap": self.gap}


def attribute(
    a: Values, b: Values, steps: Sequence[Step], scoring: ScoringConfig, *, k: int = 25
) -> Attribution:
    """Return the parts of the gap between two scores.

    Args:
        a: of all rows that A scored, as its evidence tells.
        b: the same of B.
        steps: A scored anew, then after each swap, on the rows of both; the first has no layer.
            None where nothing can be scored anew: then all of the gap there is the remainder.
        scoring: bootstrap draws and seed.
        k: depth.

    Source: the paired bootstrap of `competition.bootstrap`, whole questions.
    """
    both = a.keys() & b.keys()
    mine, theirs = ({row: one[row] for row in both} for one in (a, b))
    parts = list[tuple[str, str, Interval]]()
    if left := a.keys() - both:
        told = f"{len(left)} rows that A alone scored are left out"
        parts.append(("rows", told, _rows(a, mine, -1, scoring)))
    rest = _minus(theirs, mine)
    for before, step in pairwise(steps):
        if step.layer:
            part = _paired(before.values, step.values, scoring)
            parts.append((step.layer, step.told, part))
            rest = _minus(rest, _minus(step.values, before.values))
    if added := b.keys() - both:
        told = f"{len(added)} rows that B alone scored come in"
        parts.append(("rows", told, _rows(b, theirs, 1, scoring)))
    kept = {row: _snapped(value) for row, value in rest.items()}  # without float's own rest
    bounds = estimate(kept, frozenset(), scoring).all
    rungs = _stacked(_mean(a), _mean(b), parts, bounds)
    return Attribution(k, len(both), _mean(a), _mean(b), rungs)


def of_number(
    a: Values, unseen: frozenset[QueryId], number: float, scoring: ScoringConfig, *, k: int = 25
) -> Attribution:
    """Return what the unseen share makes of the gap between a CV and a leaderboard's number.

    Nothing can be swapped on rows nobody has; but seen and unseen rows can be weighed anew, as p
    of the run file weighs them.

    Args:
        a: of all rows that A scored.
        unseen: the rows whose misconceptions train never shows.
        number: MAP@k as the leaderboard shows it.
        scoring: p, bootstrap draws and seed.
        k: depth.
    """
    parts, notes = list[tuple[str, str, Interval]](), tuple[str, ...]()
    judged = estimate(a, unseen, scoring)
    share = 1 - len(unseen & a.keys()) / len(a)
    known = judged.projection
    if known is None or not 0 < share < 1:
        known = judged.all
        notes = ("no projection: seen or unseen has no row, so p cannot be weighed",)
    else:
        told = f"seen share from {share:.2f} of the CV to p = {scoring.seen_share:g}"
        part = _contrast(a, unseen, share - scoring.seen_share, scoring)
        parts.append(("unseen share", told, replace(part, value=_snapped(part.value))))
    rest = Interval(0.0, number - known.high, number - known.low)
    rungs = _stacked(_mean(a), _snapped(number), parts, rest)
    return Attribution(k, len(a), _mean(a), _snapped(number), rungs, notes)


def text(found: Attribution, a: str, b: str) -> str:
    """Return the ladder for a terminal of 80 columns.

    Args:
        found: the parts.
        a: name of A.
        b: name of B.
    """
    metric = f"MAP@{found.k}"
    lines = [
        *wrapped(f"A  {a}"),
        *wrapped(f"B  {b}"),
        "",
        f"  {'':{_NAME}} {'part':>8}  {'95 %':20} {metric:>7}",
        f"  {'A':{_NAME}} {'':8}  {'':20} {found.start:7.4f}",
    ]
    for rung in found.rungs:
        between = f"{rung.part.low:+.4f} to {rung.part.high:+.4f}"
        lines.append(
            f"  {rung.layer:{_NAME}} {rung.part.value:+8.4f}  {between:20} {rung.after:7.4f}"
        )
        lines += wrapped(rung.told, "      ")
    lines.append(f"  {'B less A':{_NAME}} {found.gap:+8.4f}  {'':20} {found.end:7.4f}")
    lines.append(f"on {found.rows} rows; parts and remainder make the gap exactly")
    for note in found.notes:
        lines += wrapped(note)
    return "\n".join(lines)


def _stacked(
    start: float, end: float, parts: Sequence[tuple[str, str, Interval]], rest: Interval
) -> tuple[AttributionStep, ...]:
    """Return the rungs from A's mean to B's; the last has what is left, within `rest`'s ends."""
    rungs, now = list[AttributionStep](), start
    for layer, told, part in parts:
        now += part.value
        rungs.append(AttributionStep(layer, told, part, now))
    return (*rungs, AttributionStep(REMAINDER, "", replace(rest, value=end - now), end))


def _paired(before: Values, after: Values, scoring: ScoringConfig) -> Interval:
    """Return the change of the mean, with the interval of the rows' changes."""
    bounds = estimate(_minus(after, before), frozenset(), scoring).all
    return replace(bounds, value=_mean(after) - _mean(before))


def _rows(values: Values, kept: Values, sign: int, scoring: ScoringConfig) -> Interval:
    """Return what the rows that one side alone scored do to its mean: left out (-1), or added."""
    odd = frozenset(values.keys() - kept.keys())
    bounds = _contrast(values, odd, sign * len(odd) / len(values), scoring)
    return replace(bounds, value=sign * (_mean(values) - _mean(kept)))


def _contrast(
    values: Values, marked: frozenset[QueryId], weight: float, scoring: ScoringConfig
) -> Interval:
    """Return `weight` times the mean of the marked rows less that of the others.

    By the one bootstrap: with half the weight on either slice, and the others' signs turned, its
    projection is half the difference.
    """
    turned = {row: value if row in marked else -value for row, value in values.items()}
    half = estimate(turned, marked, scoring.model_copy(update={"seen_share": 0.5})).projection
    assert half is not None  # both slices have rows
    low, high = sorted((2 * weight * half.low, 2 * weight * half.high))
    return Interval(2 * weight * half.value, low, high)


def _minus(one: Values, other: Values) -> dict[QueryId, float]:
    return {row: one[row] - other[row] for row in one}


def _mean(values: Values) -> float:
    return _snapped(fmean(values[row] for row in sorted(values)))


def _snapped(value: float) -> float:
    return round(value * _GRID) / _GRID
