"""Cheap models for simulated competitions: three without training, and two kinds with training.

Training has the effect that it has on a fine-tuned retriever: rows with a seen label gain much,
the others little, or they lose. The trained models use embeddings of an untuned encoder, so that
training takes milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from parity.competition.corpus import Corpus
from parity.competition.query import Qrels, Query, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring import baselines
from parity.competition.scoring.metrics import row_scores
from parity.competition.scoring.row_metrics import Metric

K = 25
_METRIC = Metric("map", K)

Vectors = NDArray[np.float32]
"""(n, d) float32, unit norm."""
Precisions = dict[QueryId, float]
"""Row → average precision at `K`."""


@dataclass(frozen=True)
class World:
    """The labeled rows from which all competitions are simulated.

    Attributes:
        queries: n labeled rows.
        qrels: labels of the rows.
        corpus: m passages.
        query_vectors: (n, d) float32, embeddings of the rows by the untuned encoder.
        passages: (m, d) float32, embeddings of the corpus, ascending by id.
    """

    queries: Sequence[Query]
    qrels: Qrels
    corpus: Corpus
    query_vectors: Vectors
    passages: Vectors

    @cached_property
    def right(self) -> NDArray[np.int64]:
        """(n,) int64, position in the corpus of each row's first label."""
        return np.array([min(self.qrels[query.query_id]) for query in self.queries], np.int64)


Places = NDArray[np.int64]
"""(r,) int64, indices of rows in `World.queries`."""
Contender = Callable[[World, Places, Places], Precisions]
"""World, training rows, rows to rank → average precision of each ranked row."""


def contenders(world: World) -> Mapping[str, Contender]:
    """Return name → model, in the order of submission.

    The first three have no training, so they rank once for all competitions.
    """
    everything = np.arange(len(world.queries))
    untuned = {
        "bm25": _lexical(world, "bm25"),
        "tfidf": _lexical(world, "tfidf"),
        "untuned": _scored(world, everything, world.query_vectors @ world.passages.T),
    }
    return {
        **{name: _always(values) for name, values in untuned.items()},
        "linear-mild": _linear(30.0),
        "nearest-mild": _nearest(0.05),
        "linear-strong": _linear(8.0),
        "nearest-strong": _nearest(0.15),
    }


def _always(values: Precisions) -> Contender:
    def ranked(world: World, _: Places, rows: Places) -> Precisions:
        return {world.queries[row].query_id: values[world.queries[row].query_id] for row in rows}

    return ranked


def _lexical(world: World, method: baselines.Method) -> Precisions:
    ranking = baselines.rank(method, list(world.queries), world.corpus, k=K)
    return row_scores(ranking, world.qrels, _METRIC.within(len(world.corpus)))


def _linear(pull: float) -> Contender:
    """Return a model that maps queries linearly onto their passages.

    Source: ridge regression toward the identity; a larger pull means less training.
    """

    def learn(world: World, train: Places, rows: Places) -> Precisions:
        queries = world.query_vectors[train].astype(np.float64)  # (r, d)
        targets = world.passages[world.right[train]].astype(np.float64)  # (r, d)
        pulled = pull * np.eye(queries.shape[1])
        turned = np.linalg.solve(
            queries.T @ queries + pulled, queries.T @ targets + pulled
        )  # (d, d)
        moved = world.query_vectors[rows] @ turned.astype(np.float32)
        return _scored(world, rows, moved @ world.passages.T)

    return learn


def _nearest(weight: float) -> Contender:
    """Return a model that adds to a passage's score that of its nearest training row."""

    def learn(world: World, train: Places, rows: Places) -> Precisions:
        similarity = world.query_vectors[rows] @ world.query_vectors[train].T  # (n, r)
        best = np.zeros((len(rows), len(world.passages)), np.float32)  # (n, m)
        for column, position in enumerate(world.right[train]):
            np.maximum(best[:, position], similarity[:, column], out=best[:, position])
        return _scored(world, rows, world.query_vectors[rows] @ world.passages.T + weight * best)

    return learn


def _scored(world: World, rows: Places, scores: NDArray[np.float32]) -> Precisions:
    """Return the average precision of rows with (n, m) scores; ties go to the smaller position."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]  # (n, k)
    names = tuple(world.queries[row].query_id for row in rows)
    ranking = Ranking(names, best, np.take_along_axis(scores, best, axis=1))
    qrels = {name: world.qrels[name] for name in names}
    return row_scores(ranking, qrels, _METRIC.within(best.shape[1]))
