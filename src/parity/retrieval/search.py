"""Exact search by float32 inner products; ties go to the smaller position."""

import numpy as np
import torch
from numpy.typing import NDArray

from parity.competition.ranking import Positions, Scores

Embeddings = NDArray[np.float32]
"""(n, d) float32, unit norm."""

_ROWS = 512  # queries per block; another size may change the rounding of scores


def top(queries: Embeddings, passages: Embeddings, *, k: int) -> tuple[Positions, Scores]:
    """Return the positions and scores of each query's best `k` passages.

    Args:
        queries: (n, d) float32.
        passages: (m, d) float32, in the corpus' order.
        k: number of passages; m if k is larger.
    """
    k = min(k, len(passages))
    positions = np.empty((len(queries), k), dtype=np.int64)
    best_scores = np.empty((len(queries), k), dtype=np.float32)
    # Rounding may depend on the column, so equal passages are scored once and tie exactly.
    distinct, index = np.unique(passages, axis=0, return_inverse=True)  # (u, d), (m,)
    corpus = torch.from_numpy(distinct).T  # (d, u)
    for start in range(0, len(queries), _ROWS):
        block = torch.from_numpy(np.ascontiguousarray(queries[start : start + _ROWS]))  # (b, d)
        scores = (block @ corpus).numpy()[:, index.reshape(-1)]  # (b, m)
        # A stable sort sends ties to the smaller position.
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # (b, k)
        positions[start : start + _ROWS] = best
        best_scores[start : start + _ROWS] = np.take_along_axis(scores, best, axis=1)
    return positions, best_scores
