"""Tests of exact search against brute force in float64 and against faiss."""

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from parity.competition.ranking import Positions, Scores
from parity.retrieval.search import Embeddings, top

# Products of small integers are exact in float32, so ties are exact in both searches.
small_integers = st.integers(-3, 3)


def units(seed: int, rows: int, width: int) -> Embeddings:
    drawn = np.random.default_rng(seed).standard_normal((rows, width))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn.astype(np.float32)


def brute_force(queries: Embeddings, passages: Embeddings, k: int) -> tuple[Positions, Scores]:
    """Return each row sorted by score in float64, then by position."""
    scores = queries.astype(np.float64) @ passages.astype(np.float64).T
    best = [
        sorted(range(len(passages)), key=lambda position: (-row[position], position))
        for row in scores
    ]
    order = np.array(best, dtype=np.int64).reshape(len(queries), len(passages))[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Embeddings, Embeddings, int]:
    width = draw(st.integers(1, 5))
    shape = st.integers(1, 9).map(lambda rows: (rows, width))
    drawn = npst.arrays(np.float32, shape, elements=small_integers)
    return draw(drawn), draw(drawn), draw(st.integers(1, 12))


@given(worlds())
def test_search_finds_the_same_passages_as_brute_force(
    world: tuple[Embeddings, Embeddings, int],
) -> None:
    queries, passages, k = world
    positions, scores = top(queries, passages, k=k)
    expected_positions, expected_scores = brute_force(queries, passages, k)
    np.testing.assert_array_equal(positions, expected_positions)
    np.testing.assert_array_equal(scores, expected_scores)


def test_ties_go_to_the_smaller_position() -> None:
    queries = np.array([[1, 0]], dtype=np.float32)
    passages = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    positions, scores = top(queries, passages, k=4)
    assert positions.tolist() == [[1, 3, 0, 2]]
    assert scores.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("width", "count", "rows"), [(384, 9, 17), (4, 7, 5), (4096, 194, 1), (576, 1000, 64)]
)
def test_equal_passages_tie_at_any_position(width: int, count: int, rows: int) -> None:
    """A matrix product may round columns differently, but equal passages must still tie."""
    passages = units(1, count, width)
    passages[count // 2 : count - 1 : 3] = passages[1]
    passages[-1] = passages[0]
    ids, scores = top(units(2, rows, width), passages, k=count)
    for twins in ([0, count - 1], [1, *range(count // 2, count - 1, 3)]):
        for row_ids, row_scores in zip(ids, scores, strict=True):
            columns = np.flatnonzero(np.isin(row_ids, twins))
            assert len(set(row_scores[columns].tolist())) == 1
            assert row_ids[columns].tolist() == sorted(row_ids[columns].tolist())


def test_a_k_above_the_corpus_size_returns_all_passages() -> None:
    ids, scores = top(units(0, 3, 8), units(1, 4, 8), k=25)
    assert ids.shape == scores.shape == (3, 4)
    assert {tuple(sorted(row)) for row in ids.tolist()} == {(0, 1, 2, 3)}


def test_no_queries_give_an_empty_result() -> None:
    ids, scores = top(units(0, 0, 8), units(1, 4, 8), k=2)
    assert ids.shape == scores.shape == (0, 2)


def test_results_are_in_the_order_of_the_queries() -> None:
    passages = units(1, 40, 16)
    targets = np.random.default_rng(0).integers(0, 40, 1200)
    ids, scores = top(passages[targets], passages, k=1)
    assert ids[:, 0].tolist() == targets.tolist()
    np.testing.assert_allclose(scores, 1, atol=1e-6)
    assert ids.dtype == np.int64
    assert scores.dtype == np.float32


def test_faiss_finds_the_same() -> None:
    queries, passages = units(3, 200, 384), units(4, 2587, 384)
    index = faiss.IndexFlatIP(384)
    index.add(passages)
    expected_scores, expected_ids = index.search(queries, 25)
    ids, scores = top(queries, passages, k=25)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    # Neighboring scores differ by more than rounding, so the order is unique.
    assert np.diff(expected_scores, axis=1).max() < -1e-8
    np.testing.assert_array_equal(ids, expected_ids)
