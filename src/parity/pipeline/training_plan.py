"""Turn negatives into a course of training: every epoch's batches, and each batch as token ids."""

from collections.abc import Callable, Sequence

from parity.competition import few_shot as shelf
from parity.pipeline import dataset
from parity.pipeline.dataset import Dataset
from parity.retrieval.retrieve import (
    RenderedQueries,
    need_examples,
    passages,
    render,
    render_queries,
)
from parity.retrieval.tokenizer import Tokenizer
from parity.run.config.run_file import Config
from parity.training import batch_stats
from parity.training import batches as batching
from parity.training.batches import Batch, TrainingData
from parity.training.gradcache import Tokens
from parity.training.negatives import Negatives
from parity.training.trainer import TrainingPlan

Asking = Callable[[Batch], Tokens]
"""Batch → token ids of its queries."""
Telling = Callable[[Sequence[Batch]], str]
"""First epoch → how queries were rendered, for a person."""


def build_training_plan(
    encoder: Tokenizer, config: Config, known: Dataset, negatives: Negatives, key: str
) -> tuple[TrainingPlan, list[str]]:
    """Plan all epochs and render all texts before the first step.

    Args:
        encoder: tokenizes; its weights are not asked.
        config: the resolved run.
        known: the competition.
        negatives: of every train row.
        key: digest of all that the training depends on.

    Returns:
        The course, and lines for a person: how queries were rendered, what each epoch is made of,
        and how many tokens the first one shares.

    Raises:
        BadConfig: few-shot examples are on and no query carries one.
    """
    texts = passages(encoder, config.prompt, known.corpus)
    answers = dict(zip(sorted(known.corpus), texts, strict=True))
    render_all = _by_batch if config.prompt.examples == "batch" else _by_row
    asked, told = render_all(encoder, config, known)

    def tokens(batch: Batch) -> tuple[Tokens, Tokens]:
        return asked(batch), [answers[key] for key in batch.passages]

    def sizes(batch: Batch) -> tuple[int, int]:
        sequences = [ids for side in tokens(batch) for ids in side]
        packs = encoder.packs(sequences, config.training.token_budget)
        return sum(map(len, sequences)), sum(map(len, packs))

    lessons = TrainingData(known.train, known.qrels, known.corpus, negatives)
    epochs = tuple(
        tuple(
            batching.plan(lessons, config.training, epoch=epoch, cost=lambda item: sizes(item)[1])
        )
        for epoch in range(1, config.training.epochs + 1)
    )
    planned = [
        f"epoch {number}: {batch_stats.batch_stats(batches).text}"
        for number, batches in enumerate(epochs, start=1)
    ]
    flat, packed = (sum(column) for column in zip(*map(sizes, epochs[0]), strict=True))
    shared = f"epoch 1: {flat:,} tokens flat, {packed:,} packed: shared {flat / packed:.2f} times"
    return TrainingPlan(epochs, tokens, key), [told(epochs[0]), *planned, shared]


def _by_row(encoder: Tokenizer, config: Config, known: Dataset) -> tuple[Asking, Telling]:
    """Render each query once; its few-shot examples do not depend on the batch."""
    shown = dataset.shown(known, config.prompt, known.train)
    asked = render_queries(encoder, config.prompt, known.train, shown)
    ids = {query.query_id: row for query, row in zip(known.train, asked.tokens, strict=True)}
    line = f"train: {asked.summary()}"
    return lambda batch: [ids[id_] for id_ in batch.query_ids], lambda _: line


def _by_batch(encoder: Tokenizer, config: Config, known: Dataset) -> tuple[Asking, Telling]:
    """Render queries batch by batch, all of a batch behind the same examples."""
    shelf.guard(known.pool, known.split)
    by_id = {query.query_id: query for query in known.train}

    def asked(batch: Batch) -> RenderedQueries:
        queries = [by_id[id_] for id_ in batch.query_ids]
        shared = shelf.for_batch(
            queries,
            known.pool,
            count=config.prompt.example_count,
            seed=config.prompt.example_seed,
        )
        chosen = {query.query_id: shared for query in queries}
        return render(encoder, config.prompt, queries, chosen)

    def told(first: Sequence[Batch]) -> str:
        whole = _together([asked(batch) for batch in first])
        need_examples(config.prompt, whole)
        return f"train, first epoch: {whole.summary()}"

    return lambda batch: asked(batch).tokens, told


def _together(parts: Sequence[RenderedQueries]) -> RenderedQueries:
    """Return the queries of several batches as one list."""
    return RenderedQueries(
        [text for part in parts for text in part.texts],
        [ids for part in parts for ids in part.tokens],
        sum(part.carrying for part in parts),
        sum(part.cut for part in parts),
    )
