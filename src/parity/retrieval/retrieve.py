"""The one retrieval: render, tokenize, pack, embed, search.

Mining, evaluation, in-training evaluation, prediction and the kernel call it; it reads no files
and knows no labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parity.competition.exemplars import Exemplar
from parity.competition.questions import Corpus, Query, QueryId
from parity.competition.ranking import Ranking
from parity.retrieval import prompts, search
from parity.retrieval.encoder import Encoder
from parity.run import digest
from parity.run.config import PromptConfig
from parity.run.errors import BadConfig

Exemplars = Mapping[QueryId, Sequence[Exemplar]]
"""Query id → its worked examples; queries without an entry carry none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries as token ids, with what rendering did to them.

    Attributes:
        texts: one prompt a query.
        tokens: one list of ids a query.
        carrying: how many carry exemplars.
        cut: how many lost part of their question text.
    """

    texts: list[str]
    tokens: list[list[int]]
    carrying: int
    cut: int

    def summary(self) -> str:
        """Return one line for a person."""
        rows = len(self.texts)
        return f"{rows} queries, {self.carrying} with exemplars, {self.cut} cut to fit"

    def digests(self) -> dict[str, str]:
        """Return the digests of texts and of token ids."""
        flat = [" ".join(map(str, ids)) for ids in self.tokens]
        return {"texts": digest.of_lines(self.texts), "tokens": digest.of_lines(flat)}


def ask(
    encoder: Encoder, config: PromptConfig, queries: Sequence[Query], exemplars: Exemplars
) -> Asked:
    """Render and tokenize queries.

    Raises:
        BadConfig: exemplars are switched on and not one query carries any.
    """
    prompts.check(config)
    rendered = [
        prompts.query(config, one, exemplars.get(one.query_id, ()), count=encoder.count)
        for one in queries
    ]
    carrying = sum(one.exemplars > 0 for one in rendered)
    if queries and config.exemplars != "none" and carrying == 0:
        raise BadConfig(
            f"prompt.exemplars = {config.exemplars!r}, but none of {len(queries)} queries carries "
            f"one: raise prompt.query_max (now {config.query_max}) or switch exemplars off"
        )
    texts = [one.text for one in rendered]
    tokens = encoder.tokenize(texts, config.query_max)
    return Asked(texts, tokens, carrying, sum(one.cut for one in rendered))


def passages(encoder: Encoder, config: PromptConfig, corpus: Corpus) -> list[list[int]]:
    """Return the token ids of every passage, in ascending order of misconception id."""
    texts = [prompts.passage(config, corpus[key]) for key in sorted(corpus)]
    return encoder.tokenize(texts, config.passage_max)


def retrieve(
    encoder: Encoder,
    config: PromptConfig,
    queries: Sequence[Query],
    corpus: Corpus,
    exemplars: Exemplars,
    *,
    k: int,
) -> Ranking:
    """Rank the corpus for every query.

    Args:
        encoder: base and adapter.
        config: the prompt's templates and lengths.
        queries: what is asked, in the order of the answer.
        corpus: misconception id → sentence.
        exemplars: worked examples for each query.
        k: how many ids to keep; the whole corpus where it is smaller.
    """
    asked = ask(encoder, config, queries, exemplars)
    query_vectors = encoder.embed(asked.tokens, "encode queries")
    passage_vectors = encoder.embed(passages(encoder, config, corpus), "encode corpus")
    ids, scores = search.top(query_vectors, passage_vectors, sorted(corpus), k=k)
    return Ranking(tuple(query.query_id for query in queries), ids, scores)
