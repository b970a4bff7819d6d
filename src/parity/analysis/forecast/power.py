"""Which runs their CVs tell apart on so many rows, and how many rows would."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import Interval, estimate, question_of
from parity.run.config.run_file import ScoringConfig

POWER = 0.8
"""How often the rows that are said to be needed show a difference as large as the one seen."""
_LEVEL = 0.975  # two-sided 95 %
_SIDE = 17  # columns of a run's name
_MOST = 999_999  # rows; more are told as over a million


@dataclass(frozen=True, slots=True)
class PairPower:
    """Two runs by their CVs on the same rows.

    Attributes:
        a: name of the better by its CV.
        b: name of the other.
        rows: how many were scored.
        difference: of MAP over all rows, with its 95 % interval.
        needed: rows that would show it four times in five; None where there is no difference.
    """

    a: str
    b: str
    rows: int
    difference: Interval
    needed: int | None

    @property
    def decided(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.difference.low > 0 or self.difference.high < 0


def compare(
    a: tuple[str, Mapping[QueryId, float]],
    b: tuple[str, Mapping[QueryId, float]],
    scoring: ScoringConfig,
) -> PairPower:
    """Return whether two runs' CVs on the same rows tell them apart.

    Args:
        a: name and average precision of each row.
        b: the same, of the same rows.
        scoring: bootstrap draws and seed.
    """
    apart = {row: value - b[1][row] for row, value in a[1].items()}
    found = estimate(apart, frozenset(), scoring).all
    return PairPower(a[0], b[0], len(apart), found, needed(spread(apart), found.value))


def unpaired(a: tuple[str, float], b: tuple[str, float], rows: int, deviation: float) -> PairPower:
    """Return the same of two scores alone, as if their rows were not the same.

    Args:
        a: name and MAP.
        b: the same.
        rows: how many each was scored on.
        deviation: of a single row's average precision.
    """
    apart, wide = a[1] - b[1], deviation * math.sqrt(2)
    half = float(stats.norm.ppf(_LEVEL)) * wide / math.sqrt(rows)
    found = Interval(apart, apart - half, apart + half)
    return PairPower(a[0], b[0], rows, found, needed(wide, apart))


def spread(apart: Mapping[QueryId, float]) -> float:
    """Return the standard deviation of a row's difference that the mean's error follows from.

    Rows of one question go together: it is the square root of n times the variance of the mean,
    the sum over questions of (sum of the rows' deviations)², by n².

    Source: the linearised variance of a mean over clusters (Cochran 1977, section 9A).
    """
    mean = math.fsum(apart.values()) / len(apart)
    sums: dict[str, float] = defaultdict(float)
    for row in sorted(apart):
        sums[question_of(row)] += apart[row] - mean
    return math.sqrt(math.fsum(one**2 for one in sums.values()) / len(apart))


def needed(deviation: float, difference: float) -> int | None:
    """Return the rows at which a difference is shown four times in five, at 95 %.

    n = ((z_.975 + z_.8) · sd / difference)²; None where there is none.

    >>> needed(0.4, 0.02), needed(0.4, 0.0)
    (3140, None)
    """
    if not difference:
        return None
    both = float(stats.norm.ppf(_LEVEL) + stats.norm.ppf(POWER))
    return math.ceil((both * deviation / difference) ** 2)


def text(compared: Sequence[PairPower]) -> str:
    """Return the comparisons as a table, at most 80 columns wide."""
    open_ = sum(not one.decided for one in compared)
    return "\n".join(
        [
            f"{'better by CV':{_SIDE}} {'than':{_SIDE}} {'rows':>6}  {'by, 95 %':24} needed",
            *map(_line, compared),
            f"{open_} of {len(compared)} not decided by these rows (?)",
            f"needed rows: ((z.975 + z.8) sd / difference)^2, for a power of {POWER:.0%}",
        ]
    )


def _line(one: PairPower) -> str:
    apart = one.difference
    told = f"{apart.value:+.4f} ({apart.low:+.3f}, {apart.high:+.3f})"
    rows = f"{one.needed:,}" if one.needed and one.needed <= _MOST else "over 1e6"
    sides = f"{_cut(one.a)} {_cut(one.b)}"
    return f"{sides} {one.rows:6d}  {told:24} {rows}{'' if one.decided else ' ?'}"


def _cut(name: str) -> str:
    """Leave out the middle: names of one family begin alike."""
    start = (_SIDE - 2) // 2
    short = f"{name[:start]}..{name[start + 2 - _SIDE :]}"
    return f"{name if len(name) <= _SIDE else short:{_SIDE}}"
