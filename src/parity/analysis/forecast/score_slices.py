"""What a CV says of seen and of unseen rows, and how far another sample could be from it.

Rows of one misconception stand or fall together, and so do those of one subject: a valid side is a
sample of these as much as of questions. Intervals by question alone were too narrow by half on
competitions cut from one table, those by misconception and subject were right.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.competition.query import Qrels, QueryId
from parity.competition.scoring.bootstrap import question_of
from parity.run.errors import BadData

Floats = NDArray[np.float64]
SEEN, UNSEEN = 0, 1
"""Columns of everything that has one for each slice."""


@dataclass(frozen=True, slots=True)
class ScoreSlices:
    """The two means of one CV.

    Attributes:
        mean: of seen and of unseen rows, (2,) float64.
        variance: of these means over samples of as many rows, (2,) float64.
        rows: of each slice, (2,) int64.
    """

    mean: Floats
    variance: Floats
    rows: NDArray[np.int64]


def of(
    values: Mapping[QueryId, float],
    qrels: Qrels,
    unseen: frozenset[QueryId],
    subjects: Mapping[QueryId, Hashable],
) -> ScoreSlices:
    """Return the slices of a CV.

    Args:
        values: average precision of each row.
        qrels: the labels of these rows; a row with several counts with the smallest id.
        unseen: the rows whose misconceptions the model's training never showed.
        subjects: of each of these rows.

    Raises:
        BadData: no row is seen, or none is unseen.

    Source: the variance of means over two-way clusters, Cameron, Gelbach and Miller 2011: by
    misconception + by subject - by row; never less than by question alone.
    """
    rows = sorted(values)  # sums must not depend on the order the rows came in
    value = np.array([values[row] for row in rows])
    column = np.array([UNSEEN if row in unseen else SEEN for row in rows])
    count = np.bincount(column, minlength=2)
    if not count.all():
        raise BadData(f"no row of this CV is {'seen' if count[UNSEEN] else 'unseen'}")
    mean = np.bincount(column, value) / count
    influence = (value - mean[column]) / count[column]
    by_question, by_kind, by_subject, alone = (
        _clustered(influence, column, names)
        for names in (
            map(question_of, rows),
            (min(qrels[row]) for row in rows),
            (subjects[row] for row in rows),
            rows,
        )
    )
    return ScoreSlices(mean, np.maximum(by_kind + by_subject - alone, by_question), count)


def _clustered(influence: Floats, column: NDArray[np.int64], names: Iterable[Hashable]) -> Floats:
    """Return the variance of both means where rows of one name are drawn together, (2,)."""
    numbers: dict[Hashable, int] = {}
    place = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    variance = np.zeros(2)
    for slice_ in (SEEN, UNSEEN):
        inside = column == slice_
        groups = len(np.unique(place[inside]))
        sums = np.bincount(place[inside], influence[inside])
        variance[slice_] = np.sum(sums**2) * groups / max(groups - 1, 1)
    return variance
