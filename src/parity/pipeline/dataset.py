"""Dataset that `prepare` wrote, and the few-shot examples of each query."""

from collections.abc import Sequence
from dataclasses import dataclass

from parity.competition import few_shot
from parity.competition.base import Competition
from parity.competition.corpus import Corpus, read_corpus, read_qrels
from parity.competition.few_shot import Example
from parity.competition.kinds import competition_of
from parity.competition.query import Position, Qrels, Query, QueryId, UnitId, read_queries
from parity.competition.scoring.row_metrics import Metric
from parity.competition.splits import split as splits
from parity.competition.splits.split import Split
from parity.retrieval import prompts
from parity.run import files
from parity.run import manifest as manifests
from parity.run.config.competition import CompetitionConfig
from parity.run.config.prompt import PromptConfig
from parity.run.config.run_file import Config
from parity.run.paths import RunPaths


@dataclass(frozen=True, slots=True)
class Dataset:
    """Competition data of one run with its split.

    Attributes:
        competition: metric, fields and submission format.
        queries: labeled queries.
        qrels: positives of each labeled query.
        test: queries to predict.
        corpus: all passages.
        split: ids of the train and validation sets, and the unseen rows.
        pool: few-shot examples that may be shown.
        probe: queries for comparing environments.
    """

    competition: Competition
    queries: list[Query]
    qrels: Qrels
    test: list[Query]
    corpus: Corpus
    split: Split
    pool: tuple[Example, ...]
    probe: list[Query]

    @property
    def train(self) -> list[Query]:
        """Labeled queries of the training set."""
        return self._queries_of(self.split.train)

    @property
    def valid(self) -> list[Query]:
        """Labeled queries of the validation set."""
        return self._queries_of(self.split.valid)

    @property
    def valid_qrels(self) -> Qrels:
        """Positives of each query of `valid`."""
        return {query.query_id: self.qrels[query.query_id] for query in self.valid}

    @property
    def positives(self) -> frozenset[Position]:
        """Passages that are positives of a query of `train`."""
        rows = (self.qrels[query.query_id] for query in self.train)
        return frozenset[Position]().union(*rows)

    @property
    def metric(self) -> Metric:
        """Metric of the competition, with a depth no larger than the corpus."""
        return self.competition.metric.within(len(self.corpus))

    def _queries_of(self, ids: Sequence[UnitId]) -> list[Query]:
        units = frozenset(ids)
        return [query for query in self.queries if query.unit in units]


def load(config: Config, paths: RunPaths) -> Dataset:
    """Read what `prepare` wrote, with the split of the config.

    A split that `prepare` did not write is made from the prepared rows, with its few-shot examples.

    Raises:
        BadConfig: a template names a field that the competition does not have, or the split leaves
            a set empty.
    """
    competition = open_competition(config.competition, config.prompt)
    folder = paths.prepare
    queries = read_queries(folder / "queries.jsonl")
    corpus = read_corpus(folder / "corpus.jsonl")
    qrels = read_qrels(folder / "qrels.jsonl", corpus)
    by_id = {query.query_id: query for query in queries}
    split = _prepared_split(config, paths)
    if split is not None:
        pool = few_shot.read(folder / "examples.jsonl", queries, corpus)
    else:
        competition.check_split(config.split)
        split = splits.make(queries, qrels, config.split)
        pool = few_shot.pool(queries, qrels, corpus, split)
    return Dataset(
        competition=competition,
        queries=queries,
        qrels=qrels,
        test=read_queries(folder / "test_queries.jsonl"),
        corpus=corpus,
        split=split,
        pool=pool,
        probe=[by_id[row["query_id"]] for row in files.read_jsonl(folder / "probe.jsonl")],
    )


def _prepared_split(config: Config, paths: RunPaths) -> Split | None:
    """Return the split that `prepare` wrote if it is the config's; None if it is another one."""
    manifest, path = manifests.read(paths.prepare), paths.split(config.split.name)
    is_written = manifest is not None and f"splits/{path.name}" in manifest.outputs
    return Split.read(path) if is_written else None


def open_competition(config: CompetitionConfig, prompt: PromptConfig) -> Competition:
    """Return the competition, after checking the templates of a prompt against its fields.

    Raises:
        BadConfig: a template names a field that the competition does not have.
    """
    competition = competition_of(config)
    prompts.check(
        prompt,
        fields=competition.fields,
        required=competition.required_field,
        passage_fields=competition.passage_fields,
    )
    return competition


def shown(
    data: Dataset, config: PromptConfig, queries: Sequence[Query]
) -> dict[QueryId, tuple[Example, ...]]:
    """Return each query's few-shot examples, after checking that they are from other train rows.

    Raises:
        Contaminated: an example is from the validation set, or shows a query its own answer.
    """
    few_shot.guard(data.pool, data.split)
    return few_shot.shown(queries, data.pool, config)


def texts(data: Dataset) -> list[str]:
    """Return every text of the competition; publishing them requires a license."""
    queries = [*data.queries, *data.test]
    return [*data.corpus.values(), *(text for query in queries for text in query.fields.values())]
