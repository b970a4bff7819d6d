"""A ranking comes back to the last bit, and its digest is of ids alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from parity.competition import ranking
from parity.competition.query import QueryId
from parity.competition.ranking import Positions, Ranking, Scores

few_examples = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SMALL = Ranking(
    (QueryId("10_B"), QueryId("11_A")),
    np.array([[3, 1, 2], [9, 7, 0]], dtype=np.int64),
    np.array([[0.9, 0.5, 0.1], [0.1, 0.1, -1.0]], dtype=np.float32),
)


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    """Return what a retriever may answer, down to no query and no column."""
    rows, columns = draw(st.integers(0, 4)), draw(st.integers(0, 5))
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    ids = draw(st.lists(st.integers(0, 2**62), min_size=rows * columns, max_size=rows * columns))
    scores = draw(st.lists(floats, min_size=rows * columns, max_size=rows * columns))
    return Ranking(
        tuple(QueryId(f"{number}_A") for number in range(rows)),
        np.array(ids, dtype=np.int64).reshape(rows, columns),
        np.array(scores, dtype=np.float32).reshape(rows, columns),
    )


@few_examples
@given(rankings())
def test_what_was_written_comes_back_to_the_last_bit(tmp_path: Path, expected: Ranking) -> None:
    ranking.write(tmp_path / "ranking.jsonl", expected)
    read = ranking.read(tmp_path / "ranking.jsonl")
    assert read.query_ids == expected.query_ids
    assert read.positions.dtype == np.int64
    assert read.scores.dtype == np.float32
    assert read.positions.tobytes() == expected.positions.tobytes()
    assert read.scores.tobytes() == expected.scores.tobytes()
    assert read.digest() == expected.digest()
    if expected.query_ids:
        assert read.positions.shape == read.scores.shape == expected.positions.shape


@few_examples
@given(rankings())
def test_equal_rankings_have_equal_files(tmp_path: Path, expected: Ranking) -> None:
    ranking.write(tmp_path / "one.jsonl", expected)
    ranking.write(tmp_path / "two.jsonl", ranking.read(tmp_path / "one.jsonl"))
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_a_ranking_of_nothing_can_be_read(tmp_path: Path) -> None:
    none: tuple[Positions, Scores] = np.zeros((0, 25), np.int64), np.zeros((0, 25), np.float32)
    ranking.write(tmp_path / "ranking.jsonl", Ranking((), *none))
    assert ranking.read(tmp_path / "ranking.jsonl").positions.size == 0


@given(rankings(), st.floats(-4, 4, width=32))
def test_the_digest_leaves_scores_out(expected: Ranking, noise: float) -> None:
    assert (
        replace(expected, scores=expected.scores + np.float32(noise)).digest() == expected.digest()
    )


@given(rankings(), rankings())
def test_other_ids_have_another_digest(first: Ranking, other: Ranking) -> None:
    assume(
        first.positions.tolist() != other.positions.tolist() or first.query_ids != other.query_ids
    )
    assert first.digest() != other.digest()


@pytest.mark.parametrize(
    "changed",
    [
        replace(SMALL, query_ids=SMALL.query_ids[::-1]),
        replace(SMALL, positions=SMALL.positions[:, ::-1]),
        replace(SMALL, positions=SMALL.positions[::-1]),
        SMALL.top(2),
    ],
    ids=["queries", "order", "rows", "depth"],
)
def test_the_order_of_queries_and_ids_is_in_the_digest(changed: Ranking) -> None:
    assert changed.digest() != SMALL.digest()


def test_how_ids_lie_in_memory_is_not_in_the_digest() -> None:
    assert replace(SMALL, positions=np.asfortranarray(SMALL.positions)).digest() == SMALL.digest()


def test_the_top_is_the_first_columns_of_ids_and_scores() -> None:
    top = SMALL.top(2)
    assert top.query_ids == SMALL.query_ids
    assert top.positions.tolist() == [[3, 1], [9, 7]]
    assert top.scores.tolist() == SMALL.scores[:, :2].tolist()
    assert SMALL.top(9).positions.tolist() == SMALL.positions.tolist()


def test_a_row_without_its_scores_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        ranking.write(tmp_path / "ranking.jsonl", replace(SMALL, scores=SMALL.scores[:1]))
    assert not list(tmp_path.iterdir())
