"""Turn negatives into a course of training: every epoch's batches, and each batch as token ids."""

from collections.abc import Callable, Sequence

from parity.competition import exemplars as shelf
from parity.competition.questions import MisconceptionId
from parity.retrieval.encoder import Encoder
from parity.retrieval.retrieve import Asked, ask, need_exemplars, passages, render
from parity.run.config import Config
from parity.stages import nouns
from parity.stages.nouns import Nouns
from parity.training import batches as batching
from parity.training.batches import Batch
from parity.training.negatives import Negatives
from parity.training.trainer import Course, Tokens

Answers = dict[MisconceptionId, list[int]]
BatchTokens = Callable[[Batch], tuple[Tokens, Tokens]]


def write(
    encoder: Encoder, config: Config, known: Nouns, negatives: Negatives, key: str
) -> tuple[Course, list[str]]:
    """Plan all epochs and render all texts before the first step.

    Args:
        encoder: tokenizes.
        config: the resolved run.
        known: the competition.
        negatives: of every train row.
        key: digest of all that the training depends on.

    Returns:
        The course, and lines for a person: how queries were rendered, what each epoch is made of.

    Raises:
        BadConfig: exemplars are on and no query carries one.
    """
    epochs = tuple(
        tuple(
            batching.plan(
                known.train, known.qrels, known.corpus, negatives, config.training, epoch=epoch
            )
        )
        for epoch in range(1, config.training.epochs + 1)
    )
    ids = passages(encoder, config.prompt, known.corpus)
    answers = dict(zip(sorted(known.corpus), ids, strict=True))
    if config.prompt.exemplars == "batch":
        tokens, line = _by_batch(encoder, config, known, answers, epochs[0])
    else:
        tokens, line = _by_row(encoder, config, known, answers)
    planned = [
        f"epoch {number}: {batching.counts(batches).text}"
        for number, batches in enumerate(epochs, start=1)
    ]
    return Course(epochs, tokens, key), [line, *planned]


def _by_row(
    encoder: Encoder, config: Config, known: Nouns, answers: Answers
) -> tuple[BatchTokens, str]:
    """Render each query once; its exemplars do not depend on the batch."""
    shown = nouns.shown(known, config.prompt, known.train)
    asked = ask(encoder, config.prompt, known.train, shown)
    ids = {query.query_id: row for query, row in zip(known.train, asked.tokens, strict=True)}

    def tokens(batch: Batch) -> tuple[Tokens, Tokens]:
        return [ids[one] for one in batch.query_ids], [answers[key] for key in batch.passages]

    return tokens, f"train: {asked.summary()}"


def _by_batch(
    encoder: Encoder, config: Config, known: Nouns, answers: Answers, first: Sequence[Batch]
) -> tuple[BatchTokens, str]:
    """Render queries batch by batch, all of a batch behind the same exemplars."""
    shelf.guard(known.pool, known.split)
    by_id = {query.query_id: query for query in known.train}

    def asked(batch: Batch) -> Asked:
        queries = [by_id[one] for one in batch.query_ids]
        shared = shelf.for_batch(
            queries,
            known.pool,
            count=config.prompt.exemplar_count,
            seed=config.prompt.exemplar_seed,
        )
        chosen = {one.query_id: shared for one in queries}
        return render(encoder, config.prompt, queries, chosen)

    def tokens(batch: Batch) -> tuple[Tokens, Tokens]:
        return asked(batch).tokens, [answers[key] for key in batch.passages]

    whole = _together([asked(batch) for batch in first])
    need_exemplars(config.prompt, whole)
    return tokens, f"train, first epoch: {whole.summary()}"


def _together(parts: Sequence[Asked]) -> Asked:
    """Return the queries of several batches as one list."""
    return Asked(
        [text for one in parts for text in one.texts],
        [ids for one in parts for ids in one.tokens],
        sum(one.carrying for one in parts),
        sum(one.cut for one in parts),
    )
