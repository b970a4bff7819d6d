"""Few-shot examples for prompts: only from train, never from the unit of the query itself.

Every choice is a function of the query, the pool and the seed only: not of the other queries, a
global generator or a library's version, so a prompt is the same in every stage.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from parity.competition.corpus import Corpus
from parity.competition.lineage import normalize
from parity.competition.query import Passages, Position, Qrels, Query, QueryId, UnitId
from parity.competition.splits.split import Split
from parity.run import digest, files
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadData, Contaminated, Mismatch

Mode = Literal["none", "fixed", "question", "random", "batch"]

_ROWS = 256  # units compared at once; the result does not depend on it
_DECIMALS = 9  # of a cosine; beyond them two machines may differ, and so would the nearest


@dataclass(frozen=True, slots=True)
class Example:
    """A query with its answer, as a prompt shows it.

    Attributes:
        query: a row of train.
        position: a passage that is right for it.
        passage: text of that passage.
    """

    query: Query
    position: Position
    passage: str


def pool(
    queries: Iterable[Query], qrels: Qrels, corpus: Passages, split: Split
) -> tuple[Example, ...]:
    """Return the labeled rows of train as few-shot examples, in the competition's order.

    A row with several right passages shows the first one.
    """
    train = frozenset(split.train)
    rows = sorted(
        (query for query in queries if query.unit in train and qrels.get(query.query_id)),
        key=lambda item: item.order,
    )
    return tuple(Example(row, right := min(qrels[row.query_id]), corpus[right]) for row in rows)


def write(path: Path, pool: Iterable[Example], corpus: Corpus) -> None:
    """Write `examples.jsonl`: only ids, no text."""
    files.write_jsonl(
        path,
        (
            {"query_id": example.query.query_id, "passage_id": corpus.ids[example.position]}
            for example in pool
        ),
    )


def read(path: Path, queries: Iterable[Query], corpus: Corpus) -> tuple[Example, ...]:
    """Read what `write` wrote, taking the texts from the competition's files.

    A line that carries the digest of its text is checked against it.

    Raises:
        BadData: a line is not a few-shot example, or names an id that the files do not have.
        Mismatch: a text differs from the one that its line was written for.
    """
    by_id = {query.query_id: query for query in queries}
    examples = []
    for number, row in enumerate(files.read_jsonl(path), start=1):
        if not isinstance(row, dict) or row.keys() - {"sha256"} != {"query_id", "passage_id"}:
            raise BadData(f"{path}, line {number}: want query_id and passage_id")
        query_id, right = row["query_id"], corpus.find(row["passage_id"])
        if query_id not in by_id:
            raise BadData(f"{path}, line {number}: no labeled row {query_id!r} in the data")
        if right is None:
            passage_id = row["passage_id"]
            raise BadData(f"{path}, line {number}: no passage {passage_id!r} in the corpus")
        examples.append(Example(by_id[query_id], right, corpus[right]))
        if row.get("sha256", expected := text_digest(examples[-1])) != expected:
            raise Mismatch(f"example {query_id}: its text here is not the one it was packed with")
    return tuple(examples)


def text_digest(example: Example) -> str:
    """Return the digest of all that a prompt can show of a few-shot example."""
    return digest.of_value([asdict(example.query), example.position, example.passage])


def guard(pool: Iterable[Example], split: Split) -> None:
    """Check that every few-shot example, hand-picked or not, is of a train unit of the split.

    Raises:
        Contaminated: some are not; the message counts them and names the first.
    """
    train = frozenset(split.train)
    if outside := [example.query.query_id for example in pool if example.query.unit not in train]:
        raise Contaminated(
            f"examples outside the train side of split {split.name}: {len(outside)} "
            f"(first: {outside[0]})",
            fix=("prepare",),
        )


def leaks(
    queries: Iterable[Query], chosen: Mapping[QueryId, Sequence[Example]]
) -> tuple[QueryId, ...]:
    """Return the queries that are shown their own unit, or a unit with the same text."""
    return tuple(
        query.query_id
        for query in queries
        if any(_alike(query, shown.query) for shown in chosen.get(query.query_id, ()))
    )


def choose(
    queries: Sequence[Query], pool: Sequence[Example], *, mode: Mode, count: int, seed: int = 0
) -> dict[QueryId, tuple[Example, ...]]:
    """Return each query's few-shot examples, no two of them of one unit's text.

    A query never gets its own unit or a unit with the same text. It gets fewer than `count` if the
    pool holds no more.

    Args:
        queries: queries of the prompts.
        pool: few-shot examples to choose from; their order does not matter.
        mode: `none`; `fixed`, the same for all, the next in order if one would leak; `batch`,
            which equals `fixed` outside of training; `question`, of the train units nearest by
            TF-IDF cosine, ties to the first in order, and of these the first row;
            `random`, by hash of the query id.
        count: few-shot examples in a prompt.
        seed: of `fixed`, `batch` and `random`.
    """
    if mode == "none" or not count or not pool:
        return {query.query_id: () for query in queries}
    shelf = sorted(pool, key=lambda example: example.query.order)
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
    """Return each query's few-shot examples by the prompt's settings, checked for leaks.

    Raises:
        Contaminated: a query would be shown its own unit, or a unit with the same text.
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
            f"{len(leaking)} queries are shown their own unit as a few-shot example "
            f"(first: {leaking[0]})",
            fix=("prepare",),
        )
    return chosen


def for_batch(
    queries: Sequence[Query], pool: Sequence[Example], *, count: int, seed: int
) -> tuple[Example, ...]:
    """Return the few-shot examples that all queries of a training batch share.

    They share no unit and no text with the batch. They depend on the batch's query ids, not on
    their order, and on the seed.
    """
    name = "/".join((str(seed), "batch", *sorted(query.query_id for query in queries)))
    return _draw(sorted(pool, key=lambda example: example.query.order), name, queries, count)


class _Choice:
    """Examples that one prompt shows so far: at most `count`, no text twice, no leak."""

    def __init__(self, queries: Iterable[Query], count: int) -> None:
        self.shown: list[Example] = []
        self._count = count
        rows = list(queries)
        self._units = {query.unit for query in rows}
        self._texts = {text for query in rows if (text := normalize(query.identity))}

    @property
    def full(self) -> bool:
        return len(self.shown) >= self._count

    def offer(self, example: Example) -> None:
        text = normalize(example.query.identity)
        if not (self.full or example.query.unit in self._units or text in self._texts):
            self._units.add(example.query.unit)
            self._texts |= {text} - {""}
            self.shown.append(example)


def _draw(
    shelf: Sequence[Example], name: str, queries: Sequence[Query], count: int
) -> tuple[Example, ...]:
    """Return examples in an order that depends only on `name`, without leaks to `queries`."""
    choice = _Choice(queries, count)
    tried: set[int] = set()
    draw = 0
    while not choice.full and len(tried) < len(shelf):
        index = int(digest.of_text(f"{name}/{draw}"), 16) % len(shelf)
        draw += 1
        if index not in tried:
            tried.add(index)
            choice.offer(shelf[index])
    return tuple(choice.shown)


def _nearest(
    queries: Sequence[Query], shelf: Sequence[Example], count: int
) -> dict[QueryId, tuple[Example, ...]]:
    first: dict[UnitId, Example] = {}
    for example in shelf:
        first.setdefault(example.query.unit, example)
    shown = list(first.values())
    # Fit on the pool only: otherwise one query's words would change another query's examples.
    # Every sign counts as a word, so that every text has one.
    vectorizer = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    weights = vectorizer.fit_transform(example.query.nearest_text for example in shown).T.tocsr()
    chosen: dict[QueryId, tuple[Example, ...]] = {}
    for start in range(0, len(queries), _ROWS):
        block = queries[start : start + _ROWS]
        cosine = (vectorizer.transform(query.nearest_text for query in block) @ weights).toarray()
        # A stable sort sends ties to the first unit.
        order = np.argsort(-np.round(cosine, _DECIMALS), axis=1, kind="stable")  # (b, units)
        for query, indices in zip(block, order.tolist(), strict=True):
            choice = _Choice([query], count)
            for index in indices:
                if choice.full:
                    break
                choice.offer(shown[index])
            chosen[query.query_id] = tuple(choice.shown)
    return chosen


def _alike(query: Query, other: Query) -> bool:
    if query.unit == other.unit:
        return True
    text = normalize(query.identity)
    return bool(text) and text == normalize(other.identity)
