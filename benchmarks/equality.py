"""Check that all contenders compute the same, before anything is timed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.ours import Ours
from benchmarks.peers import Seen, Vectors
from benchmarks.works import Work
from parity.deploy.kernel.image_comparison import cosines
from parity.run.errors import Mismatch

APART = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest difference in any entry of unit vectors that passes, by precision."""
COSINE = {torch.float32: 1 - 1e-6, torch.bfloat16: 0.98}
"""Smallest cosine that passes, by precision."""


@dataclass(frozen=True, slots=True)
class Equal:
    """Differences of two sets of embeddings.

    Attributes:
        texts: number of compared texts.
        apart: largest absolute difference of an entry.
        cosine: smallest cosine.
    """

    texts: int
    apart: float
    cosine: float


def same_tokens(
    who: str, peer_rows: Iterable[Sequence[int]], our_rows: Iterable[Sequence[int]]
) -> None:
    """Check that a peer's model receives the sequences that our encoder packs.

    Raises:
        Mismatch: a sequence differs.
    """
    peer_set, our_set = {tuple(row) for row in peer_rows}, {tuple(row) for row in our_rows}
    if peer_set == our_set:
        return
    example = sorted(peer_set ^ our_set)[0]
    side = who if example in peer_set else "kaggle-parity"
    raise Mismatch(
        f"{who} reads other token ids: {len(peer_set ^ our_set)} sequences differ; one of "
        f"{len(example)} tokens, {list(example[:3])} to {list(example[-3:])}, is only in {side}"
    )


def same_vectors(who: str, vectors: Vectors, expected: Vectors, dtype: torch.dtype) -> Equal:
    """Check that two sets of unit vectors are equal within the precision.

    Raises:
        Mismatch: they differ by more.
    """
    cosine = float(cosines(vectors, expected).min())
    shown = Equal(len(vectors), float(np.abs(vectors - expected).max()), cosine)
    # Not `>`: a NaN is not less than any number either.
    if not (shown.apart <= APART[dtype] and shown.cosine >= COSINE[dtype]):
        raise Mismatch(
            f"{who}: embeddings differ by {shown.apart:.1e} (smallest cosine {shown.cosine:.6f}); "
            f"{APART[dtype]:.0e} and {COSINE[dtype]:.6f} are the limits for {dtype}"
        )
    return shown


def encoding(encoder: Ours, peer: Any, work: Work, dtype: torch.dtype) -> Equal:
    """Check token ids, then embeddings, of a peer on some texts.

    Raises:
        Mismatch: token ids or embeddings differ.
    """
    tokens = encoder.encoder.tokenize(work.texts, work.limit)
    with Seen(peer.model, rows=True) as seen:
        vectors = peer.encode(work, 4)
    same_tokens(peer.name, seen.rows, tokens)
    return same_vectors(peer.name, vectors, encoder.encode(work), dtype)
