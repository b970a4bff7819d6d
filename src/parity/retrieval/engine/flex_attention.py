"""FlexAttention over a packed trie, and a model's layers compiled around it, for GPUs that can.

Shapes are few: packs are filled up to a multiple of a step, and one compiled layer serves all
layers and all such sizes.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from parity.retrieval.engine.block_attention import Heads
from parity.retrieval.engine.trie import Pack

BLOCK = 128
"""Nodes of FlexAttention's blocks, of which a pack must be whole ones."""
_WHOLE: Any = {"IS_DIVISIBLE": True}
"""That they are whole ones: a kernel for any size would else look each time, half as long again."""


def filled(pack: Pack, step: int) -> Pack:
    """Return `pack` with nodes at its end that see themselves only, to a multiple of `step`."""
    short = -len(pack) % step
    if not short:
        return pack
    own = np.arange(len(pack), len(pack) + short, dtype=pack.end.dtype)
    none = np.zeros(short, dtype=pack.ids.dtype)
    return Pack(
        np.concatenate([pack.ids, none]),
        np.concatenate([pack.depth, none]),
        np.concatenate([pack.end, own]),
        pack.last,
        pack.owner,
    )


class Flex:
    """A layout whose blocks of pairs are skipped, taken whole, or masked pair by pair."""

    def __init__(
        self, end: torch.Tensor, depth: torch.Tensor, windows: Iterable[int], most: int
    ) -> None:
        """Make the masks now, so that a compiled layer only ever sees them made.

        Args:
            end: (n,) int32 on the device, n a multiple of `BLOCK`.
            depth: (n,) int32.
            windows: positions that the model's layers look back on; 0 for all.
            most: the largest of them that hides anything here; 0 where none does.
        """
        full = block_mask(end, depth, 0)
        near = block_mask(end, depth, most) if most else full
        self._masks = {window: near if window else full for window in windows}

    def attend(
        self, query: Heads, key: Heads, value: Heads, scale: float, window: int, cap: float
    ) -> Heads:
        """See `attention.Layout.attend`."""
        return flex_attention(
            query,
            key,
            value,
            score_mod=_capped(cap) if cap else None,
            block_mask=self._masks[window],
            scale=scale,
            enable_gqa=True,
            kernel_options=_WHOLE,
        )


def _capped(cap: float) -> Any:
    def score(value: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return torch.tanh(value / cap) * cap

    return score


def block_mask(end: torch.Tensor, depth: torch.Tensor, window: int) -> BlockMask:
    """Return which blocks of 128 × 128 pairs are seen in part and which in whole.

    A block of keys before a block of queries is seen at all iff one of its subtrees reaches the
    first query: k < s <= q <= end[k]. So no pair needs to be looked at.

    Args:
        end: (n,) int32, last node of each node's subtree.
        depth: (n,) int32.
        window: positions a node looks back on; 0 for all.
    """
    ends, depths = end.view(-1, BLOCK), depth.view(-1, BLOCK)  # (b, 128)
    first = torch.arange(len(ends), device=end.device)[:, None] * BLOCK  # (b, 1)
    before = torch.arange(len(ends), device=end.device)[None, :] * BLOCK < first  # (b, b)
    some = before & (ends.amax(1)[None, :] >= first)
    whole = before & (ends.amin(1)[None, :] >= first + BLOCK - 1)
    if window:
        some &= depths.amin(1)[:, None] - depths.amax(1)[None, :] < window
        whole &= depths.amax(1)[:, None] - depths.amin(1)[None, :] < window
    part = (some & ~whole) | torch.eye(len(ends), dtype=torch.bool, device=end.device)

    def sees(_b: Any, _h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q <= end[k])

    def near(_b: Any, _h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q <= end[k]) & (depth[q] - depth[k] < window)

    return BlockMask.from_kv_blocks(
        *_listed(part),
        *_listed(whole & some),
        BLOCK_SIZE=BLOCK,
        mask_mod=near if window else sees,
        seq_lengths=(len(end), len(end)),
    )


def _listed(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many columns each row chooses and which, chosen ones first."""
    order = torch.argsort(chosen.to(torch.int8), dim=1, descending=True, stable=True)
    return chosen.sum(1).to(torch.int32)[None, None], order.to(torch.int32)[None, None]


def compile_layers(model: Any) -> None:
    """Compile each decoder layer of `model`, if it is not; equal layers share one compilation.

    Where weights are learnt, all layers take the gradient of what they read. The first would else
    be compiled by itself, as long again, for frozen embeddings have none; what it costs a step is
    the product of one layer's first weights.
    """
    for layer in layers(model):
        if layer._compiled_call_impl is None:  # noqa: SLF001  # torch has no other way to ask
            layer.compile()
    embeddings = model.get_input_embeddings()
    if _as_if_learnt not in embeddings._forward_hooks.values():  # noqa: SLF001  # nor here
        embeddings.register_forward_hook(_as_if_learnt)


def _as_if_learnt(_module: Any, _inputs: Any, embedded: torch.Tensor) -> None:
    if torch.is_grad_enabled():
        embedded.requires_grad_()


def uncompile(model: Any) -> None:
    """Run the layers of `model` as they are written again."""
    for layer in layers(model):
        layer._compiled_call_impl = None  # noqa: SLF001


def layers(model: Any) -> list[Any]:
    """Return the decoder layers of `model`, in order."""
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in kinds]
