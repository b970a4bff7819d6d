"""One side of a comparison: a record of evidence and whatever of its artifacts is at hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.competition.query import Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.run import ledger
from parity.run.config.run_file import ScoringConfig
from parity.run.ledger import Evidence


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """What was measured once; an artifact that is not at hand, or is of another run, is None.

    Attributes:
        evidence: the record; a CV's with the submission that `predict` made of its adapter.
        id: of the record in the ledger.
        vectors: (n, d) float32, embeddings of the probe.
        bare: the same of the bare base, to tell an adapter that did nothing.
        probe: ranking of the probe.
        valid: ranking of the valid rows.
        submission: of the test.
        texts: of the probe, `query_id`, `text`, `tokens` a row.
        settings: of the prompt, in full.
    """

    evidence: Evidence
    id: str = ""
    vectors: NDArray[np.float32] | None = None
    bare: NDArray[np.float32] | None = None
    probe: Ranking | None = None
    valid: Ranking | None = None
    submission: Ranking | None = None
    texts: list[dict[str, Any]] | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """How the record is called: run, round, where it was measured and what."""
        one = self.evidence
        return f"{one.run}/round-{one.round}/{one.kind}/{one.label}"

    @property
    def short(self) -> str:
        """The first digits of its id in the ledger."""
        return (self.id or ledger.id_of(self.evidence))[:12]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The probe's rows as the evidence tells them; none in records of schema 1."""
        found: list[dict[str, Any]] = self.evidence.facts.get("probe", [])
        return found


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What helps to judge both sides.

    Attributes:
        qrels: labels of all labeled rows; empty where they are not at hand.
        unseen: valid rows whose misconceptions train never shows.
        scoring: seen share and bootstrap.
        records: all evidence there is, to say what else has the same digest.
        pieces: token id → piece of text, of the base's tokenizer.
        with_text: whether text of the competition may be shown.
    """

    qrels: Qrels = field(default_factory=dict)
    unseen: frozenset[QueryId] = frozenset()
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    records: tuple[Evidence, ...] = ()
    pieces: Mapping[int, str] = field(default_factory=dict)
    with_text: bool = False
