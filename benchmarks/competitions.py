"""Simulated competitions: part of the labeled questions becomes a hidden test, again and again.

What is known of each is what a competitor knows: the rest of the labels, a model's rows on a split
of these, and how many rows the hidden test has. The truth is kept beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

import numpy as np

from benchmarks.contenders import Contender, Places, Precisions, World
from parity.competition.query import Qrels, Query, QueryId
from parity.competition.splits import split as splits
from parity.competition.splits.split import Split
from parity.run import digest
from parity.run.config.run_file import SplitConfig

SHARES = (0.5, 0.85)
"""Between these the hidden test's unseen share is drawn."""
HIDDEN = 0.22
"""Share of labeled rows that is hidden: the real test's, 963 of 4,370."""
_CV = SplitConfig(kind="unseen", unseen=0.75, valid=0.2)


@dataclass(frozen=True, slots=True)
class Entry:
    """One model in one competition.

    Attributes:
        name: the model's.
        cv: average precision of each valid row.
        hidden: of each hidden row, which only the leaderboard knows.
    """

    name: str
    cv: Precisions
    hidden: Precisions

    @property
    def board(self) -> float:
        """What the leaderboard shows."""
        return fmean(self.hidden.values())


@dataclass(frozen=True, slots=True)
class Simulated:
    """One competition.

    Attributes:
        seed: of all its cuts.
        known: the labels a competitor has; rows of valid and of train.
        subjects: what each of these rows is about.
        split: how a competitor parts them.
        entries: models in the order in which they are handed in.
        rows: how many are hidden.
        unseen: hidden rows whose misconception no row shows that a model learnt from; the truth.
    """

    seed: int
    known: Qrels
    subjects: Mapping[QueryId, int]
    split: Split
    entries: tuple[Entry, ...]
    rows: int
    unseen: frozenset[QueryId]

    @property
    def share(self) -> float:
        """The hidden test's true unseen share."""
        return len(self.unseen) / self.rows


def simulate(world: World, models: Mapping[str, Contender], seed: int) -> Simulated:
    """Hide a part of the world and let every model compete.

    Args:
        world: all labeled rows, embedded.
        models: name → model, in the order in which they are handed in.
        seed: draws the hidden unseen share, uniform over `SHARES`, and cuts.

    Raises:
        BadConfig: too few questions to cut.
    """
    low, high = SHARES
    wanted = low + (high - low) * Random(int(digest.of_text(f"share/{seed}"), 16)).random()
    aimed = SplitConfig(kind="unseen", unseen=round(wanted, 3), valid=HIDDEN, seed=seed)
    outer = splits.make(world.queries, world.qrels, aimed)
    left = _of(world.queries, outer.train)
    known = {one.query_id: world.qrels[one.query_id] for one in left}
    inner = splits.make(left, known, _CV.model_copy(update={"seed": seed}))
    learnt, valid, hidden = (_places(world, ids) for ids in (inner.train, inner.valid, outer.valid))
    seen = frozenset(key for row in learnt for key in _right(world, row))
    return Simulated(
        seed=seed,
        known=known,
        subjects={one.query_id: one.subject_id for one in left},
        split=inner,
        entries=tuple(
            _enter(world, name, model, (learnt, valid, hidden)) for name, model in models.items()
        ),
        rows=len(hidden),
        unseen=frozenset(
            world.queries[row].query_id for row in hidden if seen.isdisjoint(_right(world, row))
        ),
    )


def _enter(
    world: World, name: str, model: Contender, parts: tuple[Places, Places, Places]
) -> Entry:
    learnt, valid, hidden = parts
    found = model(world, learnt, np.concatenate([valid, hidden]))
    names = list(found)
    return Entry(
        name,
        {key: found[key] for key in names[: len(valid)]},
        {key: found[key] for key in names[len(valid) :]},
    )


def _of(queries: Sequence[Query], questions: tuple[int, ...]) -> list[Query]:
    wanted = frozenset(questions)
    return [query for query in queries if query.question_id in wanted]


def _places(world: World, questions: tuple[int, ...]) -> Places:
    wanted = frozenset(questions)
    rows = [row for row, one in enumerate(world.queries) if one.question_id in wanted]
    return np.array(rows, np.int64)


def _right(world: World, row: int) -> frozenset[int]:
    return world.qrels[world.queries[row].query_id]
