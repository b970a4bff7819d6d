"""The result of a plan: time and memory against their limits, as JSON, as a table, as an error."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from parity.deploy.planning.costs import CostEstimate
from parity.run.progress import wrap

Fits = Literal["yes", "unsure", "no"]
Unit = Literal["s", "B"]

_HEADER = f"  {'':<12}{'at least':>11}{'likely':>11}{'at most':>11}{'limit':>11}"


@dataclass(frozen=True, slots=True)
class Requirement:
    """How much of a limited resource the run takes.

    Attributes:
        resource: time, GPU memory or host memory.
        unit: seconds or bytes.
        amount: estimate of what the run takes.
        limit: how much the device has.
    """

    resource: str
    unit: Unit
    amount: CostEstimate
    limit: float

    @property
    def fits(self) -> Fits:
        """Return yes if the upper bound fits, unsure if only the lower one does, else no."""
        if self.amount.lower > self.limit:
            return "no"
        return "yes" if self.amount.upper <= self.limit else "unsure"


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """Whether a kernel's run fits its device and its hours.

    Attributes:
        title: one line: run, queries, device, precision.
        tokens: packed tokens of queries, corpus and probe.
        steps: step → seconds, in order.
        requirements: time and memory, each with its limit.
        notes: sources of the numbers, a line each.
        fixes: flags with which the run would fit, if it does not.
    """

    title: str
    tokens: CostEstimate
    steps: dict[str, CostEstimate]
    requirements: tuple[Requirement, ...]
    notes: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()

    @property
    def fits(self) -> Fits:
        """Return the worst result of all requirements."""
        results = {requirement.fits for requirement in self.requirements}
        return "no" if "no" in results else "unsure" if "unsure" in results else "yes"

    def as_json(self) -> dict[str, Any]:
        """Return plain values, in seconds and bytes."""
        rows = [{**asdict(item), "fits": item.fits} for item in self.requirements]
        return {**asdict(self), "requirements": rows, "fits": self.fits}

    def as_text(self) -> str:
        """Return a table, at most 80 columns wide."""
        tokens = _row("tokens", self.tokens, lambda value: f"{value:,.0f}")
        lines = [wrap(self.title), _HEADER, tokens]
        lines += [_row(name, seconds, duration) for name, seconds in self.steps.items()]
        lines += _requirement_rows(self.requirements)
        lines += [wrap(f"  {note}") for note in self.notes]
        return "\n".join([*lines, f"fits: {self.fits}"])


def requirements_table(requirements: Iterable[Requirement]) -> list[str]:
    """Return a header and a line for each requirement, at most 80 columns wide."""
    return [_HEADER, *_requirement_rows(requirements)]


def _requirement_rows(requirements: Iterable[Requirement]) -> Iterator[str]:
    for requirement in requirements:
        unit_format = _format_of(requirement)
        row = _row(requirement.resource, requirement.amount, unit_format)
        yield f"{row}{unit_format(requirement.limit):>11}  {requirement.fits}"


def refusal(plan: KernelPlan) -> str:
    """Return why the run must not start, in one line; empty if it may fit."""
    reasons = [_excess(item) for item in plan.requirements if item.fits == "no"]
    if not reasons:
        return ""
    fixes = " or with ".join(plan.fixes) or "a smaller base"
    return f"{plan.title}: {' and '.join(reasons)}. It may fit with {fixes}"


def _excess(requirement: Requirement) -> str:
    unit_format = _format_of(requirement)
    lower, limit = unit_format(requirement.amount.lower), unit_format(requirement.limit)
    return f"{requirement.resource} is at least {lower} of {limit}"


def _format_of(requirement: Requirement) -> Callable[[float], str]:
    return duration if requirement.unit == "s" else size


def _row(name: str, estimate: CostEstimate, unit_format: Callable[[float], str]) -> str:
    values = (estimate.lower, estimate.expected, estimate.upper)
    return f"  {name:<12}" + "".join(f"{unit_format(value):>11}" for value in values)


def duration(value: float) -> str:
    """Return seconds as text.

    >>> duration(5400), duration(600), duration(90)
    ('1.5 h', '10 min', '90 s')
    """
    if value >= 3600:
        return f"{value / 3600:.1f} h"
    return f"{value / 60:.0f} min" if value > 120 else f"{value:.0f} s"


def size(value: float) -> str:
    """Return bytes as text.

    >>> size(14.2e9)
    '14.20 GB'
    """
    return f"{value / 1e9:.2f} GB"
