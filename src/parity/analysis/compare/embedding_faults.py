"""Recognize faults that embeddings reveal: reordered rows, an adapter without effect."""

import numpy as np
from numpy.typing import NDArray

from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.deploy.kernel.image_comparison import NEAR, cosines

_FAR = 1.5  # ratio of distances from the base model that rounding cannot explain


def find_cause(a: EvidenceRecord, b: EvidenceRecord) -> list[str]:
    """Return a line if reordered rows or the base model's embeddings explain a large drift."""
    assert a.vectors is not None  # checked by the caller
    assert b.vectors is not None
    if sorted(map(tuple, a.vectors.tolist())) == sorted(map(tuple, b.vectors.tolist())):
        return ["the same embeddings in another order of rows: reordered by parallel work?"]
    base = a.base_vectors if a.base_vectors is not None else b.base_vectors
    have_adapters = all(record.evidence.layers.get("adapter") for record in (a, b))
    tokens = [record.evidence.layers.get("tokens", "") for record in (a, b)]
    # The base model is a reference for adapters only, and only for the same prompts.
    if base is None or base.shape != a.vectors.shape or not have_adapters or tokens[0] != tokens[1]:
        return []
    return _adapter_fault({"A": 1 - cosines(a.vectors, base), "B": 1 - cosines(b.vectors, base)})


def _adapter_fault(distances: dict[str, NDArray[np.float64]]) -> list[str]:
    """Return a line if an adapter has no effect, or a much larger one than the other.

    Args:
        distances: A and B → (n,) float64, distance of the embeddings from the base model's.
    """
    for letter, distance in distances.items():
        if distance.max() <= NEAR:
            return [f"{letter}'s embeddings are the base model's: its adapter was not applied"]
    near, far = sorted(distances, key=lambda letter: float(distances[letter].mean()))
    ratio = distances[far].mean() / distances[near].mean()
    if ratio < _FAR:
        return []
    return [
        f"{far} is {ratio:.1f} times as far from the base model as {near}: {far}'s adapter was "
        f"applied twice, or {near}'s in part (merged into few bits?)"
    ]
