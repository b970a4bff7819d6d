"""Seen and unseen mean of a CV and their sampling variance."""

import numpy as np
import pytest

from parity.analysis.forecast import score_slices
from parity.analysis.forecast.score_slices import SEEN, UNSEEN
from parity.competition.query import Position, Qrels, QueryId
from parity.run.errors import BadData

ROWS = [QueryId(f"{question}_{answer}") for question in range(4) for answer in "AB"]
LABELS: Qrels = {row: frozenset({Position(n)}) for n, row in enumerate(ROWS)}
HIDDEN = frozenset(row for row in ROWS if row.endswith("B"))
SUBJECTS = {row: row for row in ROWS}
VALUES = dict(zip(ROWS, (0.0, 1.0, 0.5, 0.25, 1.0, 0.0, 0.5, 0.25), strict=True))


def test_means_and_variance_by_hand_for_independent_rows() -> None:
    result = score_slices.of(VALUES, LABELS, HIDDEN, SUBJECTS)
    seen, unseen = np.array([0, 0.5, 1, 0.5]), np.array([1, 0.25, 0, 0.25])
    assert result.mean.tolist() == [seen.mean(), unseen.mean()]
    assert result.rows.tolist() == [4, 4]
    assert result.variance == pytest.approx([seen.var(ddof=1) / 4, unseen.var(ddof=1) / 4])


@pytest.mark.parametrize("by", ["label", "subject", "question"])
def test_rows_of_one_cluster_count_once(by: str) -> None:
    """Two rows of one cluster with equal values add no information."""
    rows = [QueryId(f"{n // 2 if by == 'question' else n}_{'AB'[n % 2]}") for n in range(40)]
    values = {row: float(n // 2 % 3) / 2 for n, row in enumerate(rows)}
    hidden = frozenset(rows[20:])
    qrels: Qrels = {
        row: frozenset({Position(n // 2 if by == "label" else n)}) for n, row in enumerate(rows)
    }
    subjects = {row: n // 2 if by == "subject" else n for n, row in enumerate(rows)}
    result = score_slices.of(values, qrels, hidden, subjects)
    for column, part in ((SEEN, range(0, 20, 2)), (UNSEEN, range(20, 40, 2))):
        clusters = np.array([values[rows[n]] for n in part])
        assert result.variance[column] == pytest.approx(clusters.var(ddof=1) / len(clusters))


def test_the_variance_is_at_least_that_by_question() -> None:
    """A single subject must not reduce the variance between questions."""
    result = score_slices.of(VALUES, LABELS, HIDDEN, dict.fromkeys(ROWS, 0))
    assert (
        result.variance >= score_slices.of(VALUES, LABELS, HIDDEN, SUBJECTS).variance - 1e-12
    ).all()


def test_order_does_not_matter() -> None:
    result = score_slices.of(VALUES, LABELS, HIDDEN, SUBJECTS)
    reordered = score_slices.of(dict(reversed(VALUES.items())), LABELS, HIDDEN, SUBJECTS)
    assert result.mean.tolist() == reordered.mean.tolist()
    assert result.variance.tolist() == reordered.variance.tolist()


@pytest.mark.parametrize(("hidden", "slice_"), [(frozenset(ROWS), "seen"), (frozenset(), "unseen")])
def test_a_cv_without_seen_or_unseen_rows_is_refused(
    hidden: frozenset[QueryId], slice_: str
) -> None:
    with pytest.raises(BadData, match=f"no row of this CV is {slice_}$"):
        score_slices.of(VALUES, LABELS, hidden, SUBJECTS)
