"""Exact search: float32 inner products, best k, ties to the smaller id."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from parity.competition.ranking import Ids, Scores
from parity.run.errors import Mismatch

Embeddings = NDArray[np.float32]
"""(n, d) float32, unit norm."""

_ROWS = 512  # queries scored at once; another number may round scores otherwise


def top(
    queries: Embeddings, passages: Embeddings, ids: Sequence[int], *, k: int
) -> tuple[Ids, Scores]:
    """Return the ids and scores of each query's best `k` passages.

    Args:
        queries: (n, d) float32.
        passages: (m, d) float32.
        ids: m distinct passage ids in ascending order.
        k: how many; all m where k is larger.

    Raises:
        Mismatch: ids and passages differ in number, or ids do not ascend.
    """
    order = np.asarray(ids, dtype=np.int64)
    if len(order) != len(passages) or np.any(np.diff(order) <= 0):
        raise Mismatch(f"{len(passages)} passages need as many ascending ids; got {len(order)}")
    k = min(k, len(order))
    found_ids = np.empty((len(queries), k), dtype=np.int64)
    found_scores = np.empty((len(queries), k), dtype=np.float32)
    # A product may round a column by its place, so equal passages are scored once, to tie.
    distinct, place = np.unique(passages, axis=0, return_inverse=True)  # (u, d), (m,)
    corpus = torch.from_numpy(distinct).T  # (d, u)
    for start in range(0, len(queries), _ROWS):
        block = torch.from_numpy(np.ascontiguousarray(queries[start : start + _ROWS]))  # (b, d)
        scores = (block @ corpus).numpy()[:, place.reshape(-1)]  # (b, m)
        # A stable sort over ascending ids is what sends ties to the smaller id.
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # (b, k)
        found_ids[start : start + _ROWS] = order[best]
        found_scores[start : start + _ROWS] = np.take_along_axis(scores, best, axis=1)
    return found_ids, found_scores
