"""Compare embeddings and rankings of two precisions."""

from dataclasses import dataclass

import numpy as np

from benchmarks import works
from benchmarks.ours import Ours
from benchmarks.peers import Vectors
from benchmarks.works import World
from parity.competition.query import Qrels
from parity.competition.ranking import Ranking
from parity.competition.scoring.metrics import row_scores
from parity.competition.scoring.row_metrics import Metric
from parity.deploy.kernel.image_comparison import cosines, overlaps
from parity.retrieval.search import top

_K = 25


@dataclass(frozen=True, slots=True)
class Changed:
    """Differences of two encoders on the same queries.

    Attributes:
        queries: number of queries.
        passages: number of ranked passages.
        cosine: median and smallest cosine of a query's two embeddings.
        overlap: mean share of common passages among the first 25.
        first: number of queries whose first passage differs.
        moved: number of queries whose first 25, or their order, differ.
        scores: MAP@25 without and with rounding.
    """

    queries: int
    passages: int
    cosine: tuple[float, float]
    overlap: float
    first: int
    moved: int
    scores: tuple[float, float]


Answers = tuple[Vectors, Ranking]
"""Embeddings of queries, (n, d) float32 unit vectors, and their ranking."""


def changed(before: Answers, after: Answers, qrels: Qrels, passages: int) -> Changed:
    """Return the differences of two encoders on the same queries.

    Args:
        before: answers without rounding.
        after: answers with rounding.
        qrels: labels of exactly these queries.
        passages: number of ranked passages.
    """
    (vectors, first), (other_vectors, second) = before, after
    cosine_of_query = cosines(vectors, other_vectors)
    k = first.positions.shape[1]
    scores = [
        float(np.mean(list(row_scores(side, qrels, Metric("map", k)).values())))
        for side in (first, second)
    ]
    return Changed(
        queries=len(first.query_ids),
        passages=passages,
        cosine=(float(np.median(cosine_of_query)), float(cosine_of_query.min())),
        overlap=float(np.mean(overlaps(first.positions, second.positions))),
        first=int((first.positions[:, 0] != second.positions[:, 0]).sum()),
        moved=int((first.positions != second.positions).any(axis=1).sum()),
        scores=(scores[0], scores[1]),
    )


def answers(world: World, name: str, count: int, encoder: Ours) -> Answers:
    """Rank the entire corpus for queries.

    Args:
        world: rows of the competition.
        name: work whose texts are queries.
        count: number of queries, from the first; 0 for all.
        encoder: our encoder.
    """
    vectors = encoder.encode(works.encoding(world, name, encoder.encoder, count))
    passages = encoder.encode(works.encoding(world, "corpus", encoder.encoder, 0))
    names = tuple(query.query_id for query in world.queries[: count or None])
    return vectors, Ranking(names, *top(vectors, passages, k=min(_K, len(world.corpus))))


def describe(result: Changed) -> str:
    """Return the differences as one line."""
    unrounded, with_rounding = result.scores
    return (
        f"cosine {result.cosine[0]:.5f}, smallest {result.cosine[1]:.5f}; overlap@25 "
        f"{result.overlap:.4f}; another first passage for {result.first} of {result.queries} "
        f"queries, another first 25 or order for {result.moved}; MAP@25 {unrounded:.4f} → "
        f"{with_rounding:.4f}"
    )
