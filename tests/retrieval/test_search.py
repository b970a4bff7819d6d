"""Exact search against a brute-force twin in float64, and against faiss."""

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from parity.competition.ranking import Ids, Scores
from parity.retrieval.search import Embeddings, top
from parity.run.errors import Mismatch

# Products of small whole numbers are exact in float32, so that ties are ties everywhere.
whole = st.integers(-3, 3)


def units(seed: int, rows: int, width: int) -> Embeddings:
    drawn = np.random.default_rng(seed).standard_normal((rows, width))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn.astype(np.float32)


def twin(queries: Embeddings, passages: Embeddings, ids: list[int], k: int) -> tuple[Ids, Scores]:
    """Sort each row by score in float64, then id."""
    scores = queries.astype(np.float64) @ passages.astype(np.float64).T
    best = [sorted(range(len(ids)), key=lambda place: (-row[place], ids[place])) for row in scores]
    order = np.array(best, dtype=np.int64).reshape(len(queries), len(ids))[:, :k]
    return np.asarray(ids, dtype=np.int64)[order], np.take_along_axis(scores, order, axis=1)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Embeddings, Embeddings, list[int], int]:
    width = draw(st.integers(1, 5))
    shape = st.integers(1, 9).map(lambda rows: (rows, width))
    drawn = npst.arrays(np.float32, shape, elements=whole)
    queries, passages = draw(drawn), draw(drawn)
    ids = draw(st.sets(st.integers(0, 99), min_size=len(passages), max_size=len(passages)))
    return queries, passages, sorted(ids), draw(st.integers(1, 12))


@given(worlds())
def test_it_finds_what_brute_force_finds(
    world: tuple[Embeddings, Embeddings, list[int], int],
) -> None:
    queries, passages, ids, k = world
    found_ids, found_scores = top(queries, passages, ids, k=k)
    want_ids, want_scores = twin(queries, passages, ids, k)
    np.testing.assert_array_equal(found_ids, want_ids)
    np.testing.assert_array_equal(found_scores, want_scores)


def test_ties_go_to_the_smaller_id() -> None:
    queries = np.array([[1, 0]], dtype=np.float32)
    passages = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    ids, scores = top(queries, passages, [2, 5, 7, 30], k=4)
    assert ids.tolist() == [[5, 30, 2, 7]]
    assert scores.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("width", "count", "asked"), [(384, 9, 17), (4, 7, 5), (4096, 194, 1), (576, 1000, 64)]
)
def test_equal_passages_tie_wherever_they_stand(width: int, count: int, asked: int) -> None:
    """A matrix product may round a column by its place; equal sentences must tie all the same."""
    passages = units(1, count, width)
    passages[count // 2 : count - 1 : 3] = passages[1]
    passages[-1] = passages[0]
    ids, scores = top(units(2, asked, width), passages, list(range(count)), k=count)
    for twins in ([0, count - 1], [1, *range(count // 2, count - 1, 3)]):
        for row_ids, row_scores in zip(ids, scores, strict=True):
            places = np.flatnonzero(np.isin(row_ids, twins))
            assert len(set(row_scores[places].tolist())) == 1
            assert row_ids[places].tolist() == sorted(row_ids[places].tolist())


def test_more_than_there_are_gives_all() -> None:
    ids, scores = top(units(0, 3, 8), units(1, 4, 8), [3, 5, 8, 9], k=25)
    assert ids.shape == scores.shape == (3, 4)
    assert {tuple(sorted(row)) for row in ids.tolist()} == {(3, 5, 8, 9)}


def test_no_queries_find_nothing() -> None:
    ids, scores = top(units(0, 0, 8), units(1, 4, 8), [3, 5, 8, 9], k=2)
    assert ids.shape == scores.shape == (0, 2)


def test_many_queries_are_found_in_the_order_asked() -> None:
    passages = units(1, 40, 16)
    asked = np.random.default_rng(0).integers(0, 40, 1200)
    ids, scores = top(passages[asked], passages, list(range(40)), k=1)
    assert ids[:, 0].tolist() == asked.tolist()
    np.testing.assert_allclose(scores, 1, atol=1e-6)
    assert ids.dtype == np.int64
    assert scores.dtype == np.float32


@pytest.mark.parametrize("ids", [[1, 2], [1, 2, 3, 4], [1, 3, 2], [1, 2, 2]])
def test_ids_that_fit_no_passages_are_refused(ids: list[int]) -> None:
    with pytest.raises(Mismatch, match=f"3 passages need as many ascending ids; got {len(ids)}"):
        top(units(0, 1, 4), units(1, 3, 4), ids, k=1)


def test_faiss_finds_the_same() -> None:
    queries, passages = units(3, 200, 384), units(4, 2587, 384)
    index = faiss.IndexFlatIP(384)
    index.add(passages)
    want_scores, want_ids = index.search(queries, 25)
    ids, scores = top(queries, passages, list(range(len(passages))), k=25)
    np.testing.assert_allclose(scores, want_scores, atol=1e-6)
    # No two neighbours of these are as near as rounding, or this would say so.
    assert np.diff(want_scores, axis=1).max() < -1e-8
    np.testing.assert_array_equal(ids, want_ids)
