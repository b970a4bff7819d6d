"""The probe: a few fixed queries that compare environments; never a CV score."""

from collections.abc import Iterable

from parity.competition.query import Query, UnitId
from parity.run import digest

SIZE = 64


def choose(queries: Iterable[Query], size: int = SIZE) -> list[Query]:
    """Return one query each of `size` units, picked by the hash of the unit's id.

    They may lie on either side of any split: a probe is compared, never scored as a CV.

    Args:
        queries: all labeled queries.
        size: number of units; all of them if there are fewer.

    Returns:
        The first query of each unit, in the competition's order.
    """
    first: dict[UnitId, Query] = {}
    for query in sorted(queries, key=lambda query: query.order):
        first.setdefault(query.unit, query)
    units = sorted(first, key=digest.of_text)[:size]
    return sorted((first[unit] for unit in units), key=lambda query: query.order)
