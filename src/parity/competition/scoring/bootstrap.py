"""Means with 95 % intervals, by resampling whole units.

Rows of one unit (such as a question) share texts, so they are drawn together; drawing
rows would make the intervals too narrow.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.competition.query import QueryId, unit_of
from parity.run.config.scoring import ScoringConfig
from parity.run.errors import BadData

_BOUNDS = (2.5, 97.5)  # percentiles of a 95 % interval

Totals = NDArray[np.float64]
"""(n, 4) float64: sum over seen rows, seen rows, sum over unseen rows, unseen rows."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % bootstrap interval over units."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Return plain values; `from_json` gives the same interval back, bit for bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Any) -> "Interval":
        """Return what `as_json` was given.

        Raises:
            BadData: other keys than value, low and high.
        """
        return cls(**checked(record, ("value", "low", "high"), "an interval"))


@dataclass(frozen=True, slots=True)
class Estimate:
    """One measure over all rows and by slice; None where a slice has no row.

    Attributes:
        projection: p·seen + (1-p)·unseen; None where a slice that counts has no row.
        fewest: units in the smallest slice that has a row and a share in the projection.
    """

    all: Interval
    seen: Interval | None
    unseen: Interval | None
    projection: Interval | None
    fewest: int


def estimate(
    values: Mapping[QueryId, float], unseen: frozenset[QueryId], scoring: ScoringConfig
) -> Estimate:
    """Return the means of `values` over all, seen and unseen rows, and their projection.

    The order of `values` does not matter. A resample in which a slice happens to have no row says
    nothing about that slice and is left out of its interval.

    Args:
        values: one number for each row, at least one row.
        unseen: the rows whose labels train never shows.
        scoring: seen share p, number of resamples, seed.

    Source: the cluster bootstrap, percentile form (Davison and Hinkley 1997, sections 3.8, 5.3).
    """
    totals = _by_unit(values, unseen)
    generator = np.random.default_rng(scoring.seed)
    count = len(totals)
    draws = (generator.integers(count, size=count) for _ in range(scoring.bootstrap))
    resampled = np.stack([totals[drawn].sum(axis=0) for drawn in draws])
    point = _means(totals.sum(axis=0, keepdims=True), scoring.seen_share)[0]
    spread = _means(resampled, scoring.seen_share)
    overall, seen, unseen_mean, projection = (
        _interval(point[column], spread[:, column]) for column in range(point.size)
    )
    assert overall is not None  # every resample has a row
    return Estimate(overall, seen, unseen_mean, projection, _fewest(totals, scoring.seen_share))


def checked(record: Any, keys: tuple[str, ...], name: str) -> dict[str, Any]:
    """Return `record` if it is an object with exactly these keys.

    Raises:
        BadData: it is not; the message names `name` and the keys.
    """
    if not isinstance(record, dict) or set(record) != set(keys):
        actual = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise BadData(f"{name} needs the keys {sorted(keys)}; found {actual}")
    return record


def optional_json(interval: Interval | None) -> dict[str, float] | None:
    """Return the plain values of an interval, or None."""
    return None if interval is None else interval.as_json()


def optional_interval(record: Any) -> Interval | None:
    """Return what `optional_json` was given."""
    return None if record is None else Interval.from_json(record)


def _by_unit(values: Mapping[QueryId, float], unseen: frozenset[QueryId]) -> Totals:
    index_of: dict[str, int] = {}
    rows = sorted(values)  # sums must not depend on the order the rows came in
    of_row = [index_of.setdefault(unit_of(row), len(index_of)) for row in rows]
    totals = np.zeros((len(index_of), 4))
    for row, index in zip(rows, of_row, strict=True):
        column = 2 if row in unseen else 0
        totals[index, column] += values[row]
        totals[index, column + 1] += 1
    return totals


def _means(totals: Totals, seen_share: float) -> NDArray[np.float64]:
    seen_sum, seen_rows, unseen_sum, unseen_rows = totals.T
    seen = _ratio(seen_sum, seen_rows)
    unseen = _ratio(unseen_sum, unseen_rows)
    if seen_share in (0.0, 1.0):  # the other slice does not count and may be empty
        projection = seen if seen_share else unseen
    else:
        projection = seen_share * seen + (1 - seen_share) * unseen
    overall = _ratio(seen_sum + unseen_sum, seen_rows + unseen_rows)
    return np.stack([overall, seen, unseen, projection], axis=1)  # (n, 4), NaN where empty


def _fewest(totals: Totals, seen_share: float) -> int:
    shares = {1: seen_share, 3: 1 - seen_share}
    sizes = [int(np.count_nonzero(totals[:, column])) for column, share in shares.items() if share]
    return min((size for size in sizes if size), default=len(totals))


def _ratio(sums: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(sums, rows, out=np.full_like(sums, np.nan), where=rows > 0)


def _interval(value: np.float64, drawn: NDArray[np.float64]) -> Interval | None:
    if np.isnan(value):
        return None
    low, high = np.percentile(drawn[~np.isnan(drawn)], _BOUNDS)
    return Interval(float(value), float(low), float(high))
