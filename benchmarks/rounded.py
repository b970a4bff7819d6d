"""What rounded products change: how far embeddings move, and the rankings that follow from them."""

from dataclasses import dataclass

import numpy as np

from benchmarks import works
from benchmarks.ours import Ours
from benchmarks.peers import Vectors
from benchmarks.works import World
from parity.competition.query import Qrels
from parity.competition.ranking import Ranking
from parity.competition.scoring.metrics import average_precisions
from parity.deploy.kernel.image_comparison import cosines, overlaps
from parity.retrieval.search import top

_K = 25


@dataclass(frozen=True, slots=True)
class Changed:
    """Two encoders' answers to the same queries.

    Attributes:
        queries: asked.
        passages: ranked.
        cosine: of a query's two embeddings: the middle one and the smallest.
        overlap: mean share of the first 25 that both have.
        first: queries whose first passage differs.
        moved: queries whose first 25, or their order, differ.
        scores: MAP@25 of whole products and of rounded ones.
    """

    queries: int
    passages: int
    cosine: tuple[float, float]
    overlap: float
    first: int
    moved: int
    scores: tuple[float, float]


Answers = tuple[Vectors, Ranking]
"""Queries' embeddings, (n, d) float32 unit vectors, and what they rank."""


def changed(before: Answers, after: Answers, qrels: Qrels, passages: int) -> Changed:
    """Compare two encoders' answers to the same queries.

    Args:
        before: of whole products.
        after: of rounded ones.
        qrels: the right passages of just these queries.
        passages: how many were ranked.
    """
    (one, first), (other, second) = before, after
    apart = cosines(one, other)
    k = first.ids.shape[1]
    scores = [
        float(np.mean(list(average_precisions(side, qrels, k=k).values())))
        for side in (first, second)
    ]
    return Changed(
        queries=len(first.query_ids),
        passages=passages,
        cosine=(float(np.median(apart)), float(apart.min())),
        overlap=float(np.mean(overlaps(first.ids, second.ids))),
        first=int((first.ids[:, 0] != second.ids[:, 0]).sum()),
        moved=int((first.ids != second.ids).any(axis=1).sum()),
        scores=(scores[0], scores[1]),
    )


def answers(world: World, name: str, count: int, ours: Ours) -> Answers:
    """Rank the whole corpus for some queries.

    Args:
        world: the competition.
        name: a work whose texts are queries.
        count: the first so many queries; 0 for all.
        ours: whose embeddings.
    """
    asked = ours.encode(works.encoding(world, name, ours.encoder, count))
    passages = ours.encode(works.encoding(world, "corpus", ours.encoder, 0))
    ids = sorted(world.corpus)
    names = tuple(query.query_id for query in world.queries[: count or None])
    return asked, Ranking(names, *top(asked, passages, ids, k=min(_K, len(ids))))


def told(found: Changed) -> str:
    """Return one line for a person."""
    whole, eight = found.scores
    return (
        f"cosine {found.cosine[0]:.5f}, smallest {found.cosine[1]:.5f}; overlap@25 "
        f"{found.overlap:.4f}; another first passage for {found.first} of {found.queries} queries, "
        f"another first 25 or order for {found.moved}; MAP@25 {whole:.4f} → {eight:.4f}"
    )
