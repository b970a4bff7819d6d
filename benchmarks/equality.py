"""That all contenders do the same work, shown before any of it is timed."""

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
    """How far two sets of embeddings are apart.

    Attributes:
        texts: compared.
        apart: largest absolute difference of an entry.
        cosine: smallest cosine.
    """

    texts: int
    apart: float
    cosine: float


def same_tokens(who: str, found: Iterable[Sequence[int]], wanted: Iterable[Sequence[int]]) -> None:
    """Check that a peer's model is called with the sequences that ours packs.

    Raises:
        Mismatch: names the peer and the first sequence that differs.
    """
    theirs, ours = {tuple(one) for one in found}, {tuple(one) for one in wanted}
    if theirs == ours:
        return
    odd = sorted(theirs ^ ours)[0]
    side = who if odd in theirs else "kaggle-parity"
    raise Mismatch(
        f"{who} reads other token ids: {len(theirs ^ ours)} sequences differ; one of {len(odd)} "
        f"tokens, {list(odd[:3])} to {list(odd[-3:])}, is {side}'s alone"
    )


def same_vectors(who: str, found: Vectors, wanted: Vectors, dtype: torch.dtype) -> Equal:
    """Check that two sets of unit vectors are one within the precision.

    Raises:
        Mismatch: they are not; says how far apart.
    """
    cosine = float(cosines(found, wanted).min())
    shown = Equal(len(found), float(np.abs(found - wanted).max()), cosine)
    # Not `>`: a NaN passes no comparison.
    if not (shown.apart <= APART[dtype] and shown.cosine >= COSINE[dtype]):
        raise Mismatch(
            f"{who}: embeddings differ by {shown.apart:.1e} (smallest cosine {shown.cosine:.6f}); "
            f"{APART[dtype]:.0e} and {COSINE[dtype]:.6f} are the limits for {dtype}"
        )
    return shown


def encoding(ours: Ours, peer: Any, work: Work, dtype: torch.dtype) -> Equal:
    """Check token ids, then embeddings, of a peer on some texts.

    Raises:
        Mismatch: either differs.
    """
    tokens = ours.encoder.tokenize(work.texts, work.limit)
    with Seen(peer.model, rows=True) as seen:
        theirs = peer.encode(work, 4)
    same_tokens(peer.name, seen.rows, tokens)
    return same_vectors(peer.name, theirs, ours.encode(work), dtype)
