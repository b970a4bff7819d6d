"""Simulate competitions: part of the labeled questions becomes a hidden test.

A competitor knows the other labels, a model's scores on a split of these, and the number of hidden
rows. The hidden scores are kept separately.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

import numpy as np

from benchmarks.contenders import Contender, Places, Precisions, World
from parity.competition.query import Qrels, Query, QueryId, UnitId
from parity.competition.splits import split as splits
from parity.competition.splits.split import Split
from parity.run import digest
from parity.run.config.split import SplitConfig

SHARES = (0.5, 0.85)
"""Range of the hidden test's unseen share."""
HIDDEN = 0.22
"""Share of labeled rows that are hidden, as in the real test: 963 of 4,370."""
_CV = SplitConfig(kind="unseen", unseen=0.75, valid=0.2)


@dataclass(frozen=True, slots=True)
class Entry:
    """One model in one competition.

    Attributes:
        name: name of the model.
        cv: average precision of each validation row.
        hidden: average precision of each hidden row, which only the leaderboard has.
    """

    name: str
    cv: Precisions
    hidden: Precisions

    @property
    def board(self) -> float:
        """Leaderboard score."""
        return fmean(self.hidden.values())


@dataclass(frozen=True, slots=True)
class Simulated:
    """One competition.

    Attributes:
        seed: seed of its splits.
        labels: labels of the rows of train and validation set.
        subjects: subject of each of these rows.
        split: split into train and validation set.
        entries: models in the order of submission.
        rows: number of hidden rows.
        unseen: hidden rows whose labels are in no training row.
    """

    seed: int
    labels: Qrels
    subjects: Mapping[QueryId, str]
    split: Split
    entries: tuple[Entry, ...]
    rows: int
    unseen: frozenset[QueryId]

    @property
    def share(self) -> float:
        """Unseen share of the hidden test."""
        return len(self.unseen) / self.rows


def simulate(world: World, models: Mapping[str, Contender], seed: int) -> Simulated:
    """Hide part of the labeled rows and score every model.

    Args:
        world: all labeled rows, with embeddings.
        models: name → model, in the order of submission.
        seed: seed of the unseen share, uniform over `SHARES`, and of the splits.

    Raises:
        BadConfig: there are too few questions.
    """
    low, high = SHARES
    share = low + (high - low) * Random(int(digest.of_text(f"share/{seed}"), 16)).random()
    aimed = SplitConfig(kind="unseen", unseen=round(share, 3), valid=HIDDEN, seed=seed)
    outer = splits.make(world.queries, world.qrels, aimed)
    remaining = _of(world.queries, outer.train)
    labels = {query.query_id: world.qrels[query.query_id] for query in remaining}
    inner = splits.make(remaining, labels, _CV.model_copy(update={"seed": seed}))
    trained, valid, hidden = (
        _places(world, ids) for ids in (inner.train, inner.valid, outer.valid)
    )
    seen = frozenset(key for row in trained for key in _right(world, row))
    return Simulated(
        seed=seed,
        labels=labels,
        subjects={query.query_id: query.topic for query in remaining},
        split=inner,
        entries=tuple(
            _enter(world, name, model, (trained, valid, hidden)) for name, model in models.items()
        ),
        rows=len(hidden),
        unseen=frozenset(
            world.queries[row].query_id for row in hidden if seen.isdisjoint(_right(world, row))
        ),
    )


def _enter(
    world: World, name: str, model: Contender, parts: tuple[Places, Places, Places]
) -> Entry:
    trained, valid, hidden = parts
    values = model(world, trained, np.concatenate([valid, hidden]))
    names = list(values)
    return Entry(
        name,
        {key: values[key] for key in names[: len(valid)]},
        {key: values[key] for key in names[len(valid) :]},
    )


def _of(queries: Sequence[Query], units: tuple[UnitId, ...]) -> list[Query]:
    selected = frozenset(units)
    return [query for query in queries if query.unit in selected]


def _places(world: World, units: tuple[UnitId, ...]) -> Places:
    selected = frozenset(units)
    rows = [row for row, query in enumerate(world.queries) if query.unit in selected]
    return np.array(rows, np.int64)


def _right(world: World, row: int) -> frozenset[int]:
    return world.qrels[world.queries[row].query_id]
