"""Attribute a score gap to layers: swap one layer after the other from A to B and score each time.

Layers are swapped in causal order (`run.layers`) and stay swapped, so that a layer's part is what
it adds to those before it; another order would divide joint effects differently. Rows that only
one side scored belong to no layer: A's are left out first, B's are added last, and everything
between is compared on the common rows.

Means are rounded to multiples of 2**-40. Sums of these are exact in float64, so parts and
remainder add up to the gap exactly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import Interval, estimate
from parity.run.config.scoring import ScoringConfig
from parity.run.progress import wrap_lines

REMAINDER = "remainder"
_GRID = 2.0**40
_NAME = 13  # columns of a layer's name

Values = Mapping[QueryId, float]
"""Row → its score by the metric."""


@dataclass(frozen=True, slots=True)
class Swap:
    """The scores of the common rows after a swap.

    Attributes:
        layer: layer that was swapped; empty if a side was scored again without a swap, whose change
            belongs to no layer and goes to the remainder.
        change: what the swap changed, in a few words.
        values: scores of the common rows.
    """

    layer: str
    change: str
    values: Values


@dataclass(frozen=True, slots=True)
class AttributionStep:
    """A layer's part of the gap.

    Attributes:
        layer: name of the layer, `rows` or `REMAINDER`.
        change: what changed.
        part: part of the gap in the metric, with its 95 % paired bootstrap interval over questions.
        after: mean score after the swap.
    """

    layer: str
    change: str
    part: Interval
    after: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """A gap in parts: `start` plus the parts of all steps is `end`.

    Attributes:
        metric: name of the metric, such as MAP@25.
        rows: number of rows that both sides scored.
        start: mean score of A.
        end: mean score of B.
        steps: parts in the order of the swaps; the last is the remainder.
        notes: lines on layers that could not be swapped, and why.
    """

    metric: str
    rows: int
    start: float
    end: float
    steps: tuple[AttributionStep, ...]
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """Return the score of B minus that of A, exactly the sum of the parts."""
        return self.end - self.start

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "notes": list(self.notes), "gap": self.gap}


def attribute(
    a: Values, b: Values, swaps: Sequence[Swap], scoring: ScoringConfig, *, metric: str
) -> Attribution:
    """Return the parts of the gap between two scores.

    Args:
        a: all rows that A scored, as its evidence has them.
        b: all rows that B scored.
        swaps: A scored again, then after each swap, on the common rows; the first has no layer.
            Empty if nothing can be scored again; then the entire gap is the remainder.
        scoring: bootstrap resamples and seed.
        metric: name of the metric.

    Source: the paired bootstrap of `competition.scoring.bootstrap`, whole questions.
    """
    common = a.keys() & b.keys()
    common_a, common_b = ({row: values[row] for row in common} for values in (a, b))
    parts = list[tuple[str, str, Interval]]()
    if only_a := a.keys() - common:
        change = f"{len(only_a)} rows that only A scored are left out"
        parts.append(("rows", change, _rows_part(a, common_a, -1, scoring)))
    remainder = _subtract(common_b, common_a)
    for before, swap in pairwise(swaps):
        if swap.layer:
            parts.append((swap.layer, swap.change, _paired(before.values, swap.values, scoring)))
            remainder = _subtract(remainder, _subtract(swap.values, before.values))
    if only_b := b.keys() - common:
        change = f"{len(only_b)} rows that only B scored are added"
        parts.append(("rows", change, _rows_part(b, common_b, 1, scoring)))
    rounded = {row: _round(value) for row, value in remainder.items()}  # drop float error
    bounds = estimate(rounded, frozenset(), scoring).all
    steps = _cumulate(_mean(a), _mean(b), parts, bounds)
    return Attribution(metric, len(common), _mean(a), _mean(b), steps)


def of_number(
    a: Values, unseen: frozenset[QueryId], number: float, scoring: ScoringConfig, *, metric: str
) -> Attribution:
    """Return the part of the unseen share in the gap between a CV and a leaderboard score.

    Hidden rows cannot be scored again, so no layer can be swapped; but seen and unseen rows can be
    weighted by the p of the run file.

    Args:
        a: all rows that A scored.
        unseen: rows with a label that never occurs in train.
        number: score on the leaderboard.
        scoring: p, bootstrap resamples and seed.
        metric: name of the metric.
    """
    parts, notes = list[tuple[str, str, Interval]](), tuple[str, ...]()
    cv = estimate(a, unseen, scoring)
    share = 1 - len(unseen & a.keys()) / len(a)
    expected = cv.projection
    if expected is None or not 0 < share < 1:
        expected = cv.all
        notes = ("no projection: no seen or no unseen row, so p has no effect",)
    else:
        change = f"seen share from {share:.2f} of the CV to p = {scoring.seen_share:g}"
        part = _contrast(a, unseen, share - scoring.seen_share, scoring)
        parts.append(("unseen share", change, replace(part, value=_round(part.value))))
    bounds = Interval(0.0, number - expected.high, number - expected.low)
    steps = _cumulate(_mean(a), _round(number), parts, bounds)
    return Attribution(metric, len(a), _mean(a), _round(number), steps, notes)


def text(attribution: Attribution, a: str, b: str) -> str:
    """Return the attribution as a table for a terminal of 80 columns.

    Args:
        attribution: the parts.
        a: name of A.
        b: name of B.
    """
    lines = [
        *wrap_lines(f"A  {a}"),
        *wrap_lines(f"B  {b}"),
        "",
        f"  {'':{_NAME}} {'part':>8}  {'95 %':20} {attribution.metric:>7}",
        f"  {'A':{_NAME}} {'':8}  {'':20} {attribution.start:7.4f}",
    ]
    for step in attribution.steps:
        bounds = f"{step.part.low:+.4f} to {step.part.high:+.4f}"
        lines.append(
            f"  {step.layer:{_NAME}} {step.part.value:+8.4f}  {bounds:20} {step.after:7.4f}"
        )
        lines += wrap_lines(step.change, "      ")
    lines.append(f"  {'B minus A':{_NAME}} {attribution.gap:+8.4f}  {'':20} {attribution.end:7.4f}")
    lines.append(f"on {attribution.rows} rows; parts and remainder add up to the gap exactly")
    for note in attribution.notes:
        lines += wrap_lines(note)
    return "\n".join(lines)


def _cumulate(
    start: float, end: float, parts: Sequence[tuple[str, str, Interval]], bounds: Interval
) -> tuple[AttributionStep, ...]:
    """Return the steps from A's mean to B's; the last is the remainder, with these bounds."""
    steps, mean = list[AttributionStep](), start
    for layer, change, part in parts:
        mean += part.value
        steps.append(AttributionStep(layer, change, part, mean))
    return (*steps, AttributionStep(REMAINDER, "", replace(bounds, value=end - mean), end))


def _paired(before: Values, after: Values, scoring: ScoringConfig) -> Interval:
    """Return the change of the mean with the interval of the rows' changes."""
    bounds = estimate(_subtract(after, before), frozenset(), scoring).all
    return replace(bounds, value=_mean(after) - _mean(before))


def _rows_part(values: Values, common: Values, sign: int, scoring: ScoringConfig) -> Interval:
    """Return the effect of rows that one side scored alone: left out (-1) or added (+1)."""
    extra = frozenset(values.keys() - common.keys())
    bounds = _contrast(values, extra, sign * len(extra) / len(values), scoring)
    return replace(bounds, value=sign * (_mean(values) - _mean(common)))


def _contrast(
    values: Values, marked: frozenset[QueryId], weight: float, scoring: ScoringConfig
) -> Interval:
    """Return `weight` times the difference in mean between marked and unmarked rows.

    Uses the same bootstrap: with equal weights on both slices, and the sign of unmarked rows
    flipped, its projection is half the difference.
    """
    flipped = {row: value if row in marked else -value for row, value in values.items()}
    half = estimate(flipped, marked, scoring.model_copy(update={"seen_share": 0.5})).projection
    assert half is not None  # both slices have rows
    low, high = sorted((2 * weight * half.low, 2 * weight * half.high))
    return Interval(2 * weight * half.value, low, high)


def _subtract(a: Values, b: Values) -> dict[QueryId, float]:
    return {row: a[row] - b[row] for row in a}


def _mean(values: Values) -> float:
    return _round(fmean(values[row] for row in sorted(values)))


def _round(value: float) -> float:
    return round(value * _GRID) / _GRID
