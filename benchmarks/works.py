"""What is encoded and trained on: texts as the model reads them, the same for every contender."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from parity.competition.eedi import kaggle_files
from parity.competition.few_shot import Example
from parity.competition.query import Corpus, Qrels, Query
from parity.retrieval import prompts
from parity.retrieval.tokenizer import Tokenizer
from parity.run.config.run_file import PromptConfig
from parity.run.errors import BadConfig, Mismatch

ENCODE = ("fixed-3", "no-examples", "corpus")
TRAIN = ("shared", "none", "random")
Examples = Literal["shared", "none", "random"]
INSTRUCTION = (
    "Given a mathematics question, the subject and the construct that it tests, its correct "
    "answer and one wrong answer that a pupil gave, retrieve the misconception, out of those that "
    "teachers have described, that most likely led the pupil to this wrong answer."
)
"""About 49 tokens, as the instruction that the targets were set with."""
PROMPT = PromptConfig(
    format="icl", instruction=INSTRUCTION, query_max_length=2048, passage_max_length=512
)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Work:
    """One list of texts to encode.

    Attributes:
        name: one of `ENCODE`.
        texts: as the model reads them, special tokens apart.
        bare: what FlagEmbedding is given where it adds instruction and examples itself.
        examples: FlagEmbedding's `examples_for_task`.
        limit: tokens of a text.
    """

    name: str
    texts: list[str]
    bare: list[str]
    examples: list[dict[str, str]]
    limit: int

    def spread(self, count: int) -> "Work":
        """Return `count` texts evenly over the whole, or all where there are fewer."""
        if count >= len(self.texts):
            return self
        places = [place * len(self.texts) // count for place in range(count)]
        return replace(
            self,
            texts=[self.texts[place] for place in places],
            bare=[self.bare[place] for place in places],
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
        positives: their right sentences.
        negatives: b lists of wrong ones.
        shown: few-shot examples from other questions, for all of the batch.
    """

    queries: list[Query]
    positives: list[str]
    negatives: list[list[str]]
    shown: list[Example]

    @property
    def bare(self) -> list[str]:
        """The queries' own texts."""
        return [prompts.bare(PROMPT, query) for query in self.queries]


@dataclass(frozen=True, slots=True)
class World:
    """The competition's rows, from which all work is cut.

    Attributes:
        queries: labeled rows, but for the questions shown as examples.
        shown: three rows of other questions.
        qrels: the right misconceptions.
        corpus: id → sentence.
    """

    queries: list[Query]
    shown: list[Example]
    qrels: Qrels
    corpus: Corpus


def read(data: Path) -> World:
    """Read Kaggle's files; three questions, drawn from seed 0, are kept as examples."""
    found = kaggle_files.read(data)
    questions = sorted({query.question_id for query in found.queries})
    kept = set(random.Random(0).sample(questions, _SHOWN))
    firsts = {
        query.question_id: query for query in reversed(found.queries) if query.question_id in kept
    }
    shown = [_example(firsts[one], found.qrels, found.corpus) for one in sorted(kept)]
    queries = [query for query in found.queries if query.question_id not in kept]
    return World(queries, shown, found.qrels, found.corpus)


def encoding(world: World, name: str, reader: Tokenizer, count: int) -> Work:
    """Return the texts of one piece of encoding work.

    Args:
        world: the competition.
        name: one of `ENCODE`.
        reader: counts tokens.
        count: the first so many queries, or passages; 0 for all.

    Raises:
        BadConfig: no such work.
        Mismatch: a query does not fit, so that the peers would read another text.
    """
    if name not in ENCODE:
        raise BadConfig(f"--work {name}: known are {', '.join(ENCODE)}")
    if name == "corpus":
        keys = sorted(world.corpus)[: count or None]
        texts = [prompts.passage(PROMPT, world.corpus[key]) for key in keys]
        return Work(name, texts, texts, [], PROMPT.passage_max_length)
    shown = world.shown if name == "fixed-3" else []
    queries = world.queries[: count or None]
    examples = [
        {
            "instruct": INSTRUCTION,
            "query": prompts.bare(PROMPT, one.query),
            "response": prompts.passage(PROMPT, one.passage),
        }
        for one in shown
    ]
    texts = rendered(queries, shown, reader)
    bare = [prompts.bare(PROMPT, query) for query in queries]
    return Work(name, texts, bare, examples, PROMPT.query_max_length)


def rendered(queries: Sequence[Query], shown: Sequence[Example], reader: Tokenizer) -> list[str]:
    """Return the queries' whole texts, the same examples before each.

    Raises:
        Mismatch: one does not fit with all its examples.
    """
    texts = [prompts.whole(PROMPT, query, shown) for query in queries]
    for one, ids in zip(queries, reader.tokenize(texts, PROMPT.query_max_length + 1), strict=True):
        if len(ids) > PROMPT.query_max_length:
            raise Mismatch(f"query {one.query_id} is longer than {PROMPT.query_max_length} tokens")
    return texts


def drawn(world: World, *, batches: int, batch: int, group: int, seed: int) -> list[Drawn]:
    """Draw batches as they come without mining: rows, a positive each, random negatives.

    Mined negatives recur within a batch more often, which only a packed step gains by.
    """
    draws = random.Random(seed)
    return [_draw(world, draws, batch, group) for _ in range(batches)]


def grouped(one: Drawn, kind: Examples, reader: Tokenizer) -> Group:
    """Return the texts of a batch that shares its few-shot examples, or has none."""
    shown = one.shown if kind == "shared" else []
    queries = rendered(one.queries, shown, reader)
    rows = zip(one.positives, one.negatives, strict=True)
    return Group(queries, [text for right, wrong in rows for text in (right, *wrong)])


def _draw(world: World, draws: random.Random, batch: int, group: int) -> Drawn:
    queries = draws.sample(world.queries, batch)
    right = [min(world.qrels[query.query_id]) for query in queries]
    wrong = [
        [key for key in draws.sample(sorted(world.corpus), group + 8) if key not in of]
        for of in (world.qrels[query.query_id] for query in queries)
    ]
    asked = {query.question_id for query in queries}
    others = [query for query in world.queries if query.question_id not in asked]
    shown = draws.sample(others, _SHOWN)
    return Drawn(
        queries,
        [world.corpus[key] for key in right],
        [[world.corpus[key] for key in keys[: group - 1]] for keys in wrong],
        [_example(one, world.qrels, world.corpus) for one in shown],
    )


def _example(one: Query, qrels: Qrels, corpus: Any) -> Example:
    right = min(qrels[one.query_id])
    return Example(one, right, corpus[right])
