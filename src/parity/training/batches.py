"""Which queries meet which passages in a step: an epoch's batches from a seed, without torch.

The order comes from the epoch's generator, and each query's positive and negatives from one of its
own, so an epoch planned again is the same epoch, in whatever order queries are given.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from parity.competition.questions import Corpus, MisconceptionId, Qrels, Query, QueryId
from parity.run.config import TrainingConfig
from parity.run.errors import BadConfig, BadData, Mismatch
from parity.training.negatives import Mined, Negatives
from parity.training.strategies import generator, sentence_keys

Keys = Mapping[MisconceptionId, MisconceptionId]
"""Misconception id → the smallest id with the same sentence."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One contrastive step.

    Attributes:
        query_ids: b queries.
        passages: m misconceptions.
        target: b places in `passages`, each query's positive.
        masked: for each query, the places in `passages` that are no negatives of it: its other
            positives, and ids with a positive's sentence; never its target.
    """

    query_ids: tuple[QueryId, ...]
    passages: tuple[MisconceptionId, ...]
    target: tuple[int, ...]
    masked: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """What an epoch is made of.

    Attributes:
        steps: batches.
        queries: queries over all batches.
        passages: passages to encode over all batches.
        distinct: different misconceptions among them.
        masked: (query, passage) pairs kept from being false negatives.
        unmasked: pairs in which a query's own positive stands as a negative (`flagembedding`).
        meetings: batches in which two queries share a positive or its sentence.
    """

    steps: int
    queries: int
    passages: int
    distinct: int
    masked: int
    unmasked: int
    meetings: int

    @property
    def text(self) -> str:
        """One line for a person."""
        return (
            f"{self.steps} batches of {self.queries} queries and {self.passages} passages "
            f"({self.distinct} distinct ids); a positive is shared in {self.meetings} of them; "
            f"false negatives: {self.masked} masked, {self.unmasked} left in"
        )


@dataclass(frozen=True, slots=True)
class _Row:
    """One query of an epoch: what was drawn for it, and the sentence keys that are right."""

    query: Query
    positive: MisconceptionId
    negatives: tuple[MisconceptionId, ...]
    right: frozenset[MisconceptionId]


def plan(
    queries: Sequence[Query],
    qrels: Qrels,
    corpus: Corpus,
    negatives: Negatives,
    config: TrainingConfig,
    *,
    epoch: int,
) -> list[Batch]:
    """Return an epoch's batches, each labelled query in exactly one of them.

    A batch is `config.batch` rows, or questions with all their labelled wrong answers. `infonce`
    takes each passage of a batch once and keeps a ragged last batch; with `distinct` no two of its
    queries share a positive (a question that repeats one is cut in two, and the last batches may
    be small). `flagembedding` is that package's layout: for each query its positive and
    `group - 1` negatives, the list repeated where too few, ids repeated, nothing masked, a ragged
    last batch dropped.

    Args:
        queries: train queries; those without a label take no part.
        qrels: the right misconceptions.
        corpus: all misconceptions.
        negatives: a row for each labelled query.
        config: batch, group, layout and seed.
        epoch: from 1.

    Raises:
        BadConfig: `distinct` with `flagembedding`, which has a layout of its own.
        BadData: no batch can be made, or `flagembedding` has a query without negatives.
        Mismatch: a query without a row of negatives, or a negative that is right.

    Source: FlagOpen/FlagEmbedding: FlagEmbedding/abc/finetune/embedder/AbsDataset.py
    (`flagembedding`).
    """
    compat = config.loss == "flagembedding"
    if compat and config.passages == "distinct":
        raise BadConfig(
            "training.passages = 'distinct': loss 'flagembedding' has its own layout; "
            "leave it at 'unique'"
        )
    keys = sentence_keys(corpus)
    rows = _rows(queries, qrels, keys, negatives, config, epoch=epoch)
    units = _units(rows, config)
    generator(config.seed, epoch).shuffle(units)
    chunks = _chunks(units, config)
    if not chunks:
        raise BadData(
            f"{len(units)} labelled {config.group_by}s make no batch of {config.batch}; "
            "lower training.batch"
        )
    layout = _grid if compat else _unique
    return [layout([row for unit in chunk for row in unit], keys) for chunk in chunks]


def counts(batches: Iterable[Batch]) -> BatchCounts:
    """Count steps, queries, passages and what would have been false negatives."""
    batches = list(batches)
    return BatchCounts(
        steps=len(batches),
        queries=sum(len(batch.query_ids) for batch in batches),
        passages=sum(len(batch.passages) for batch in batches),
        distinct=len({key for batch in batches for key in batch.passages}),
        masked=sum(len(hidden) for batch in batches for hidden in batch.masked),
        unmasked=sum(map(_unmasked, batches)),
        meetings=sum(map(_meets, batches)),
    )


def _rows(
    queries: Sequence[Query],
    qrels: Qrels,
    keys: Keys,
    negatives: Negatives,
    config: TrainingConfig,
    *,
    epoch: int,
) -> list[_Row]:
    """Draw each labelled query's positive and negatives; ascending by query id."""
    mined = {row.query_id: row for row in negatives.rows}
    rows = []
    for query in sorted(queries, key=lambda query: query.query_id):
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
        rows.append(_Row(query, positive, _sample(listed, config, draws), right))
    return rows


def _sample(
    listed: Mined, config: TrainingConfig, draws: random.Random
) -> tuple[MisconceptionId, ...]:
    """Return `group - 1` negatives; as many as there are, or repeated to fill FlagEmbedding's."""
    wanted = config.group - 1
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
        for cut in _apart([[row] for row in question], len(question))
    ]


def _chunks(units: list[list[_Row]], config: TrainingConfig) -> list[list[list[_Row]]]:
    if config.passages == "distinct":
        return _apart(units, config.batch)
    chunks = [units[at : at + config.batch] for at in range(0, len(units), config.batch)]
    if config.loss == "flagembedding":
        return [chunk for chunk in chunks if len(chunk) == config.batch]
    return chunks


def _apart(units: Sequence[list[_Row]], size: int) -> list[list[list[_Row]]]:
    """Return the units in chunks of at most `size`, no positive twice in a chunk.

    A chunk takes the first units that fit it; those passed over lead the next one.
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
        chunks.append(taken)
        waiting = passed
    return chunks


def _unique(rows: Sequence[_Row], keys: Keys) -> Batch:
    """Lay out each passage once, in order of appearance, a query's positives masked for it."""
    listed = dict.fromkeys(key for row in rows for key in (row.positive, *row.negatives))
    place = {key: index for index, key in enumerate(listed)}
    masked = tuple(
        tuple(
            index for key, index in place.items() if keys[key] in row.right and key != row.positive
        )
        for row in rows
    )
    target = tuple(place[row.positive] for row in rows)
    return Batch(tuple(row.query.query_id for row in rows), tuple(place), target, masked)


def _grid(rows: Sequence[_Row], _: Keys) -> Batch:
    """Lay out FlagEmbedding's grid: each query's positive, then its negatives, ids repeated."""
    passages = tuple(key for row in rows for key in (row.positive, *row.negatives))
    target = tuple(range(0, len(passages), len(passages) // len(rows)))
    query_ids = tuple(row.query.query_id for row in rows)
    return Batch(query_ids, passages, target, ((),) * len(rows))


def _unmasked(batch: Batch) -> int:
    """Return how often a query's own positive stands elsewhere in the batch, not masked."""
    return sum(
        batch.passages.count(batch.passages[target])
        - 1
        - sum(batch.passages[index] == batch.passages[target] for index in hidden)
        for target, hidden in zip(batch.target, batch.masked, strict=True)
    )


def _meets(batch: Batch) -> bool:
    """Return whether two queries have one positive, or one masks the other's."""
    answers = [batch.passages[target] for target in batch.target]
    targets = set(batch.target)
    return len(set(answers)) < len(answers) or any(
        not targets.isdisjoint(hidden) for hidden in batch.masked
    )
