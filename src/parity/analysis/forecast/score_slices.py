"""Summarize a CV by seen and unseen rows, with the sampling variance of both means.

Scores of rows with one label are correlated, and so are scores of rows of one subject: a validation
set is a sample of labels and subjects as much as of questions. On competitions cut from one table,
intervals by question alone were too narrow by half; those by label and subject were right.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.competition.query import Qrels, QueryId, unit_of
from parity.run.errors import BadData

Floats = NDArray[np.float64]
SEEN, UNSEEN = 0, 1
"""Indices of the two slices."""


@dataclass(frozen=True, slots=True)
class ScoreSlices:
    """Seen and unseen mean of one CV.

    Attributes:
        mean: mean score of seen and of unseen rows, (2,) float64.
        variance: sampling variance of the means, (2,) float64.
        rows: number of rows of each slice, (2,) int64.
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
        qrels: labels of these rows; a row with several labels counts with the smallest one.
        unseen: rows whose labels are not in the model's training data.
        subjects: subject of each row.

    Raises:
        BadData: all rows are seen, or all are unseen.

    Source: the variance of means over two-way clusters, Cameron, Gelbach and Miller 2011: by
    label + by subject - by row; at least the variance by question alone.
    """
    rows = sorted(values)  # sums must not depend on the order of the input
    value = np.array([values[row] for row in rows])
    column = np.array([UNSEEN if row in unseen else SEEN for row in rows])
    count = np.bincount(column, minlength=2)
    if not count.all():
        raise BadData(f"no row of this CV is {'seen' if count[UNSEEN] else 'unseen'}")
    mean = np.bincount(column, value) / count
    influence = (value - mean[column]) / count[column]
    by_question, by_label, by_subject, by_row = (
        _clustered(influence, column, names)
        for names in (
            map(unit_of, rows),
            (min(qrels[row]) for row in rows),
            (subjects[row] for row in rows),
            rows,
        )
    )
    return ScoreSlices(mean, np.maximum(by_label + by_subject - by_row, by_question), count)


def _clustered(influence: Floats, column: NDArray[np.int64], names: Iterable[Hashable]) -> Floats:
    """Return the variance of both means, clustered by name, (2,)."""
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    variance = np.zeros(2)
    for slice_ in (SEEN, UNSEEN):
        rows = column == slice_
        groups = len(np.unique(index[rows]))
        sums = np.bincount(index[rows], influence[rows])
        variance[slice_] = np.sum(sums**2) * groups / max(groups - 1, 1)
    return variance
