"""Scoring of an encoder on the validation set, shared by training and `eval`."""

from dataclasses import dataclass

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
from parity.run.errors import BadConfig


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
