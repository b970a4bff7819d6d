"""Scoring of an encoder on the validation set, shared by training and `eval`."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from parity.competition import lineage as lineage_rules
from parity.competition.lineage import Lineage, Status, groups
from parity.competition.query import Position, UnitId
from parity.competition.ranking import Ranking
from parity.competition.scoring import baselines, metrics
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dataset
from parity.pipeline.dataset import Dataset
from parity.retrieval.encoder import Encoder
from parity.retrieval.probe_measurement import ProbeResult, measure
from parity.retrieval.retrieve import index, retrieve
from parity.retrieval.search import Embeddings
from parity.run.config.run_file import Config
from parity.run.errors import BadConfig, Contaminated

ENOUGH = 50
"""Fewest rows for a score where some of a split were trained on: with fewer, the 95 % interval of a
MAP of .4 is wider than a quarter of it in each direction."""


@dataclass(frozen=True, slots=True)
class CleanRows:
    """Validation rows that a model is scored on.

    Attributes:
        data: dataset whose validation set holds these rows.
        status: `clean`, or `contaminated` if rows that were trained on are accepted.
        rows: number of rows.
        total: number of rows in the validation set of the split.
    """

    data: Dataset
    status: Status
    rows: int
    total: int

    @property
    def line(self) -> str:
        """How many rows are scored; empty where all are."""
        return "" if self.rows == self.total else _counted(self.rows, self.total)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of an encoder on the validation set, and its measurement on the probe.

    Attributes:
        ranking: ranking of the validation rows; None if the split has none.
        scores: scores of the ranking; None if the split has no validation rows.
        probed: layers and embeddings of the probe.
        passages: (m, d) float32, embeddings of the corpus.
        rendering: summary of how the validation rows were rendered; empty if there are none.
    """

    ranking: Ranking | None
    scores: Scores | None
    probed: ProbeResult
    passages: Embeddings
    rendering: str = ""


def score(encoder: Encoder, config: Config, data: Dataset) -> Evaluation:
    """Rank and score the validation rows, and measure the probe on the same embedded corpus."""
    embedded = index(encoder, config.prompt, data.corpus)
    shown = dataset.shown(data, config.prompt, data.probe)
    probed = measure(encoder, config.prompt, data.probe, embedded, shown, k=data.metric.k)
    if not data.valid:
        return Evaluation(None, None, probed, embedded.vectors)
    chosen = dataset.shown(data, config.prompt, data.valid)
    retrieved = retrieve(encoder, config.prompt, data.valid, embedded, chosen, k=data.metric.k)
    scores = score_ranking(retrieved.ranking, config, data)
    return Evaluation(
        retrieved.ranking, scores, probed, embedded.vectors, retrieved.queries.summary()
    )


def score_ranking(ranking: Ranking, config: Config, data: Dataset) -> Scores:
    """Return the scores of a ranking of the validation rows by the competition's metric."""
    return metrics.evaluate(
        ranking, data.valid_qrels, data.split.unseen, config.scoring, data.metric
    )


def lexical(config: Config, data: Dataset) -> dict[str, Scores]:
    """Return the scores of the lexical baselines on the validation rows, by method."""
    k = data.metric.k
    return {
        method: score_ranking(baselines.rank(method, data.valid, data.corpus, k=k), config, data)
        for method in baselines.METHODS
    }


def clean_rows(data: Dataset, lineage: Lineage, *, accept_contaminated: bool) -> CleanRows:
    """Return the dataset with the validation rows that a model can be scored on.

    Rows of units that the model was trained on are left out, if enough others remain. Seen and
    unseen refer to the labels that the model was trained on, which another split does not know.

    Args:
        data: dataset with the split to score.
        lineage: units that the model was trained on.
        accept_contaminated: True to keep rows that it was trained on.

    Raises:
        Contaminated: too few rows remain, or the lineage is unknown.
    """
    valid = data.valid
    trained = lineage_rules.overlap(lineage, data.split.valid, groups=groups(data.queries))
    rows = [query for query in valid if query.unit not in frozenset(trained)]
    is_clean = not trained and lineage.trained_on is not None
    if accept_contaminated and not is_clean:
        return CleanRows(data, "contaminated", len(valid), len(valid))
    if (len(rows) < len(valid) and len(rows) < ENOUGH) or lineage.trained_on is None:
        known = _counted(len(rows), len(valid))
        raise Contaminated(
            (
                "lineage unknown: any row may have been trained on"
                if lineage.trained_on is None
                else f"{known}. At least {ENOUGH} rows are needed for a score"
            )
            + "; --accept-contaminated scores all rows, outside tables and charts"
        )
    split = data.split
    if trained:
        units = frozenset(query.unit for query in rows)
        split = replace(split, valid=tuple(unit for unit in split.valid if unit in units))
    if lineage.trained_on and lineage.trained_on != frozenset(split.train):
        labels = labels_of(data, lineage.trained_on)
        unseen = (row.query_id for row in rows if labels.isdisjoint(data.qrels[row.query_id]))
        split = replace(split, unseen=frozenset(unseen))
    return CleanRows(replace(data, split=split), "clean", len(rows), len(valid))


def need_valid(data: Dataset) -> None:
    """Check that the split has a validation set.

    Raises:
        BadConfig: the split has no validation rows to score.
    """
    if not data.split.valid:
        raise BadConfig(
            f"split {data.split.name} holds nothing out: it is for the last training before a "
            "submission. Choose another split.kind to compute scores"
        )


def labels_of(data: Dataset, units: Collection[UnitId]) -> frozenset[Position]:
    """Return the labels of some units."""
    rows = (data.qrels[query.query_id] for query in data.queries if query.unit in units)
    return frozenset[Position]().union(*rows)


def _counted(clean: int, total: int) -> str:
    trained = total - clean
    return f"{clean} of {total} rows; {trained} {'was' if trained == 1 else 'were'} trained on"
