"""One side of a comparison: an evidence record and its artifacts on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.competition.query import Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.row_metrics import Metric
from parity.run import ledger
from parity.run.config.scoring import ScoringConfig
from parity.run.ledger import Evidence


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """A measurement; an artifact that is missing or belongs to another run is None.

    Attributes:
        evidence: the record; that of a CV includes the submission that `predict` made from its
            adapter.
        id: id of the record in the ledger.
        vectors: (n, d) float32, embeddings of the probe.
        base_vectors: (n, d) float32, embeddings of the probe by the base model, to recognize an
            adapter without effect.
        probe: ranking of the probe.
        valid: ranking of the validation rows.
        submission: ranking of the test.
        texts: rows of the probe with `query_id`, `text` and `tokens`.
        settings: prompt section of the run file.
    """

    evidence: Evidence
    id: str = ""
    vectors: NDArray[np.float32] | None = None
    base_vectors: NDArray[np.float32] | None = None
    probe: Ranking | None = None
    valid: Ranking | None = None
    submission: Ranking | None = None
    texts: list[dict[str, Any]] | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Return run, round, kind and label as one name."""
        evidence = self.evidence
        return f"{evidence.run}/round-{evidence.round}/{evidence.kind}/{evidence.label}"

    @property
    def short(self) -> str:
        """Return the first 12 digits of its id in the ledger."""
        return (self.id or ledger.id_of(self.evidence))[:12]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the facts of the probe's rows; an empty list for records of schema 1."""
        rows: list[dict[str, Any]] = self.evidence.facts.get("probe", [])
        return rows


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What a comparison knows in addition to the two records.

    Attributes:
        qrels: labels of all labeled rows; empty if they are not on this machine.
        unseen: validation rows with a label that never occurs in train.
        scoring: seen share and bootstrap.
        records: all records of the ledger, to find others with the same digest.
        pieces: token id → piece of text, from the base model's tokenizer.
        with_text: whether messages may show the competition's text.
        metric: the competition's metric.
    """

    qrels: Qrels = field(default_factory=dict)
    unseen: frozenset[QueryId] = frozenset()
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    records: tuple[Evidence, ...] = ()
    pieces: Mapping[int, str] = field(default_factory=dict)
    with_text: bool = False
    metric: Metric = field(default_factory=lambda: Metric("map", 25))
