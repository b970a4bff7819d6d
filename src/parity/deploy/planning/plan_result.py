"""A plan: whether a kernel's run fits its device and its hours, told before anything is sent."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from parity.deploy.planning.costs import Span
from parity.run.progress import folded

Fits = Literal["yes", "unsure", "no"]
Unit = Literal["s", "B"]

_HEAD = f"  {'':<12}{'at least':>11}{'likely':>11}{'at most':>11}{'limit':>11}"


@dataclass(frozen=True, slots=True)
class Need:
    """What the run takes of one thing that is limited.

    Attributes:
        what: time, GPU memory or host memory.
        unit: seconds or bytes.
        takes: how much.
        limit: how much there is.
    """

    what: str
    unit: Unit
    takes: Span
    limit: float

    @property
    def fits(self) -> Fits:
        """Whether it fits at its upper bound (yes), at a lower one (unsure), or at none (no)."""
        if self.takes.lower > self.limit:
            return "no"
        return "yes" if self.takes.upper <= self.limit else "unsure"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was found.

    Attributes:
        head: one line of what was planned.
        tokens: packed tokens of queries, corpus and probe.
        parts: what the time is made of, seconds, in order.
        needs: time and memory, each against its limit.
        notes: how it was found, a line each.
        mends: flags with which it would fit, where it does not.
    """

    head: str
    tokens: Span
    parts: dict[str, Span]
    needs: tuple[Need, ...]
    notes: tuple[str, ...] = ()
    mends: tuple[str, ...] = ()

    @property
    def fits(self) -> Fits:
        """Whether all of it fits."""
        found = {need.fits for need in self.needs}
        return "no" if "no" in found else "unsure" if "unsure" in found else "yes"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values, in seconds and bytes."""
        needs = [{**asdict(need), "fits": need.fits} for need in self.needs]
        return {**asdict(self), "needs": needs, "fits": self.fits}

    def as_text(self) -> str:
        """Return it for a person, at most 80 columns wide."""
        lines = [folded(self.head), _HEAD, _row("tokens", self.tokens, lambda item: f"{item:,.0f}")]
        lines += [_row(name, span, duration) for name, span in self.parts.items()]
        lines += _needed(self.needs)
        lines += [folded(f"  {note}") for note in self.notes]
        return "\n".join([*lines, f"fits: {self.fits}"])


def needs_table(needs: Iterable[Need]) -> list[str]:
    """Return a heading and a line for each need, at most 80 columns wide."""
    return [_HEAD, *_needed(needs)]


def _needed(needs: Iterable[Need]) -> Iterator[str]:
    for need in needs:
        shown = duration if need.unit == "s" else size
        row = _row(need.what, need.takes, shown)
        yield f"{row}{shown(need.limit):>11}  {need.fits}"


def refusal(plan: Plan) -> str:
    """Return why the run is not to be started, in one line; empty where it may fit."""
    over = [need for need in plan.needs if need.fits == "no"]
    if not over:
        return ""
    why = []
    for need in over:
        shown = duration if need.unit == "s" else size
        why.append(f"{need.what} is at least {shown(need.takes.lower)} of {shown(need.limit)}")
    mends = " or with ".join(plan.mends) or "a smaller base"
    return f"{plan.head}: {' and '.join(why)}; it may fit with {mends}"


def _row(name: str, span: Span, shown: Any) -> str:
    cells = (shown(one) for one in (span.lower, span.expected, span.upper))
    return f"  {name:<12}" + "".join(f"{cell:>11}" for cell in cells)


def duration(value: float) -> str:
    """Return a time for a person.

    >>> duration(5400), duration(600), duration(90)
    ('1.5 h', '10 min', '90 s')
    """
    if value >= 3600:
        return f"{value / 3600:.1f} h"
    return f"{value / 60:.0f} min" if value > 120 else f"{value:.0f} s"


def size(value: float) -> str:
    """Return a size for a person.

    >>> size(14.2e9)
    '14.20 GB'
    """
    return f"{value / 1e9:.2f} GB"
