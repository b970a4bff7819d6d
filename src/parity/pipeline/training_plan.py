"""Training plan of a run: the batches of every epoch, and the token ids of each batch."""

from collections.abc import Callable, Sequence

from parity.competition import few_shot
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

QueryTokens = Callable[[Batch], Tokens]
"""Batch → token ids of its queries."""
DescribeRendering = Callable[[Sequence[Batch]], str]
"""Batches of the first epoch → summary of how queries were rendered."""


def build_training_plan(
    encoder: Tokenizer, config: Config, data: Dataset, negatives: Negatives, key: str
) -> tuple[TrainingPlan, list[str]]:
    """Plan all epochs and render all texts before the first step.

    Args:
        encoder: tokenizer; its weights are not used.
        config: resolved config of the run.
        data: dataset of the run.
        negatives: negatives of every train query.
        key: digest of everything that the training depends on.

    Returns:
        The plan, and summary lines: rendering of the queries, statistics of each epoch, and tokens
        of the first epoch without and with prefix sharing.

    Raises:
        BadConfig: few-shot examples are on, but not a single query has one.
    """
    texts = passages(encoder, config.prompt, data.corpus)
    answers = dict(zip(sorted(data.corpus), texts, strict=True))
    render_all = _by_batch if config.prompt.examples == "batch" else _by_row
    query_tokens, describe = render_all(encoder, config, data)

    def tokens(batch: Batch) -> tuple[Tokens, Tokens]:
        return query_tokens(batch), [answers[key] for key in batch.passages]

    def sizes(batch: Batch) -> tuple[int, int]:
        sequences = [ids for side in tokens(batch) for ids in side]
        packs = encoder.packs(sequences, config.training.token_budget)
        return sum(map(len, sequences)), sum(map(len, packs))

    training_data = TrainingData(data.train, data.qrels, data.corpus, negatives)
    epochs = tuple(
        tuple(
            batching.plan(
                training_data, config.training, epoch=epoch, cost=lambda item: sizes(item)[1]
            )
        )
        for epoch in range(1, config.training.epochs + 1)
    )
    planned = [
        f"epoch {number}: {batch_stats.batch_stats(batches).text}"
        for number, batches in enumerate(epochs, start=1)
    ]
    unshared, packed = (sum(column) for column in zip(*map(sizes, epochs[0]), strict=True))
    shared = (
        f"epoch 1: {unshared:,} tokens without prefix sharing, {packed:,} with it "
        f"({unshared / packed:.2f} times fewer)"
    )
    return TrainingPlan(epochs, tokens, key), [describe(epochs[0]), *planned, shared]


def _by_row(
    encoder: Tokenizer, config: Config, data: Dataset
) -> tuple[QueryTokens, DescribeRendering]:
    """Render each query once; its few-shot examples do not depend on the batch."""
    shown = dataset.shown(data, config.prompt, data.train)
    rendered = render_queries(encoder, config.prompt, data.train, shown)
    ids = {query.query_id: row for query, row in zip(data.train, rendered.tokens, strict=True)}
    line = f"train: {rendered.summary()}"
    return lambda batch: [ids[id_] for id_ in batch.query_ids], lambda _: line


def _by_batch(
    encoder: Tokenizer, config: Config, data: Dataset
) -> tuple[QueryTokens, DescribeRendering]:
    """Render queries batch by batch; the queries of a batch have the same examples."""
    few_shot.guard(data.pool, data.split)
    by_id = {query.query_id: query for query in data.train}

    def render_batch(batch: Batch) -> RenderedQueries:
        queries = [by_id[id_] for id_ in batch.query_ids]
        shared = few_shot.for_batch(
            queries,
            data.pool,
            count=config.prompt.example_count,
            seed=config.prompt.example_seed,
        )
        chosen = {query.query_id: shared for query in queries}
        return render(encoder, config.prompt, queries, chosen)

    def describe(first: Sequence[Batch]) -> str:
        rendered = _concatenate([render_batch(batch) for batch in first])
        need_examples(config.prompt, rendered)
        return f"train, first epoch: {rendered.summary()}"

    return lambda batch: render_batch(batch).tokens, describe


def _concatenate(parts: Sequence[RenderedQueries]) -> RenderedQueries:
    """Return the queries of several batches in one list."""
    return RenderedQueries(
        [text for part in parts for text in part.texts],
        [ids for part in parts for ids in part.tokens],
        sum(part.carrying for part in parts),
        sum(part.cut for part in parts),
    )
