"""Which queries meet which passages in a step: an epoch's batches from a seed, without torch.

The order comes from the epoch's generator, and each query's positive and negatives from one of its
own, so an epoch planned again is the same epoch, in whatever order queries are given.
"""

import bisect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from parity.competition.query import Corpus, MisconceptionId, Qrels, Query, QueryId
from parity.run.config.run_file import TrainingConfig
from parity.run.errors import BadConfig, BadData, Mismatch
from parity.training.mining_strategies import generator, sentence_keys
from parity.training.negatives import Negatives, QueryNegatives

Keys = Mapping[MisconceptionId, MisconceptionId]
"""Misconception id → the smallest id with the same sentence."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What is learnt from.

    Attributes:
        queries: train queries; those without a label take no part.
        qrels: the right misconceptions.
        corpus: all misconceptions.
        negatives: a row for each labeled query.
    """

    queries: Sequence[Query]
    qrels: Qrels
    corpus: Corpus
    negatives: Negatives


@dataclass(frozen=True, slots=True)
class Batch:
    """One contrastive step.

    Attributes:
        query_ids: b queries.
        passages: m misconceptions.
        target: b places in `passages`, each query's positive.
        masked: for each query, the places in `passages` that are no negatives of it: its other
            positives, and ids with a positive's sentence; never its target.
        own: for each query, the places of its positive and its negatives, where a teacher is heard.
        teacher: the teacher's score of each of those.
    """

    query_ids: tuple[QueryId, ...]
    passages: tuple[MisconceptionId, ...]
    target: tuple[int, ...]
    masked: tuple[tuple[int, ...], ...]
    own: tuple[tuple[int, ...], ...] = ()
    teacher: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """One query of an epoch: what was drawn, what is right, what a teacher says."""

    query: Query
    positive: MisconceptionId
    negatives: tuple[MisconceptionId, ...]
    right: frozenset[MisconceptionId]
    teacher: tuple[float, ...]


Fits = Callable[[Sequence[list[_Row]]], int]
"""How many of these units, from the first, one batch can hold; at least 1."""


def plan(
    lessons: TrainingData,
    config: TrainingConfig,
    *,
    epoch: int,
    cost: Callable[[Batch], int] | None = None,
) -> list[Batch]:
    """Return an epoch's batches, each labeled query in exactly one of them.

    A batch is `config.batch` rows, or questions with all their labeled wrong answers; fewer where
    one more would cost more than `config.batch_tokens`, but always one. `infonce`
    takes each passage of a batch once and keeps a ragged last batch; with `distinct` no two of its
    queries share a positive (a question that repeats one is cut in two, and the last batches may
    be small). `flagembedding` is that package's layout: for each query its positive and
    `group - 1` negatives, the list repeated where too few, ids repeated, nothing masked, a ragged
    last batch dropped.

    Args:
        lessons: queries, labels, corpus and negatives.
        config: batch, group, layout and seed.
        epoch: from 1.
        cost: packed tokens of a batch; wanted where `config.batch_tokens` is not 0.

    Raises:
        BadConfig: `distinct` or `batch_tokens` with `flagembedding`, which has a layout of its own.
        BadData: no batch can be made, or `flagembedding` has a query without negatives.
        Mismatch: a query without a row of negatives, a negative that is right, or `distil` without
            a teacher's scores.

    Source: FlagOpen/FlagEmbedding: FlagEmbedding/abc/finetune/embedder/AbsDataset.py
    (`flagembedding`).
    """
    _check(config)
    keys = sentence_keys(lessons.corpus)
    units = _units(_rows(lessons, keys, config, epoch=epoch), config)
    generator(config.seed, epoch).shuffle(units)
    layout = _grid if config.loss == "flagembedding" else _unique

    def laid(chunk: Sequence[list[_Row]]) -> Batch:
        return layout([row for unit in chunk for row in unit], keys)

    def fits(chunk: Sequence[list[_Row]]) -> int:
        if cost is None or config.batch_tokens == 0:
            return len(chunk)
        more = range(2, len(chunk) + 1)
        return 1 + bisect.bisect_right(
            more, config.batch_tokens, key=lambda size: cost(laid(chunk[:size]))
        )

    chunks = _chunks(units, config, fits)
    if not chunks:
        raise BadData(
            f"{len(units)} labeled {config.group_by}s make no batch of {config.batch_size}; "
            "lower training.batch_size"
        )
    return [laid(chunk) for chunk in chunks]


def at_once(packs: int, nodes: int, budget: int) -> bool:
    """Return whether a batch runs directly, and not twice through GradCache.

    >>> at_once(1, 900, 512), at_once(2, 500, 512), at_once(2, 600, 512)
    (True, True, False)

    Args:
        packs: how many this process has of it.
        nodes: of all of them.
        budget: nodes that a step may hold, `training.token_budget`.
    """
    return packs == 1 or nodes <= budget


def _check(config: TrainingConfig) -> None:
    if config.loss == "flagembedding":
        for name, value in (("passages", "unique"), ("batch_tokens", 0)):
            if (given := getattr(config, name)) != value:
                raise BadConfig(
                    f"training.{name} = {given!r}: loss 'flagembedding' has its own layout; "
                    f"leave it at {value!r}"
                )


def _rows(lessons: TrainingData, keys: Keys, config: TrainingConfig, *, epoch: int) -> list[_Row]:
    """Draw each labeled query's positive and negatives; ascending by query id."""
    qrels, mined = lessons.qrels, {row.query_id: row for row in lessons.negatives.rows}
    rows = []
    for query in sorted(lessons.queries, key=lambda query: query.query_id):
        if query.query_id not in qrels:
            continue
        if query.query_id not in mined:
            raise Mismatch(f"query {query.query_id} has no row of negatives; run: invoke mine")
        right = frozenset(keys[key] for key in qrels[query.query_id])
        listed = mined[query.query_id]
        if wrong := [key for key in listed.ids if keys[key] in right]:
            raise Mismatch(
                f"query {query.query_id}: negative {wrong[0]} is right; run: invoke mine"
            )
        draws = generator(config.seed, epoch, query.query_id)
        positive = draws.choice(sorted(qrels[query.query_id]))
        drawn = _sample(listed, config, draws)
        taught = () if config.distillation == "none" else listed.taught((positive, *drawn))
        rows.append(_Row(query, positive, drawn, right, taught))
    return rows


def _sample(
    listed: QueryNegatives, config: TrainingConfig, draws: random.Random
) -> tuple[MisconceptionId, ...]:
    """Return `group - 1` negatives; as many as there are, or repeated to fill FlagEmbedding's."""
    wanted = config.train_group_size - 1
    if config.loss == "infonce":
        return tuple(draws.sample(listed.ids, min(wanted, len(listed.ids))))
    if not listed.ids:
        raise BadData(f"query {listed.query_id} has no negative to fill its group with")
    times = max(1, -(-wanted // len(listed.ids)))
    return tuple(draws.sample(listed.ids * times, wanted))


def _units(rows: Sequence[_Row], config: TrainingConfig) -> list[list[_Row]]:
    """Return what a batch counts: rows, or questions; for `distinct` none repeats a positive."""
    if config.group_by == "row":
        return [[row] for row in rows]
    questions: dict[int, list[_Row]] = {}
    for row in rows:
        questions.setdefault(row.query.question_id, []).append(row)
    if config.passages == "unique":
        return list(questions.values())
    return [
        [row for part in cut for row in part]
        for question in questions.values()
        for cut in _apart([[row] for row in question], len(question), len)
    ]


def _chunks(units: list[list[_Row]], config: TrainingConfig, fits: Fits) -> list[list[list[_Row]]]:
    if config.passages == "distinct":
        return _apart(units, config.batch_size, fits)
    chunks = []
    start = 0
    while start < len(units):
        most = units[start : start + config.batch_size]
        chunks.append(most[: fits(most)])
        start += len(chunks[-1])
    if config.loss == "flagembedding":
        return [chunk for chunk in chunks if len(chunk) == config.batch_size]
    return chunks


def _apart(units: Sequence[list[_Row]], size: int, fits: Fits) -> list[list[list[_Row]]]:
    """Return the units in chunks of at most `size` that fit, no positive twice in a chunk.

    A chunk takes the first units that go together; all others lead the next one.
    """
    chunks: list[list[list[_Row]]] = []
    waiting = list(units)
    while waiting:
        taken: list[list[_Row]] = []
        passed: list[list[_Row]] = []
        used: set[MisconceptionId] = set()
        for unit in waiting:
            right = frozenset(key for row in unit for key in row.right)
            if len(taken) < size and used.isdisjoint(right):
                taken.append(unit)
                used |= right
            else:
                passed.append(unit)
        count = fits(taken)
        chunks.append(taken[:count])
        waiting = [*taken[count:], *passed]
    return chunks


def _unique(rows: Sequence[_Row], keys: Keys) -> Batch:
    """Lay out each passage once, in order of appearance, a query's positives masked for it."""
    listed = dict.fromkeys(key for row in rows for key in (row.positive, *row.negatives))
    place = {key: index for index, key in enumerate(listed)}
    said: dict[MisconceptionId, list[int]] = {}  # sentence key → places that say it
    for key, index in place.items():
        said.setdefault(keys[key], []).append(index)
    masked = tuple(
        tuple(
            sorted(
                index
                for key in row.right
                for index in said.get(key, ())
                if index != place[row.positive]
            )
        )
        for row in rows
    )
    target = tuple(place[row.positive] for row in rows)
    query_ids = tuple(row.query.query_id for row in rows)
    heard = [row for row in rows if row.teacher]
    own = tuple(tuple(place[key] for key in (row.positive, *row.negatives)) for row in heard)
    teacher = tuple(row.teacher for row in heard)
    return Batch(query_ids, tuple(place), target, masked, own, teacher)


def _grid(rows: Sequence[_Row], _: Keys) -> Batch:
    """Lay out FlagEmbedding's grid: each query's positive, then its negatives, ids repeated."""
    passages = tuple(key for row in rows for key in (row.positive, *row.negatives))
    target = tuple(range(0, len(passages), len(passages) // len(rows)))
    query_ids = tuple(row.query.query_id for row in rows)
    teacher = tuple(row.teacher for row in rows if row.teacher)
    width = len(passages) // len(rows)
    own = tuple(tuple(range(start, start + width)) for start in target[: len(teacher)])
    return Batch(query_ids, passages, target, ((),) * len(rows), own, teacher)
