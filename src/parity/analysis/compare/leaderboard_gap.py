"""A score against a number alone, as the leaderboard shows it: is the gap sampling, p, or neither?

Nothing but the number is known of the other side, so that only two causes can be weighed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores

Cause = Literal["sampling", "unseen share", "neither"]
SHARES = (0.15, 0.32)
"""Seen shares that fit the leaderboard's known pairs (list of pitfalls, section H)."""
_BOTH = 2**0.5  # the leaderboard's rows are a sample too, taken to be as many as the valid ones


@dataclass(frozen=True, slots=True)
class GapExplanation:
    """What explains the distance between a CV and a number.

    Attributes:
        cause: the first of sampling and unseen share that does, or neither.
        told: lines for a person.
    """

    cause: Cause
    told: tuple[str, ...]


def explain_gap(scores: Scores, number: float) -> GapExplanation:
    """Weigh a CV against a leaderboard's number.

    Args:
        scores: of the valid rows.
        number: MAP@k on rows nobody here knows.
    """
    whole = scores.all.map
    assert whole is not None  # a score has rows
    lines = [f"CV {_told(whole)}, the number {number:.4f}: {number - whole.value:+.4f}"]
    lines.append(
        "intervals: 95 %, widened as if the leaderboard had as many rows as the valid side"
    )
    if _holds(whole, number):
        return GapExplanation("sampling", (*lines, "within sampling error of the CV"))
    lines.append("beyond sampling error of the CV")
    cause: Cause = "neither"
    if scores.projection is not None:
        p = scores.seen_share
        lines.append(f"projection at p = {p:g}: {_told(scores.projection)}")
        if _holds(scores.projection, number):
            cause = "unseen share"
            lines.append("explained by the share of unseen misconceptions")
    else:
        lines.append("no projection: seen or unseen has no row, so p cannot be weighed")
    lines += _share(scores, number)
    if cause == "neither":
        lines.append("explained neither by sampling nor by the unseen share")
    return GapExplanation(cause, tuple(lines))


def _widened(one: Interval) -> tuple[float, float]:
    return (
        one.value - _BOTH * (one.value - one.low),
        one.value + _BOTH * (one.high - one.value),
    )


def _holds(one: Interval, number: float) -> bool:
    low, high = _widened(one)
    return low <= number <= high


def _told(one: Interval) -> str:
    low, high = _widened(one)
    return f"{one.value:.4f} ({low:.4f} to {high:.4f})"


def _share(scores: Scores, number: float) -> list[str]:
    """Say which p would give the number, and whether that p is likely."""
    seen, unseen = scores.seen.map, scores.unseen.map
    if seen is None or unseen is None or seen.value == unseen.value:
        return []
    p = (number - unseen.value) / (seen.value - unseen.value)
    likely = "within" if SHARES[0] <= p <= SHARES[1] else "outside"
    told = f"seen {seen.value:.4f}, unseen {unseen.value:.4f}: the number wants p = {p:.2f}"
    return [f"{told}, {likely} {SHARES[0]} to {SHARES[1]}" if 0 <= p <= 1 else f"{told}: none"]


def remaining(layers: Mapping[str, str], measured: Collection[str]) -> list[str]:
    """Return what could still be wrong, given what was measured on the way to the leaderboard.

    Args:
        layers: of the record; empty values were never measured.
        measured: kinds of evidence that the ledger has of the same adapter.
    """
    steps = {
        "rehearsal": ("the kernel's script was never rehearsed", "rehearse"),
        "kernel": ("nothing is known of what Kaggle's machine computed", "follow"),
    }
    lines = [
        f"{why}; run: invoke {name}" for kind, (why, name) in steps.items() if kind not in measured
    ]
    blank = [name for name in ("base", "adapter", "texts", "tokens") if not layers.get(name)]
    lines += [f"never measured: {', '.join(blank)}"] if blank else []
    lines.append("the hidden test may differ from train in more than p: subjects, lengths, k")
    return lines
