"""Batches of an epoch, planned from a seed without torch.

The epoch's generator sets the order. Each query has its own generator for its positive and
negatives. So planning an epoch twice gives the same batches, in any order of the input queries.
"""

import bisect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from parity.competition.query import Passages, Position, Qrels, Query, QueryId, UnitId
from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig, BadData, Mismatch
from parity.training.mining_strategies import generator, sentence_keys
from parity.training.negatives import Negatives, QueryNegatives

Keys = Mapping[Position, Position]
"""Passage → the first passage with the same text."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Training data.

    Attributes:
        queries: train queries; queries without a label are ignored.
        qrels: positives of each query.
        corpus: all passages.
        negatives: one row per labeled query.
    """

    queries: Sequence[Query]
    qrels: Qrels
    corpus: Passages
    negatives: Negatives


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch of one contrastive step.

    Attributes:
        query_ids: (b,) ids of the queries.
        passages: (m,) positions in the corpus.
        target: (b,) index in `passages` of each query's positive.
        masked: for each query, the indices in `passages` that are not negatives of it: its other
            positives, and passages with a positive's text; never its target.
        groups: for each query with teacher scores, the indices in `passages` of its positive and
            its negatives.
        teacher: teacher's score of each index in `groups`.
    """

    query_ids: tuple[QueryId, ...]
    passages: tuple[Position, ...]
    target: tuple[int, ...]
    masked: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...] = ()
    teacher: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """One query of an epoch: its drawn passages, its positives and its teacher scores."""

    query: Query
    positive: Position
    negatives: tuple[Position, ...]
    right: frozenset[Position]
    teacher: tuple[float, ...]


Fits = Callable[[Sequence[list[_Row]]], int]
"""Units → how many of them, from the first, fit in one batch; at least 1."""


def plan(
    data: TrainingData,
    config: TrainingConfig,
    *,
    epoch: int,
    cost: Callable[[Batch], int] | None = None,
) -> list[Batch]:
    """Return an epoch's batches, each labeled query in exactly one of them.

    A batch has `config.batch_size` rows, or units with all their labeled rows. It has fewer if the
    next one would exceed `config.batch_tokens`, but always at least one. `infonce` uses each
    passage of a batch once and keeps a smaller last batch. With `distinct`, no two queries of a
    batch share a positive: a question that repeats a positive is split, and the last batches may be
    small. `flagembedding` is the layout of FlagEmbedding: each query has its positive and
    `train_group_size - 1` negatives, repeated if there are too few. Ids may repeat, nothing is
    masked, and a smaller last batch is dropped.

    Args:
        data: queries, labels, corpus and negatives.
        config: batch size, group size, layout and seed.
        epoch: number of the epoch, from 1.
        cost: batch → number of packed tokens; required if `config.batch_tokens` is not 0.

    Raises:
        BadConfig: `distinct` or `batch_tokens` with `flagembedding`, which has its own layout.
        BadData: no batch can be made, or `flagembedding` has a query without negatives.
        Mismatch: a query without a row of negatives, a negative that is a positive, or distillation
            without teacher scores.

    Source: FlagOpen/FlagEmbedding: FlagEmbedding/abc/finetune/embedder/AbsDataset.py
    (`flagembedding`).
    """
    _check(config)
    keys = sentence_keys(data.corpus)
    units = _units(_rows(data, keys, config, epoch=epoch), config)
    generator(config.seed, epoch).shuffle(units)
    layout = _grid if config.loss == "flagembedding" else _unique

    def make_batch(chunk: Sequence[list[_Row]]) -> Batch:
        return layout([row for unit in chunk for row in unit], keys)

    def fits(chunk: Sequence[list[_Row]]) -> int:
        if cost is None or config.batch_tokens == 0:
            return len(chunk)
        sizes = range(2, len(chunk) + 1)
        return 1 + bisect.bisect_right(
            sizes, config.batch_tokens, key=lambda size: cost(make_batch(chunk[:size]))
        )

    chunks = _chunks(units, config, fits)
    if not chunks:
        raise BadData(
            f"{len(units)} labeled {config.group_by}s do not fill a batch of {config.batch_size}; "
            "lower training.batch_size"
        )
    return [make_batch(chunk) for chunk in chunks]


def at_once(packs: int, nodes: int, budget: int) -> bool:
    """Return whether a batch runs in one pass, without GradCache.

    >>> at_once(1, 900, 512), at_once(2, 500, 512), at_once(2, 600, 512)
    (True, True, False)

    Args:
        packs: number of packs of the batch in this process.
        nodes: number of packed tokens in all packs.
        budget: largest number of packed tokens of a step, `training.token_budget`.
    """
    return packs == 1 or nodes <= budget


def _check(config: TrainingConfig) -> None:
    if config.loss == "flagembedding":
        for name, default in (("passages", "unique"), ("batch_tokens", 0)):
            if (value := getattr(config, name)) != default:
                raise BadConfig(
                    f"training.{name} = {value!r}: loss 'flagembedding' has its own layout; "
                    f"leave it at {default!r}"
                )


def _rows(data: TrainingData, keys: Keys, config: TrainingConfig, *, epoch: int) -> list[_Row]:
    """Return each labeled query with its drawn positive and negatives, ascending by query id."""
    qrels, mined = data.qrels, {row.query_id: row for row in data.negatives.rows}
    rows = []
    for query in sorted(data.queries, key=lambda query: query.query_id):
        if query.query_id not in qrels:
            continue
        if query.query_id not in mined:
            raise Mismatch(f"query {query.query_id} has no row of negatives", fix=("mine",))
        right = frozenset(keys[key] for key in qrels[query.query_id])
        listed = mined[query.query_id]
        if wrong := [key for key in listed.positions if keys[key] in right]:
            raise Mismatch(
                f"query {query.query_id}: negative {wrong[0]} is a positive", fix=("mine",)
            )
        draws = generator(config.seed, epoch, query.query_id)
        positive = draws.choice(sorted(qrels[query.query_id]))
        drawn = _sample(listed, config, draws)
        teacher = () if config.distillation == "none" else listed.teacher_scores((positive, *drawn))
        rows.append(_Row(query, positive, drawn, right, teacher))
    return rows


def _sample(
    listed: QueryNegatives, config: TrainingConfig, draws: random.Random
) -> tuple[Position, ...]:
    """Return `train_group_size - 1` negatives: fewer for InfoNCE, repeated for FlagEmbedding."""
    count = config.train_group_size - 1
    if config.loss == "infonce":
        return tuple(draws.sample(listed.positions, min(count, len(listed.positions))))
    if not listed.positions:
        raise BadData(f"query {listed.query_id} has no negatives to fill its group")
    times = max(1, -(-count // len(listed.positions)))
    return tuple(draws.sample(listed.positions * times, count))


def _units(rows: Sequence[_Row], config: TrainingConfig) -> list[list[_Row]]:
    """Return the units of a batch: rows or questions; `distinct` units do not repeat a positive."""
    if config.group_by == "row":
        return [[row] for row in rows]
    units: dict[UnitId, list[_Row]] = {}
    for row in rows:
        units.setdefault(row.query.unit, []).append(row)
    if config.passages == "unique":
        return list(units.values())
    return [
        [row for part in chunk for row in part]
        for unit in units.values()
        for chunk in _split_by_positive([[row] for row in unit], len(unit), len)
    ]


def _chunks(units: list[list[_Row]], config: TrainingConfig, fits: Fits) -> list[list[list[_Row]]]:
    if config.passages == "distinct":
        return _split_by_positive(units, config.batch_size, fits)
    chunks = []
    start = 0
    while start < len(units):
        candidates = units[start : start + config.batch_size]
        chunks.append(candidates[: fits(candidates)])
        start += len(chunks[-1])
    if config.loss == "flagembedding":
        return [chunk for chunk in chunks if len(chunk) == config.batch_size]
    return chunks


def _split_by_positive(
    units: Sequence[list[_Row]], size: int, fits: Fits
) -> list[list[list[_Row]]]:
    """Return the units in chunks of at most `size` that fit, no positive twice in a chunk.

    A chunk takes the first units that fit together. The next chunk starts with the skipped units.
    """
    chunks: list[list[list[_Row]]] = []
    waiting = list(units)
    while waiting:
        chosen: list[list[_Row]] = []
        skipped: list[list[_Row]] = []
        used: set[Position] = set()
        for unit in waiting:
            right = frozenset(key for row in unit for key in row.right)
            if len(chosen) < size and used.isdisjoint(right):
                chosen.append(unit)
                used |= right
            else:
                skipped.append(unit)
        count = fits(chosen)
        chunks.append(chosen[:count])
        waiting = [*chosen[count:], *skipped]
    return chunks


def _unique(rows: Sequence[_Row], keys: Keys) -> Batch:
    """Return a batch with each passage once, in order of appearance, and positives masked."""
    listed = dict.fromkeys(key for row in rows for key in (row.positive, *row.negatives))
    index_of = {key: index for index, key in enumerate(listed)}
    indices_of: dict[Position, list[int]] = {}  # sentence key → indices
    for key, index in index_of.items():
        indices_of.setdefault(keys[key], []).append(index)
    masked = tuple(
        tuple(
            sorted(
                index
                for key in row.right
                for index in indices_of.get(key, ())
                if index != index_of[row.positive]
            )
        )
        for row in rows
    )
    target = tuple(index_of[row.positive] for row in rows)
    query_ids = tuple(row.query.query_id for row in rows)
    with_teacher = [row for row in rows if row.teacher]
    groups = tuple(
        tuple(index_of[key] for key in (row.positive, *row.negatives)) for row in with_teacher
    )
    teacher = tuple(row.teacher for row in with_teacher)
    return Batch(query_ids, tuple(index_of), target, masked, groups, teacher)


def _grid(rows: Sequence[_Row], _: Keys) -> Batch:
    """Return a batch in FlagEmbedding's layout: each query's positive, then its negatives."""
    passages = tuple(key for row in rows for key in (row.positive, *row.negatives))
    target = tuple(range(0, len(passages), len(passages) // len(rows)))
    query_ids = tuple(row.query.query_id for row in rows)
    teacher = tuple(row.teacher for row in rows if row.teacher)
    width = len(passages) // len(rows)
    groups = tuple(tuple(range(start, start + width)) for start in target[: len(teacher)])
    return Batch(query_ids, passages, target, ((),) * len(rows), groups, teacher)
