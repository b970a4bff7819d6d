"""Explain the gap between a CV and a leaderboard score: sampling error, the seen share, or neither.

Of the leaderboard only the number is known, so that only these two causes can be checked.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores

Cause = Literal["sampling", "unseen share", "neither"]
SHARES = (0.15, 0.32)
"""Range of seen shares that fits the known pairs of CV and leaderboard (pitfalls, section H)."""
_WIDENING = 2**0.5  # the leaderboard is a sample too, assumed to have as many rows as validation
_STAGES = {
    "rehearsal": ("the ledger has no rehearsal of the kernel's script", "rehearse"),
    "kernel": ("the ledger has no record of the kernel on Kaggle", "follow"),
}
"""Kind of evidence → what it means if it is missing, and the stage that adds it."""


@dataclass(frozen=True, slots=True)
class GapExplanation:
    """An explanation of the gap between a CV and a leaderboard score.

    Attributes:
        cause: sampling if it explains the gap, else the unseen share if it does, else neither.
        lines: the explanation as lines of text.
    """

    cause: Cause
    lines: tuple[str, ...]


def explain_gap(scores: Scores, number: float) -> GapExplanation:
    """Compare a CV with a leaderboard score.

    Args:
        scores: scores of the validation rows.
        number: score on the leaderboard's rows.
    """
    mean = scores.all.score
    assert mean is not None  # a score has rows
    lines = [f"CV {_format(mean)}, leaderboard {number:.4f}: {number - mean.value:+.4f}"]
    lines.append(
        "intervals: 95 %, widened as if the leaderboard had as many rows as the validation set"
    )
    if _contains(mean, number):
        return GapExplanation("sampling", (*lines, "within sampling error of the CV"))
    lines.append("beyond sampling error of the CV")
    cause: Cause = "neither"
    if scores.projection is not None:
        lines.append(f"projection at p = {scores.seen_share:g}: {_format(scores.projection)}")
        if _contains(scores.projection, number):
            cause = "unseen share"
            lines.append("explained by the share of unseen labels")
    else:
        lines.append("no projection: no seen or no unseen row, so p has no effect")
    lines += _implied_share(scores, number)
    if cause == "neither":
        lines.append("explained neither by sampling nor by the unseen share")
    return GapExplanation(cause, tuple(lines))


def open_questions(layers: Mapping[str, str], kinds: Collection[str]) -> list[str]:
    """Return possible causes that no measurement has ruled out.

    Args:
        layers: layers of the record; empty values were not measured.
        kinds: kinds of evidence of the same adapter in the ledger.
    """
    lines = [reason for kind, (reason, _) in _STAGES.items() if kind not in kinds]
    unmeasured = [name for name in ("base", "adapter", "texts", "tokens") if not layers.get(name)]
    lines += [f"never measured: {', '.join(unmeasured)}"] if unmeasured else []
    lines.append("the hidden test may differ from train in more than p: subjects, lengths, k")
    return lines


def next_measurement(kinds: Collection[str]) -> tuple[str, ...]:
    """Return the command that adds the first missing kind of evidence; empty if there is none."""
    return next(((stage,) for kind, (_, stage) in _STAGES.items() if kind not in kinds), ())


def _widened(interval: Interval) -> tuple[float, float]:
    return (
        interval.value - _WIDENING * (interval.value - interval.low),
        interval.value + _WIDENING * (interval.high - interval.value),
    )


def _contains(interval: Interval, number: float) -> bool:
    low, high = _widened(interval)
    return low <= number <= high


def _format(interval: Interval) -> str:
    low, high = _widened(interval)
    return f"{interval.value:.4f} ({low:.4f} to {high:.4f})"


def _implied_share(scores: Scores, number: float) -> list[str]:
    """Return a line with the p that would give the number, and whether it is plausible."""
    seen, unseen = scores.seen.score, scores.unseen.score
    if seen is None or unseen is None or seen.value == unseen.value:
        return []
    p = (number - unseen.value) / (seen.value - unseen.value)
    line = (
        f"seen {seen.value:.4f}, unseen {unseen.value:.4f}: the leaderboard score needs p = {p:.2f}"
    )
    if not 0 <= p <= 1:
        return [f"{line}, which is impossible"]
    position = "within" if SHARES[0] <= p <= SHARES[1] else "outside"
    return [f"{line}, {position} {SHARES[0]} to {SHARES[1]}"]
