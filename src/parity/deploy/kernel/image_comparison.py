"""What another environment made of the same bundle, beside what was made here: no byte promise.

Texts and token ids must be equal, embeddings nearly so in full precision; what the small rest does
to rankings is counted and told, never judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity.competition import ranking as rankings
from parity.competition.eedi import submission
from parity.competition.query import Qrels
from parity.competition.ranking import Ids, Ranking
from parity.competition.scoring import metrics
from parity.run.errors import Mismatch

NEAR = 1e-5
"""How far below 1 the cosine of two embeddings of one text may lie in fp32."""
_EXACT = ("template", "examples", "texts", "tokens")
_K = submission.K


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """What one environment made.

    Attributes:
        layers: evidence layer → digest or value.
        vectors: (n, d) float32, the probe's embeddings.
        ranking: the probe's.
        submission: the test's.
    """

    layers: Mapping[str, str]
    vectors: NDArray[np.float32]
    ranking: Ranking
    submission: Ranking


@dataclass(frozen=True, slots=True)
class Comparison:
    """Where two environments part.

    Attributes:
        unequal: the first layer up to the token ids that differs, empty where none does.
        cosine: the smallest of the probe's embeddings here and there.
        overlap: mean share of the first 25 ids of a row of the test that both have.
        rows: rows of the submission that differ, in ids or in their order.
        of: rows of the submission.
        difference: MAP@25 of the probe there, less that here; None without labels.
    """

    unequal: str
    cosine: float
    overlap: float
    rows: int
    of: int
    difference: float | None

    def __str__(self) -> str:
        """Return it as a line for a person."""
        parts = [
            f"first layer that differs: {self.unequal}" if self.unequal else "token ids equal",
            f"probe cosine at least {self.cosine:.7f}",
            f"overlap@{_K} {self.overlap:.4f}",
            f"{self.rows} of {self.of} rows of the submission differ",
        ]
        if self.difference is not None:
            parts.append(f"MAP@{_K} of the probe {self.difference:+.5f}")
        return "; ".join(parts)


def read(folder: Path, layers: Mapping[str, str], submitted: Path) -> RunOutputs:
    """Return what lies in a folder of `probe.npy` and `probe_ranking.jsonl`, and a submission."""
    return RunOutputs(
        layers=layers,
        vectors=np.load(folder / "probe.npy"),
        ranking=rankings.read(folder / "probe_ranking.jsonl"),
        submission=submission.read(submitted),
    )


def compare(here: RunOutputs, there: RunOutputs, qrels: Qrels | None = None) -> Comparison:
    """Compare what two environments made of one bundle.

    Args:
        here: what was made locally.
        there: what the other environment made.
        qrels: the probe's labels, where the difference of its MAP is wanted.

    Raises:
        Mismatch: they ranked other rows, or embeddings of another size.
    """
    for one, other, what in (
        (here.submission.query_ids, there.submission.query_ids, "rows of the test"),
        (here.ranking.query_ids, there.ranking.query_ids, "rows of the probe"),
        (here.vectors.shape, there.vectors.shape, "sizes of the probe's embeddings"),
    ):
        if one != other:
            raise Mismatch(f"the {what} here are not those there: was it the same bundle and test?")
    odd = (name for name in _EXACT if here.layers.get(name) != there.layers.get(name))
    mine, theirs = here.submission.ids, there.submission.ids
    return Comparison(
        unequal=next(odd, ""),
        cosine=float(cosines(here.vectors, there.vectors).min(initial=1.0)),
        overlap=float(np.mean(overlaps(mine, theirs))),
        rows=sum(ids != others for ids, others in zip(mine.tolist(), theirs.tolist(), strict=True)),
        of=len(mine),
        difference=None if qrels is None else _map(there, qrels) - _map(here, qrels),
    )


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each row's cosine, (n,) float64; rows have unit norm but for rounding."""
    a, b = one.astype(np.float64), other.astype(np.float64)  # (n, d)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)  # (n,)
    found: NDArray[np.float64] = (a * b).sum(axis=1) / norms
    return found


def overlaps(mine: Ids, theirs: Ids) -> list[float]:
    """Return for each row the share of my ids that are among theirs, whatever their order."""
    pairs = zip(mine.tolist(), theirs.tolist(), strict=True)
    return [len(set(ids) & set(others)) / len(ids) for ids, others in pairs]


def compare_outputs(found: Comparison, precision: str) -> None:
    """Check that two environments agree as far as they must.

    Args:
        found: the comparison.
        precision: compute dtype; in fp32 embeddings must be near, in others they are only told.

    Raises:
        Mismatch: texts or token ids differ, or embeddings in fp32.
    """
    if found.unequal:
        raise Mismatch(
            f"layer {found.unequal} differs between the environments: another version of a library "
            "reads the same files otherwise; compare environment.packages of both reports"
        )
    if precision == "fp32" and found.cosine < 1 - NEAR:
        raise Mismatch(
            f"a probe embedding has cosine {found.cosine:.7f} with the one made here; in fp32 want "
            f"1 - {NEAR:g} at least"
        )


def _map(side: RunOutputs, qrels: Qrels) -> float:
    labels = {query_id: qrels[query_id] for query_id in side.ranking.query_ids}
    k = min(_K, side.ranking.ids.shape[1])
    return float(np.mean(list(metrics.average_precisions(side.ranking, labels, k=k).values())))
