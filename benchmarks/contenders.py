"""Cheap models for simulated competitions: three that never learn, and two that do, by degrees.

Learning must cost what it costs a fine-tuned retriever: rows whose misconception train shows gain
much, the others little, or lose. Both learners work on embeddings of an untuned encoder, so that a
training takes milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from parity.competition.query import Corpus, Qrels, Query, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring import baselines
from parity.competition.scoring.metrics import average_precisions

K = 25

Vectors = NDArray[np.float32]
"""(n, d) float32, unit norm."""
Precisions = dict[QueryId, float]
"""Each row's average precision at `K`."""


@dataclass(frozen=True)
class World:
    """What all simulated competitions are cut from.

    Attributes:
        queries: n labeled rows, each with one right misconception.
        qrels: their labels.
        corpus: m misconceptions.
        asked: (n, d) the rows as the untuned encoder embeds them.
        passages: (m, d) the corpus, ascending by id, likewise.
    """

    queries: Sequence[Query]
    qrels: Qrels
    corpus: Corpus
    asked: Vectors
    passages: Vectors

    @cached_property
    def right(self) -> NDArray[np.int64]:
        """(n,) place in the corpus of each row's first right misconception."""
        place = {key: at for at, key in enumerate(sorted(self.corpus))}
        return np.array(
            [place[min(self.qrels[query.query_id])] for query in self.queries], np.int64
        )


Places = NDArray[np.int64]
"""(r,) places of rows in a world's `queries`."""
Contender = Callable[[World, Places, Places], Precisions]
"""World, rows to learn from, rows to rank → average precision of each of the latter."""


def contenders(world: World) -> Mapping[str, Contender]:
    """Return name → model, in the order in which a person would hand them in.

    The first three rank once for all competitions, for they learn from no row.
    """
    everything = np.arange(len(world.queries))
    untuned = {
        "bm25": _lexical(world, "bm25"),
        "tfidf": _lexical(world, "tfidf"),
        "untuned": _scored(world, everything, world.asked @ world.passages.T),
    }
    return {
        **{name: _always(found) for name, found in untuned.items()},
        "linear-mild": _linear(30.0),
        "nearest-mild": _nearest(0.05),
        "linear-strong": _linear(8.0),
        "nearest-strong": _nearest(0.15),
    }


def _always(found: Precisions) -> Contender:
    def look(world: World, _: Places, rows: Places) -> Precisions:
        return {world.queries[row].query_id: found[world.queries[row].query_id] for row in rows}

    return look


def _lexical(world: World, method: baselines.Method) -> Precisions:
    ranking = baselines.rank(method, list(world.queries), world.corpus, k=K)
    return average_precisions(ranking, world.qrels, k=ranking.ids.shape[1])


def _linear(pull: float) -> Contender:
    """Map queries linearly onto their passages, by least squares pulled towards no change.

    Source: ridge regression about the identity; the pull stands for how little is trained.
    """

    def learn(world: World, known: Places, rows: Places) -> Precisions:
        asked = world.asked[known].astype(np.float64)  # (r, d)
        meant = world.passages[world.right[known]].astype(np.float64)  # (r, d)
        pulled = pull * np.eye(asked.shape[1])
        turned = np.linalg.solve(asked.T @ asked + pulled, asked.T @ meant + pulled)  # (d, d)
        moved = world.asked[rows] @ turned.astype(np.float32)
        return _scored(world, rows, moved @ world.passages.T)

    return learn


def _nearest(weight: float) -> Contender:
    """Add to each passage's score that of the nearest known row that it is right for."""

    def learn(world: World, known: Places, rows: Places) -> Precisions:
        alike = world.asked[rows] @ world.asked[known].T  # (n, r)
        best = np.zeros((len(rows), len(world.passages)), np.float32)  # (n, m)
        for column, place in enumerate(world.right[known]):
            np.maximum(best[:, place], alike[:, column], out=best[:, place])
        return _scored(world, rows, world.asked[rows] @ world.passages.T + weight * best)

    return learn


def _scored(world: World, rows: Places, scores: NDArray[np.float32]) -> Precisions:
    """Return the average precision of rows with (n, m) scores; ties go to the smaller id."""
    ids = np.array(sorted(world.corpus), np.int64)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]  # (n, k)
    names = tuple(world.queries[row].query_id for row in rows)
    ranking = Ranking(names, ids[best], np.take_along_axis(scores, best, axis=1))
    return average_precisions(ranking, {name: world.qrels[name] for name in names}, k=best.shape[1])
