"""Comparison of two environments that ran the same bundle; bytes may differ.

Texts and token ids must be equal, and embeddings nearly equal in fp32. Differences in rankings are
counted and reported, but never an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity.competition import ranking as rankings
from parity.competition.query import Qrels
from parity.competition.ranking import Positions, Ranking
from parity.competition.scoring import metrics
from parity.competition.scoring.row_metrics import Metric
from parity.run.errors import Mismatch
from parity.run.layers import EXACT, differences

NEAR = 1e-5
"""Largest distance from 1 of the cosine of two fp32 embeddings of the same text."""


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """Outputs of one environment.

    Attributes:
        layers: evidence layer → digest or value.
        vectors: embeddings of the probe, (n, d) float32.
        ranking: ranking of the probe.
        submission: ranking of the test.
    """

    layers: Mapping[str, str]
    vectors: NDArray[np.float32]
    ranking: Ranking
    submission: Ranking


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences between two environments.

    Attributes:
        unequal: first layer up to the token ids that differs; empty if all are equal.
        cosine: smallest cosine between the two embeddings of a probe row.
        overlap: mean share of a test row's predicted ids that both environments have.
        rows: number of submission rows that differ in ids or in order.
        of: number of submission rows.
        difference: the other environment's probe score minus the local one; None without labels.
        metric: name of that score.
    """

    unequal: str
    cosine: float
    overlap: float
    rows: int
    of: int
    difference: float | None
    metric: str

    def __str__(self) -> str:
        """Return the comparison as one line of text."""
        parts = [
            f"first layer that differs: {self.unequal}" if self.unequal else "token ids equal",
            f"probe cosine at least {self.cosine:.7f}",
            f"overlap of submissions {self.overlap:.4f}",
            f"{self.rows} of {self.of} rows of the submission differ",
        ]
        if self.difference is not None:
            parts.append(f"{self.metric} of the probe {self.difference:+.5f}")
        return "; ".join(parts)


def read(folder: Path, layers: Mapping[str, str], submitted: Ranking) -> RunOutputs:
    """Return the outputs in a folder of `probe.npy` and `probe_ranking.jsonl`."""
    return RunOutputs(
        layers=layers,
        vectors=np.load(folder / "probe.npy"),
        ranking=rankings.read(folder / "probe_ranking.jsonl"),
        submission=submitted,
    )


def compare(
    local: RunOutputs, remote: RunOutputs, metric: Metric, qrels: Qrels | None = None
) -> Comparison:
    """Compare the outputs of two environments for one bundle.

    Args:
        local: local outputs.
        remote: outputs of the other environment.
        metric: the competition's metric.
        qrels: labels of the probe, to compare its score; None to skip it.

    Raises:
        Mismatch: the rows, or the sizes of the embeddings, differ.
    """
    for local_value, remote_value, label in (
        (local.submission.query_ids, remote.submission.query_ids, "rows of the test"),
        (local.ranking.query_ids, remote.ranking.query_ids, "rows of the probe"),
        (local.vectors.shape, remote.vectors.shape, "sizes of the probe's embeddings"),
    ):
        if local_value != remote_value:
            raise Mismatch(
                f"the {label} differ between the environments. Run the same bundle and test in both"
            )
    unequal = differences(local.layers, remote.layers, EXACT, with_unknown=True)
    local_ids, remote_ids = local.submission.positions, remote.submission.positions
    return Comparison(
        unequal=next(iter(unequal), ""),
        cosine=float(cosines(local.vectors, remote.vectors).min(initial=1.0)),
        overlap=float(np.mean(overlaps(local_ids, remote_ids))),
        rows=sum(
            ids != remote_row
            for ids, remote_row in zip(local_ids.tolist(), remote_ids.tolist(), strict=True)
        ),
        of=len(local_ids),
        difference=None
        if qrels is None
        else _score(remote, qrels, metric) - _score(local, qrels, metric),
        metric=metric.title,
    )


def cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows, (n,) float64; norms are 1 up to rounding."""
    a, b = first.astype(np.float64), second.astype(np.float64)  # (n, d)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)  # (n,)
    result: NDArray[np.float64] = (a * b).sum(axis=1) / norms
    return result


def overlaps(local: Positions, remote: Positions) -> list[float]:
    """Return for each row the share of local ids that the other row has, in any order."""
    pairs = zip(local.tolist(), remote.tolist(), strict=True)
    rows = [({*ids} - {-1}, {*remote_ids}) for ids, remote_ids in pairs]  # -1 names no passage
    return [len(ids & remote_ids) / len(ids) for ids, remote_ids in rows]


def compare_outputs(comparison: Comparison, precision: str) -> None:
    """Check that two environments have equal texts and tokens, and in fp32 equal embeddings.

    Args:
        comparison: comparison of the two.
        precision: compute dtype; embeddings are checked only in fp32.

    Raises:
        Mismatch: texts or token ids differ, or fp32 embeddings are too far apart.
    """
    if comparison.unequal:
        raise Mismatch(
            f"layer {comparison.unequal} differs between the environments. Another version of a "
            "library reads the same files differently; compare environment.packages of both reports"
        )
    if precision == "fp32" and comparison.cosine < 1 - NEAR:
        raise Mismatch(
            f"a probe embedding has cosine {comparison.cosine:.7f} with the local one; "
            f"fp32 requires at least 1 - {NEAR:g}"
        )


def _score(side: RunOutputs, qrels: Qrels, metric: Metric) -> float:
    labels = {query_id: qrels[query_id] for query_id in side.ranking.query_ids}
    metric = metric.within(side.ranking.positions.shape[1])
    return float(np.mean(list(metrics.row_scores(side.ranking, labels, metric).values())))
