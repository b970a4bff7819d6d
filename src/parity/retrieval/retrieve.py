"""Retrieval: render, tokenize, pack, embed and search.

Mining, evaluation, in-training evaluation, prediction and the kernel all call it. It reads no files
and uses no labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parity.competition.few_shot import Example
from parity.competition.query import Passages, Query, QueryId
from parity.competition.ranking import Ranking
from parity.retrieval import prompts, search
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import positions
from parity.retrieval.prompts import Rendered
from parity.retrieval.search import Embeddings
from parity.retrieval.tokenizer import Tokenizer
from parity.run import digest
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadConfig

Examples = Mapping[QueryId, Sequence[Example]]
"""Query id → its few-shot examples; queries without an entry have none."""


@dataclass(frozen=True, slots=True)
class RenderedQueries:
    """Queries as texts and token ids.

    Attributes:
        texts: prompt of each query.
        tokens: token ids of each query.
        carrying: number of queries with few-shot examples.
        cut: number of queries whose text was shortened.
    """

    texts: list[str]
    tokens: list[list[int]]
    carrying: int
    cut: int

    def summary(self) -> str:
        """Return a summary in one line."""
        rows = len(self.texts)
        return f"{rows} queries, {self.carrying} with few-shot examples, {self.cut} cut to fit"

    def digests(self) -> dict[str, str]:
        """Return the digests of texts and of token ids."""
        flat = [" ".join(map(str, ids)) for ids in self.tokens]
        return {"texts": digest.of_lines(self.texts), "tokens": digest.of_lines(flat)}


def render_queries(
    tokenizer: Tokenizer, config: PromptConfig, queries: Sequence[Query], examples: Examples
) -> RenderedQueries:
    """Render and tokenize queries.

    Raises:
        BadConfig: few-shot examples are on, but not a single query has one.
    """
    rendered = render(tokenizer, config, queries, examples)
    need_examples(config, rendered)
    return rendered


def render(
    tokenizer: Tokenizer, config: PromptConfig, queries: Sequence[Query], examples: Examples
) -> RenderedQueries:
    """Render and tokenize part of the queries; they may all be without examples.

    Raises:
        BadConfig: prompts may be longer than the positions of the base model.
    """
    limit, length = tokenizer.longest_text, config.query_max_length
    positions.check_length(limit, length, "query_max_length", tokenizer.base.name)
    if queries:
        first = queries[0]
        prompts.check_query(config, fields=first.fields, required=first.layout.shorten[-1])
    shown = [examples.get(query.query_id, ()) for query in queries]
    rendered = [
        Rendered(prompts.full_prompt(config, query, chosen), len(chosen), cut=False)
        for query, chosen in zip(queries, shown, strict=True)
    ]
    # Tokenization is slow and most prompts fit, so all are tokenized at once. Only prompts that are
    # too long are shortened one by one and tokenized a second time.
    tokens = tokenizer.tokenize([item.text for item in rendered], config.query_max_length + 1)
    long = [row for row, ids in enumerate(tokens) if len(ids) > config.query_max_length]
    for row in long:
        rendered[row] = prompts.query(config, queries[row], shown[row], count=tokenizer.count)
    shortened = tokenizer.tokenize([rendered[row].text for row in long], config.query_max_length)
    for row, ids in zip(long, shortened, strict=True):
        tokens[row] = ids
    return RenderedQueries(
        [item.text for item in rendered],
        tokens,
        sum(item.examples > 0 for item in rendered),
        sum(item.cut for item in rendered),
    )


def need_examples(config: PromptConfig, rendered: RenderedQueries) -> None:
    """Check that at least one query has few-shot examples, if they are on.

    Raises:
        BadConfig: not a single query has one.
    """
    if rendered.texts and config.examples != "none" and rendered.carrying == 0:
        raise BadConfig(
            f"prompt.examples = {config.examples!r}, but 0 of {len(rendered.texts)} queries "
            f"have one. Raise prompt.query_max_length (now {config.query_max_length}) or set "
            "prompt.examples to none"
        )


@dataclass(frozen=True, slots=True)
class Index:
    """Corpus embedded by one encoder.

    Attributes:
        vectors: (m, d) float32, unit norm, in the corpus' order.
    """

    vectors: Embeddings


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Queries, embeddings and ranking of one search.

    Attributes:
        queries: queries as texts and token ids.
        vectors: (n, d) float32, unit norm, embeddings of the queries.
        ranking: best passages of each query.
    """

    queries: RenderedQueries
    vectors: Embeddings
    ranking: Ranking


def index(encoder: Encoder, config: PromptConfig, corpus: Passages) -> Index:
    """Embed the corpus, so that several searches can share it."""
    names = [f"passage {key}" for key in sorted(corpus)]
    return Index(encoder.embed(passages(encoder, config, corpus), "encode the corpus", names))


def passages(tokenizer: Tokenizer, config: PromptConfig, corpus: Passages) -> list[list[int]]:
    """Return the token ids of every passage, in the corpus' order.

    Raises:
        BadConfig: passages may be longer than the positions of the base model.
    """
    limit, length = tokenizer.longest_text, config.passage_max_length
    positions.check_length(limit, length, "passage_max_length", tokenizer.base.name)
    texts = [prompts.passage(config, corpus[key]) for key in sorted(corpus)]
    return tokenizer.tokenize(texts, config.passage_max_length)


def retrieve(
    encoder: Encoder,
    config: PromptConfig,
    queries: Sequence[Query],
    corpus: Index,
    examples: Examples,
    *,
    k: int,
) -> Retrieval:
    """Rank the corpus for every query.

    Args:
        encoder: base model and adapter.
        config: templates and lengths of the prompt.
        queries: queries, in the order of the ranking.
        corpus: result of `index` with this encoder; several searches may share it.
        examples: few-shot examples of each query.
        k: number of passages per query; the size of the corpus if that is smaller.

    Raises:
        BadConfig: few-shot examples are on, but not a single query has one.
    """
    rendered = render_queries(encoder, config, queries, examples)
    names = [f"query {query.query_id}" for query in queries]
    vectors = encoder.embed(rendered.tokens, "encode the queries", names)
    positions, scores = search.top(vectors, corpus.vectors, k=k)
    ranking = Ranking(tuple(query.query_id for query in queries), positions, scores)
    return Retrieval(rendered, vectors, ranking)
