"""Score an encoder on the valid side: the same few lines in training and in `eval`."""

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

K = 25


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an encoder is worth, and what it did on the probe.

    Attributes:
        ranking: of the valid rows; None where the split holds none out.
        scores: of that ranking.
        probed: the probe's layers and embeddings.
        passages: the corpus as it was embedded.
        asked: how the valid rows were rendered, for a person; empty where there are none.
    """

    ranking: Ranking | None
    scores: Scores | None
    probed: ProbeResult
    passages: Embeddings
    asked: str = ""


def score(encoder: Encoder, config: Config, known: Dataset) -> Evaluation:
    """Rank and score the valid rows, and measure the probe over the same embedded corpus."""
    embedded = index(encoder, config.prompt, known.corpus)
    shown = dataset.shown(known, config.prompt, known.probe)
    probed = measure(encoder, config.prompt, known.probe, embedded, shown)
    if not known.valid:
        return Evaluation(None, None, probed, embedded.vectors)
    chosen = dataset.shown(known, config.prompt, known.valid)
    found = retrieve(encoder, config.prompt, known.valid, embedded, chosen, k=K)
    scores = evaluated(found.ranking, config, known)
    return Evaluation(found.ranking, scores, probed, embedded.vectors, found.asked.summary())


def evaluated(ranking: Ranking, config: Config, known: Dataset) -> Scores:
    """Return the scores of a ranking of the valid rows, at 25 or all a small corpus has."""
    k = min(K, len(known.corpus))
    return metrics.evaluate(ranking, known.valid_qrels, known.split.unseen, config.scoring, k=k)


def lexical(config: Config, known: Dataset) -> dict[str, Scores]:
    """Return the scores of the lexical baselines on the valid rows, by method."""
    return {
        method: evaluated(baselines.rank(method, known.valid, known.corpus, k=K), config, known)
        for method in baselines.METHODS
    }


def need_valid(known: Dataset) -> None:
    """Check that the split holds something out.

    Raises:
        BadConfig: it does not, so there is nothing to score on.
    """
    if not known.split.valid:
        raise BadConfig(
            f"split {known.split.name} holds nothing out: it is for a last training before a "
            "submission; choose another split.kind to score on"
        )
