"""Few-shot examples for prompts: from the train side alone, and never what the query itself asks.

Every choice is a function of the query, the pool, the seed and nothing else: not of the queries
beside it, a global generator or a library's version, so a prompt is the same in every stage.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from parity.competition.lineage import normalize
from parity.competition.query import Corpus, MisconceptionId, Qrels, Query, QueryId
from parity.competition.splits.split import Split
from parity.run import digest, files
from parity.run.config.run_file import PromptConfig
from parity.run.errors import BadData, Contaminated, Mismatch

Mode = Literal["none", "fixed", "question", "random", "batch"]

_ROWS = 256  # questions compared at once; the result does not depend on it
_DECIMALS = 9  # of a cosine; beyond them two machines may differ, and nearest would with them


@dataclass(frozen=True, slots=True)
class Example:
    """A query with its answer, as a prompt shows it.

    Attributes:
        query: a row of train.
        misconception_id: one that is right for it.
        passage: that one's sentence.
    """

    query: Query
    misconception_id: MisconceptionId
    passage: str


def pool(
    queries: Iterable[Query], qrels: Qrels, corpus: Corpus, split: Split
) -> tuple[Example, ...]:
    """Return the labeled rows of train as few-shot examples, by question id, then answer.

    A row with several right misconceptions shows the one with the smallest id.
    """
    train = frozenset(split.train)
    rows = sorted(
        (query for query in queries if query.question_id in train and qrels.get(query.query_id)),
        key=lambda item: (item.question_id, item.answer),
    )
    return tuple(Example(row, right := min(qrels[row.query_id]), corpus[right]) for row in rows)


def write(path: Path, pool: Iterable[Example]) -> None:
    """Write `examples.jsonl`: ids alone, no text."""
    files.write_jsonl(
        path,
        (
            {"query_id": one.query.query_id, "misconception_id": one.misconception_id}
            for one in pool
        ),
    )


def read(path: Path, queries: Iterable[Query], corpus: Corpus) -> tuple[Example, ...]:
    """Read what `write` wrote, taking the texts from the competition's files.

    A line that carries the digest of its text is proven by it.

    Raises:
        BadData: a line is no few-shot example, or names an id that the files do not have.
        Mismatch: a text here is not the one its line was written for.
    """
    known = {query.query_id: query for query in queries}
    found = []
    for number, row in enumerate(files.read_jsonl(path), start=1):
        if not isinstance(row, dict) or row.keys() - {"sha256"} != {"query_id", "misconception_id"}:
            raise BadData(f"{path}, line {number}: want query_id and misconception_id")
        query_id, right = row["query_id"], row["misconception_id"]
        if query_id not in known:
            raise BadData(f"{path}, line {number}: no labeled row {query_id!r} in train.csv")
        if right not in corpus:
            raise BadData(f"{path}, line {number}: no misconception {right!r} in the corpus")
        found.append(Example(known[query_id], right, corpus[right]))
        if row.get("sha256", wanted := text_digest(found[-1])) != wanted:
            raise Mismatch(f"example {query_id}: its text here is not the one it was packed with")
    return tuple(found)


def text_digest(one: Example) -> str:
    """Return the digest of all that a prompt can show of an few-shot example."""
    return digest.of_value([asdict(one.query), one.misconception_id, one.passage])


def guard(pool: Iterable[Example], split: Split) -> None:
    """Check that every few-shot example, hand-picked ones too, is of a train question of the split.

    Raises:
        Contaminated: one is not; says how many and names the first.
    """
    train = frozenset(split.train)
    if odd := [one.query.query_id for one in pool if one.query.question_id not in train]:
        raise Contaminated(
            f"examples outside the train side of split {split.name}: {len(odd)} "
            f"(first: {odd[0]}); run `./inv prepare`, which picks them from train alone"
        )


def leaks(
    queries: Iterable[Query], chosen: Mapping[QueryId, Sequence[Example]]
) -> tuple[QueryId, ...]:
    """Return the queries that are shown their own question, or one with the same text."""
    return tuple(
        query.query_id
        for query in queries
        if any(_alike(query, shown.query) for shown in chosen.get(query.query_id, ()))
    )


def choose(
    queries: Sequence[Query], pool: Sequence[Example], *, mode: Mode, count: int, seed: int = 0
) -> dict[QueryId, tuple[Example, ...]]:
    """Return each query's few-shot examples, no two of them with one question text.

    A query never gets its own question or one with the same text. It gets fewer than `count` where
    there are no more.

    Args:
        queries: what is asked.
        pool: what may be shown; its order does not matter.
        mode: `none`; `fixed`, the same for all, the next in order where one would leak; `batch`,
            which outside of training is `fixed`; `question`, of the train questions nearest by
            TF-IDF cosine over subject, construct and question, ties to the smaller id, and of
            these the row with the smallest answer; `random`, by hash of the query id.
        count: few-shot examples in a prompt.
        seed: of `fixed`, `batch` and `random`.
    """
    if mode == "none" or not count or not pool:
        return {query.query_id: () for query in queries}
    shelf = sorted(pool, key=_place)
    if mode == "question":
        return _nearest(queries, shelf, count)
    return {
        query.query_id: _draw(
            shelf,
            f"{seed}/random/{query.query_id}" if mode == "random" else f"{seed}/fixed",
            [query],
            count,
        )
        for query in queries
    }


def shown(
    queries: Sequence[Query], pool: Sequence[Example], config: PromptConfig
) -> dict[QueryId, tuple[Example, ...]]:
    """Return each query's few-shot examples as the prompt's settings want them, proven not to leak.

    Raises:
        Contaminated: a query would be shown its own question, or one with the same text.
    """
    chosen = choose(
        queries,
        pool,
        mode=config.examples,
        count=config.example_count,
        seed=config.example_seed,
    )
    if leaking := leaks(queries, chosen):
        raise Contaminated(
            f"{len(leaking)} queries are shown their own question as an few-shot example "
            f"(first: {leaking[0]}); run: invoke prepare"
        )
    return chosen


def for_batch(
    queries: Sequence[Query], pool: Sequence[Example], *, count: int, seed: int
) -> tuple[Example, ...]:
    """Return the few-shot examples that all queries of a training batch share.

    None is from, or has the text of, any question of the batch. They depend on the batch's query
    ids, not on their order, and on the seed.
    """
    name = "/".join((str(seed), "batch", *sorted(query.query_id for query in queries)))
    return _draw(sorted(pool, key=_place), name, queries, count)


class _Choice:
    """What one prompt shows so far: `count` at most, no text twice, none that leaks."""

    def __init__(self, asked: Iterable[Query], count: int) -> None:
        self.shown: list[Example] = []
        self._count = count
        queries = list(asked)
        self._questions = {query.question_id for query in queries}
        self._texts = {normalize(query.question) for query in queries}

    @property
    def full(self) -> bool:
        return len(self.shown) >= self._count

    def offer(self, example: Example) -> None:
        text = normalize(example.query.question)
        if not (self.full or example.query.question_id in self._questions or text in self._texts):
            self._texts.add(text)
            self.shown.append(example)


def _draw(
    shelf: Sequence[Example], name: str, asked: Sequence[Query], count: int
) -> tuple[Example, ...]:
    """Return examples in an order that `name` alone gives, without those that leak to `asked`."""
    choice = _Choice(asked, count)
    tried: set[int] = set()
    draw = 0
    while not choice.full and len(tried) < len(shelf):
        place = int(digest.of_text(f"{name}/{draw}"), 16) % len(shelf)
        draw += 1
        if place not in tried:
            tried.add(place)
            choice.offer(shelf[place])
    return tuple(choice.shown)


def _nearest(
    queries: Sequence[Query], shelf: Sequence[Example], count: int
) -> dict[QueryId, tuple[Example, ...]]:
    first: dict[int, Example] = {}
    for example in shelf:
        first.setdefault(example.query.question_id, example)
    shown = list(first.values())
    # Fitted on the pool alone, or the words of one query would weigh in the choice of another.
    # Every sign is a word, so that no text is without one.
    vectorizer = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    weights = vectorizer.fit_transform(_text(one.query) for one in shown).T.tocsr()
    chosen: dict[QueryId, tuple[Example, ...]] = {}
    for start in range(0, len(queries), _ROWS):
        block = queries[start : start + _ROWS]
        cosine = (vectorizer.transform(_text(query) for query in block) @ weights).toarray()
        # A stable sort over ascending ids is what sends ties to the smaller id.
        order = np.argsort(-np.round(cosine, _DECIMALS), axis=1, kind="stable")  # (b, questions)
        for query, places in zip(block, order.tolist(), strict=True):
            choice = _Choice([query], count)
            for place in places:
                if choice.full:
                    break
                choice.offer(shown[place])
            chosen[query.query_id] = tuple(choice.shown)
    return chosen


def _text(query: Query) -> str:
    return f"{query.subject} {query.construct} {query.question}"


def _place(example: Example) -> tuple[int, str]:
    return example.query.question_id, example.query.answer


def _alike(one: Query, other: Query) -> bool:
    if one.question_id == other.question_id:
        return True
    return normalize(one.question) == normalize(other.question)
