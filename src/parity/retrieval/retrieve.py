"""The one retrieval: render, tokenize, pack, embed, search.

Mining, evaluation, in-training evaluation, prediction and the kernel call it; it reads no files
and knows no labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parity.competition.few_shot import Example
from parity.competition.query import Corpus, MisconceptionId, Query, QueryId
from parity.competition.ranking import Ranking
from parity.retrieval import prompts, search
from parity.retrieval.encoder import Encoder
from parity.retrieval.prompts import Rendered
from parity.retrieval.search import Embeddings
from parity.retrieval.tokenizer import Tokenizer
from parity.run import digest
from parity.run.config.run_file import PromptConfig
from parity.run.errors import BadConfig

Examples = Mapping[QueryId, Sequence[Example]]
"""Query id → its few-shot examples; queries without an entry carry none."""


@dataclass(frozen=True, slots=True)
class RenderedQueries:
    """Queries as token ids, with what rendering did to them.

    Attributes:
        texts: one prompt a query.
        tokens: one list of ids a query.
        carrying: how many carry examples.
        cut: how many lost part of their question text.
    """

    texts: list[str]
    tokens: list[list[int]]
    carrying: int
    cut: int

    def summary(self) -> str:
        """Return one line for a person."""
        rows = len(self.texts)
        return f"{rows} queries, {self.carrying} with few-shot examples, {self.cut} cut to fit"

    def digests(self) -> dict[str, str]:
        """Return the digests of texts and of token ids."""
        flat = [" ".join(map(str, ids)) for ids in self.tokens]
        return {"texts": digest.of_lines(self.texts), "tokens": digest.of_lines(flat)}


def render_queries(
    reader: Tokenizer, config: PromptConfig, queries: Sequence[Query], examples: Examples
) -> RenderedQueries:
    """Render and tokenize queries.

    Raises:
        BadConfig: few-shot examples are switched on and not one query carries any.
    """
    asked = render(reader, config, queries, examples)
    need_examples(config, asked)
    return asked


def render(
    reader: Tokenizer, config: PromptConfig, queries: Sequence[Query], examples: Examples
) -> RenderedQueries:
    """Do as `ask` does for queries that are a part of what is asked: none need carry examples."""
    prompts.check(config)
    shown = [examples.get(query.query_id, ()) for query in queries]
    rendered = [
        Rendered(prompts.whole(config, one, own), len(own), cut=False)
        for one, own in zip(queries, shown, strict=True)
    ]
    # To read a text takes long, and most of them fit: all are read at once, those that turn out
    # longer than a prompt may be are shortened, each by itself, and read again.
    tokens = reader.tokenize([one.text for one in rendered], config.query_max_length + 1)
    long = [place for place, ids in enumerate(tokens) if len(ids) > config.query_max_length]
    for place in long:
        rendered[place] = prompts.query(config, queries[place], shown[place], count=reader.count)
    again = reader.tokenize([rendered[place].text for place in long], config.query_max_length)
    for place, ids in zip(long, again, strict=True):
        tokens[place] = ids
    return RenderedQueries(
        [one.text for one in rendered],
        tokens,
        sum(one.examples > 0 for one in rendered),
        sum(one.cut for one in rendered),
    )


def need_examples(config: PromptConfig, asked: RenderedQueries) -> None:
    """Check that a query carries few-shot examples, where they are switched on.

    Raises:
        BadConfig: not one does.
    """
    if asked.texts and config.examples != "none" and asked.carrying == 0:
        raise BadConfig(
            f"prompt.examples = {config.examples!r}, but none of {len(asked.texts)} queries "
            f"carries one: raise prompt.query_max_length (now {config.query_max_length}) or set "
            "prompt.examples to none"
        )


@dataclass(frozen=True, slots=True)
class Index:
    """The corpus as one encoder embeds it.

    Attributes:
        ids: m misconception ids, ascending.
        vectors: (m, d) float32, unit norm.
    """

    ids: list[MisconceptionId]
    vectors: Embeddings


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What one search asked and answered.

    Attributes:
        asked: the queries as texts and token ids.
        vectors: (n, d) float32, the queries' embeddings.
        ranking: the answer.
    """

    asked: RenderedQueries
    vectors: Embeddings
    ranking: Ranking


def index(encoder: Encoder, config: PromptConfig, corpus: Corpus) -> Index:
    """Embed the corpus once, for searches that share it."""
    return Index(
        sorted(corpus), encoder.embed(passages(encoder, config, corpus), "encode the corpus")
    )


def passages(reader: Tokenizer, config: PromptConfig, corpus: Corpus) -> list[list[int]]:
    """Return the token ids of every passage, in ascending order of misconception id."""
    texts = [prompts.passage(config, corpus[key]) for key in sorted(corpus)]
    return reader.tokenize(texts, config.passage_max_length)


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
        encoder: base and adapter.
        config: the prompt's templates and lengths.
        queries: what is asked, in the order of the answer.
        corpus: as `index` embedded it with this encoder; searches may share it.
        examples: few-shot examples for each query.
        k: how many ids to keep; the whole corpus where it is smaller.

    Raises:
        BadConfig: few-shot examples are switched on and not one query carries any.
    """
    asked = render_queries(encoder, config, queries, examples)
    vectors = encoder.embed(asked.tokens, "encode the queries")
    ids, scores = search.top(vectors, corpus.vectors, corpus.ids, k=k)
    ranking = Ranking(tuple(query.query_id for query in queries), ids, scores)
    return Retrieval(asked, vectors, ranking)
