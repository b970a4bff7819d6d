"""A CV's two means, and how far another sample could be from them."""

import numpy as np
import pytest

from parity.analysis.forecast import score_slices
from parity.analysis.forecast.score_slices import SEEN, UNSEEN
from parity.competition.query import MisconceptionId, Qrels, QueryId
from parity.run.errors import BadData

ROWS = [QueryId(f"{question}_{answer}") for question in range(4) for answer in "AB"]
ALONE: Qrels = {row: frozenset({MisconceptionId(n)}) for n, row in enumerate(ROWS)}
HIDDEN = frozenset(row for row in ROWS if row.endswith("B"))
APART = {row: row for row in ROWS}
VALUES = dict(zip(ROWS, (0.0, 1.0, 0.5, 0.25, 1.0, 0.0, 0.5, 0.25), strict=True))


def test_means_and_variance_by_hand_where_every_row_stands_alone() -> None:
    found = score_slices.of(VALUES, ALONE, HIDDEN, APART)
    seen, unseen = np.array([0, 0.5, 1, 0.5]), np.array([1, 0.25, 0, 0.25])
    assert found.mean.tolist() == [seen.mean(), unseen.mean()]
    assert found.rows.tolist() == [4, 4]
    assert found.variance == pytest.approx([seen.var(ddof=1) / 4, unseen.var(ddof=1) / 4])


@pytest.mark.parametrize("by", ["misconception", "subject", "question"])
def test_rows_that_go_together_are_as_one(by: str) -> None:
    """Two rows of one name and one value say no more than one of them does."""
    rows = [QueryId(f"{n // 2 if by == 'question' else n}_{'AB'[n % 2]}") for n in range(40)]
    values = {row: float(n // 2 % 3) / 2 for n, row in enumerate(rows)}
    hidden = frozenset(rows[20:])
    qrels: Qrels = {
        row: frozenset({MisconceptionId(n // 2 if by == "misconception" else n)})
        for n, row in enumerate(rows)
    }
    subjects = {row: n // 2 if by == "subject" else n for n, row in enumerate(rows)}
    found = score_slices.of(values, qrels, hidden, subjects)
    for column, part in ((SEEN, range(0, 20, 2)), (UNSEEN, range(20, 40, 2))):
        one = np.array([values[rows[n]] for n in part])
        assert found.variance[column] == pytest.approx(one.var(ddof=1) / len(one))


def test_never_surer_than_by_question() -> None:
    """One subject for all says nothing, and must not take away what questions say."""
    found = score_slices.of(VALUES, ALONE, HIDDEN, dict.fromkeys(ROWS, 0))
    assert (found.variance >= score_slices.of(VALUES, ALONE, HIDDEN, APART).variance - 1e-12).all()


def test_order_does_not_matter() -> None:
    one = score_slices.of(VALUES, ALONE, HIDDEN, APART)
    other = score_slices.of(dict(reversed(VALUES.items())), ALONE, HIDDEN, APART)
    assert one.mean.tolist() == other.mean.tolist()
    assert one.variance.tolist() == other.variance.tolist()


@pytest.mark.parametrize(("hidden", "told"), [(frozenset(ROWS), "seen"), (frozenset(), "unseen")])
def test_refuses_a_cv_of_one_slice(hidden: frozenset[QueryId], told: str) -> None:
    with pytest.raises(BadData, match=f"no row of this CV is {told}$"):
        score_slices.of(VALUES, ALONE, hidden, APART)
