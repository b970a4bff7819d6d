"""Build the texts to encode and train on, as the model reads them, equal for all contenders."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from parity.competition.corpus import Corpus
from parity.competition.eedi import kaggle_files
from parity.competition.few_shot import Example
from parity.competition.query import Qrels, Query
from parity.retrieval import prompts
from parity.retrieval.tokenizer import Tokenizer
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadConfig, Mismatch

ENCODE = ("fixed-3", "no-examples", "corpus")
TRAIN = ("shared", "none", "random")
Examples = Literal["shared", "none", "random"]
INSTRUCTION = (
    "Given a mathematics question, the subject and the construct that it tests, its correct "
    "answer and one wrong answer that a pupil gave, retrieve the misconception, out of those that "
    "teachers have described, that most likely led the pupil to this wrong answer."
)
"""About 49 tokens, as many as the instruction of the targets."""
PROMPT = PromptConfig(
    format="icl", instruction=INSTRUCTION, query_max_length=2048, passage_max_length=512
)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Work:
    """A list of texts to encode.

    Attributes:
        name: one of `ENCODE`.
        texts: texts as the model reads them, without special tokens.
        plain: texts for FlagEmbedding, which adds instruction and examples.
        examples: FlagEmbedding's `examples_for_task`.
        limit: tokens of a text.
    """

    name: str
    texts: list[str]
    plain: list[str]
    examples: list[dict[str, str]]
    limit: int

    def spread(self, count: int) -> "Work":
        """Return `count` texts, evenly spaced, or all if there are fewer."""
        if count >= len(self.texts):
            return self
        indices = [index * len(self.texts) // count for index in range(count)]
        return replace(
            self,
            texts=[self.texts[index] for index in indices],
            plain=[self.plain[index] for index in indices],
        )


@dataclass(frozen=True, slots=True)
class Group:
    """The texts of one contrastive batch.

    Attributes:
        queries: b texts.
        passages: b·g texts, each query's positive first, then its negatives.
    """

    queries: list[str]
    passages: list[str]

    @property
    def size(self) -> int:
        """Passages for each query."""
        return len(self.passages) // len(self.queries)


@dataclass(frozen=True, slots=True)
class Drawn:
    """One batch before its queries are rendered.

    Attributes:
        queries: b rows.
        positives: b texts, the right passages.
        negatives: b lists of other passages.
        shown: few-shot examples from other questions, for the entire batch.
    """

    queries: list[Query]
    positives: list[str]
    negatives: list[list[str]]
    shown: list[Example]

    @property
    def plain(self) -> list[str]:
        """Texts of the queries without examples."""
        return [prompts.query_text(PROMPT, query) for query in self.queries]


@dataclass(frozen=True, slots=True)
class World:
    """Rows of the competition from which all work is built.

    Attributes:
        queries: labeled rows, without the questions of the examples.
        shown: three few-shot examples from other questions.
        qrels: labels of the rows.
        corpus: id → text.
    """

    queries: list[Query]
    shown: list[Example]
    qrels: Qrels
    corpus: Corpus


def read(data: Path) -> World:
    """Read Kaggle's files; three questions, drawn from seed 0, become examples."""
    competition = kaggle_files.read(data)
    questions = list(dict.fromkeys(query.unit for query in competition.queries))
    example_questions = set(random.Random(0).sample(questions, _SHOWN))
    firsts = {
        query.unit: query
        for query in reversed(competition.queries)
        if query.unit in example_questions
    }
    shown = [
        _example(firsts[question], competition.qrels, competition.corpus)
        for question in questions
        if question in example_questions
    ]
    queries = [query for query in competition.queries if query.unit not in example_questions]
    return World(queries, shown, competition.qrels, competition.corpus)


def encoding(world: World, name: str, reader: Tokenizer, count: int) -> Work:
    """Return the texts of one piece of encoding work.

    Args:
        world: rows of the competition.
        name: one of `ENCODE`.
        reader: tokenizer.
        count: number of queries or passages, from the first; 0 for all.

    Raises:
        BadConfig: the name is unknown.
        Mismatch: a query is too long, so that the peers would read another text.
    """
    if name not in ENCODE:
        raise BadConfig(f"unknown --work {name}. Choose from {', '.join(ENCODE)}")
    if name == "corpus":
        keys = sorted(world.corpus)[: count or None]
        texts = [prompts.passage(PROMPT, world.corpus[key]) for key in keys]
        return Work(name, texts, texts, [], PROMPT.passage_max_length)
    shown = world.shown if name == "fixed-3" else []
    queries = world.queries[: count or None]
    examples = [
        {
            "instruct": INSTRUCTION,
            "query": prompts.query_text(PROMPT, example.query),
            "response": prompts.passage(PROMPT, example.passage),
        }
        for example in shown
    ]
    texts = rendered(queries, shown, reader)
    plain = [prompts.query_text(PROMPT, query) for query in queries]
    return Work(name, texts, plain, examples, PROMPT.query_max_length)


def rendered(queries: Sequence[Query], shown: Sequence[Example], reader: Tokenizer) -> list[str]:
    """Return the complete texts of queries, with the same examples before each.

    Raises:
        Mismatch: a query is too long with its examples.
    """
    texts = [prompts.full_prompt(PROMPT, query, shown) for query in queries]
    for query, ids in zip(
        queries, reader.tokenize(texts, PROMPT.query_max_length + 1), strict=True
    ):
        if len(ids) > PROMPT.query_max_length:
            raise Mismatch(
                f"query {query.query_id} is longer than {PROMPT.query_max_length} tokens"
            )
    return texts


def drawn(world: World, *, batches: int, batch: int, group: int, seed: int) -> list[Drawn]:
    """Draw batches without mining: rows, a positive each, random negatives.

    Mined negatives repeat within a batch more often, which makes only a packed step faster.
    """
    draws = random.Random(seed)
    return [_draw(world, draws, batch, group) for _ in range(batches)]


def grouped(batch: Drawn, kind: Examples, reader: Tokenizer) -> Group:
    """Return the texts of a batch with shared few-shot examples, or without examples."""
    shown = batch.shown if kind == "shared" else []
    queries = rendered(batch.queries, shown, reader)
    rows = zip(batch.positives, batch.negatives, strict=True)
    return Group(queries, [text for right, wrong in rows for text in (right, *wrong)])


def _draw(world: World, draws: random.Random, batch: int, group: int) -> Drawn:
    queries = draws.sample(world.queries, batch)
    labels = [min(world.qrels[query.query_id]) for query in queries]
    wrong = [
        [key for key in draws.sample(sorted(world.corpus), group + 8) if key not in labels_]
        for labels_ in (world.qrels[query.query_id] for query in queries)
    ]
    questions = {query.unit for query in queries}
    other_queries = [query for query in world.queries if query.unit not in questions]
    shown = draws.sample(other_queries, _SHOWN)
    return Drawn(
        queries,
        [world.corpus[key] for key in labels],
        [[world.corpus[key] for key in keys[: group - 1]] for keys in wrong],
        [_example(query, world.qrels, world.corpus) for query in shown],
    )


def _example(query: Query, qrels: Qrels, corpus: Any) -> Example:
    label = min(qrels[query.query_id])
    return Example(query, label, corpus[label])
