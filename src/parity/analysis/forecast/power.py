"""Test whether CVs distinguish runs, and how many rows would be needed."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from parity.competition.query import QueryId, unit_of
from parity.competition.scoring.bootstrap import Interval, estimate
from parity.run.config.scoring import ScoringConfig

POWER = 0.8
"""Power of the needed rows: how often they show a difference as large as the measured one."""
_LEVEL = 0.975  # two-sided 95 %
_NAME = 17  # columns of a run's name
_MOST = 999_999  # rows; more are printed as over a million


@dataclass(frozen=True, slots=True)
class PairPower:
    """Comparison of two runs by their CVs.

    Attributes:
        a: name of the run with the higher CV.
        b: name of the other run.
        rows: number of scored rows.
        difference: difference of MAP over all rows, with its 95 % interval.
        needed: rows that show the difference with 80 % power; None where it is 0.
    """

    a: str
    b: str
    rows: int
    difference: Interval
    needed: int | None

    @property
    def is_decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.difference.low > 0 or self.difference.high < 0


def compare(
    a: tuple[str, Mapping[QueryId, float]],
    b: tuple[str, Mapping[QueryId, float]],
    scoring: ScoringConfig,
) -> PairPower:
    """Return the comparison of two runs' CVs on the same rows.

    Args:
        a: name and average precision of each row.
        b: the same for the other run, on the same rows.
        scoring: bootstrap draws and seed.
    """
    differences = {row: value - b[1][row] for row, value in a[1].items()}
    interval = estimate(differences, frozenset(), scoring).all
    rows = needed(spread(differences), interval.value)
    return PairPower(a[0], b[0], len(differences), interval, rows)


def unpaired(a: tuple[str, float], b: tuple[str, float], rows: int, deviation: float) -> PairPower:
    """Return the comparison of two scores without their rows, as if the rows were independent.

    Args:
        a: name and MAP.
        b: the same for the other run.
        rows: number of rows that each was scored on.
        deviation: standard deviation of a row's average precision.
    """
    difference, of_row = a[1] - b[1], deviation * math.sqrt(2)
    half = float(stats.norm.ppf(_LEVEL)) * of_row / math.sqrt(rows)
    interval = Interval(difference, difference - half, difference + half)
    return PairPower(a[0], b[0], rows, interval, needed(of_row, difference))


def spread(differences: Mapping[QueryId, float]) -> float:
    """Return the standard deviation per row that gives the standard error of the mean.

    Rows of one question go together: it is the square root of n times the variance of the mean,
    the sum over questions of (sum of the rows' deviations)², by n².

    Source: the linearized variance of a mean over clusters (Cochran 1977, section 9A).
    """
    mean = math.fsum(differences.values()) / len(differences)
    sums: dict[str, float] = defaultdict(float)
    for row in sorted(differences):
        sums[unit_of(row)] += differences[row] - mean
    return math.sqrt(math.fsum(total**2 for total in sums.values()) / len(differences))


def needed(deviation: float, difference: float) -> int | None:
    """Return the rows that show a difference at 95 % with a power of 80 %.

    n = ((z_.975 + z_.8) · sd / difference)²; None where the difference is 0.

    >>> needed(0.4, 0.02), needed(0.4, 0.0)
    (3140, None)
    """
    if not difference:
        return None
    z = float(stats.norm.ppf(_LEVEL) + stats.norm.ppf(POWER))
    return math.ceil((z * deviation / difference) ** 2)


def text(compared: Sequence[PairPower]) -> str:
    """Return the comparisons as a table, at most 80 columns wide."""
    undecided = sum(not pair.is_decided for pair in compared)
    return "\n".join(
        [
            f"{'better by CV':{_NAME}} {'than':{_NAME}} {'rows':>6}  {'by, 95 %':24} needed",
            *map(_line, compared),
            f"{undecided} of {len(compared)} not decided by these rows (?)",
            f"needed rows: ((z.975 + z.8) sd / difference)^2, for a power of {POWER:.0%}",
        ]
    )


def _line(pair: PairPower) -> str:
    interval = pair.difference
    text = f"{interval.value:+.4f} ({interval.low:+.3f}, {interval.high:+.3f})"
    rows = f"{pair.needed:,}" if pair.needed and pair.needed <= _MOST else "over 1e6"
    names = f"{_shortened(pair.a)} {_shortened(pair.b)}"
    return f"{names} {pair.rows:6d}  {text:24} {rows}{'' if pair.is_decided else ' ?'}"


def _shortened(name: str) -> str:
    """Return a name without its middle, because names of one family begin alike."""
    start = (_NAME - 2) // 2
    short = f"{name[:start]}..{name[start + 2 - _NAME :]}"
    return f"{name if len(name) <= _NAME else short:{_NAME}}"
