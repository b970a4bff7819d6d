"""Read what `prepare` wrote, and choose the few-shot examples of each query."""

from collections.abc import Sequence
from dataclasses import dataclass

from parity.competition import corpus as misconceptions
from parity.competition import few_shot as shelf
from parity.competition import query as questions
from parity.competition.few_shot import Example
from parity.competition.query import Corpus, MisconceptionId, Qrels, Query, QueryId
from parity.competition.splits.split import Split
from parity.run import files
from parity.run.config.run_file import PromptConfig
from parity.run.experiment import Run


@dataclass(frozen=True, slots=True)
class Dataset:
    """The competition as the run's split parts it.

    Attributes:
        queries: labeled rows.
        qrels: their right misconceptions.
        test: rows of the sample submission.
        corpus: all misconceptions.
        split: train, valid, unseen.
        pool: few-shot examples that may be shown.
        probe: queries that compare environments.
    """

    queries: list[Query]
    qrels: Qrels
    test: list[Query]
    corpus: Corpus
    split: Split
    pool: tuple[Example, ...]
    probe: list[Query]

    @property
    def train(self) -> list[Query]:
        """Labeled rows of the train side."""
        return self._side(self.split.train)

    @property
    def valid(self) -> list[Query]:
        """Labeled rows of the valid side."""
        return self._side(self.split.valid)

    @property
    def valid_qrels(self) -> Qrels:
        """Labels of `valid`."""
        return {query.query_id: self.qrels[query.query_id] for query in self.valid}

    @property
    def positives(self) -> frozenset[MisconceptionId]:
        """Misconceptions that are right in a row of train."""
        rows = (self.qrels[query.query_id] for query in self.train)
        return frozenset[MisconceptionId]().union(*rows)

    def _side(self, ids: Sequence[int]) -> list[Query]:
        kept = frozenset(ids)
        return [query for query in self.queries if query.question_id in kept]


def load(run: Run) -> Dataset:
    """Read what `prepare` wrote for this run's split."""
    place = run.workspace.prepare
    queries = questions.read_queries(place / "queries.jsonl")
    corpus = misconceptions.read_corpus(place / "corpus.jsonl")
    known = {query.query_id: query for query in queries}
    return Dataset(
        queries=queries,
        qrels=questions.read_qrels(place / "qrels.jsonl"),
        test=questions.read_queries(place / "test_queries.jsonl"),
        corpus=corpus,
        split=Split.read(run.workspace.split(run.config.split.name)),
        pool=shelf.read(place / "examples.jsonl", queries, corpus),
        probe=[known[row["query_id"]] for row in files.read_jsonl(place / "probe.jsonl")],
    )


def shown(
    nouns: Dataset, config: PromptConfig, queries: Sequence[Query]
) -> dict[QueryId, tuple[Example, ...]]:
    """Return each query's few-shot examples, proven to be of train and not of its own question.

    Raises:
        Contaminated: an few-shot example is of the valid side, or shows a query its own answer.
    """
    shelf.guard(nouns.pool, nouns.split)
    return shelf.shown(queries, nouns.pool, config)


def texts(nouns: Dataset) -> list[str]:
    """Return every text of the competition, which may not leave unless a license lets it."""
    queries = [*nouns.queries, *nouns.test]
    said = [
        (query.subject, query.construct, query.question, query.correct, query.wrong)
        for query in queries
    ]
    return [*nouns.corpus.values(), *(text for row in said for text in row)]
