"""FlexAttention over a packed trie, with decoder layers compiled around it.

The number of shapes is small: packs are padded to a multiple of a step, and one compiled layer
serves all layers and all such sizes.

Source: FlexAttention, Dong et al. 2024, arXiv 2412.05496.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from parity.retrieval.engine.block_attention import Heads
from parity.retrieval.engine.trie import Pack

BLOCK = 128
"""Tokens in a FlexAttention block; a pack must be a multiple of it."""
_KERNEL_OPTIONS: Any = {"IS_DIVISIBLE": True}
"""The pack is a multiple of the block size; without this hint, kernels take half as long again."""


def pad_pack(pack: Pack, step: int) -> Pack:
    """Return `pack` padded to a multiple of `step` tokens; padding attends only to itself."""
    missing = -len(pack) % step
    if not missing:
        return pack
    positions = np.arange(len(pack), len(pack) + missing, dtype=pack.end.dtype)
    zeros = np.zeros(missing, dtype=pack.ids.dtype)
    return Pack(
        np.concatenate([pack.ids, zeros]),
        np.concatenate([pack.depth, zeros]),
        np.concatenate([pack.end, positions]),
        pack.last,
        pack.owner,
    )


class FlexLayout:
    """Attention in FlexAttention blocks: each is skipped, computed in full, or masked pairwise."""

    def __init__(
        self, end: torch.Tensor, depth: torch.Tensor, windows: Iterable[int], max_window: int
    ) -> None:
        """Build the masks here, outside the compiled layers.

        Args:
            end: (n,) int32 on the device, n a multiple of `BLOCK`.
            depth: (n,) int32 on the device.
            windows: sliding windows of the model's layers, in positions; 0 means full attention.
            max_window: largest window that hides a token of this pack; 0 if no window does.
        """
        full = build_block_mask(end, depth, 0)
        windowed = build_block_mask(end, depth, max_window) if max_window else full
        self._masks = {window: windowed if window else full for window in windows}

    def attend(
        self, query: Heads, key: Heads, value: Heads, scale: float, window: int, cap: float
    ) -> Heads:
        """See `attention.Layout.attend`."""
        return flex_attention(
            query,
            key,
            value,
            score_mod=_cap_scores(cap) if cap else None,
            block_mask=self._masks[window],
            scale=scale,
            enable_gqa=True,
            kernel_options=_KERNEL_OPTIONS,
        )


def _cap_scores(cap: float) -> Any:
    def score(value: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return torch.tanh(value / cap) * cap

    return score


def build_block_mask(end: torch.Tensor, depth: torch.Tensor, window: int) -> BlockMask:
    """Return the mask of 128 × 128 blocks: which are visible in full and which in part.

    A block of keys before a block of queries is visible iff one of its subtrees reaches the first
    query s: k < s <= q <= end[k]. So individual pairs need not be checked.

    Args:
        end: (n,) int32 index of the last token in each token's subtree.
        depth: (n,) int32 positions.
        window: sliding window in positions; 0 means full attention.
    """
    ends, depths = end.view(-1, BLOCK), depth.view(-1, BLOCK)  # (b, 128)
    first = torch.arange(len(ends), device=end.device)[:, None] * BLOCK  # (b, 1)
    before = torch.arange(len(ends), device=end.device)[None, :] * BLOCK < first  # (b, b)
    is_seen = before & (ends.amax(1)[None, :] >= first)
    is_full = before & (ends.amin(1)[None, :] >= first + BLOCK - 1)
    if window:
        is_seen &= depths.amin(1)[:, None] - depths.amax(1)[None, :] < window
        is_full &= depths.amax(1)[:, None] - depths.amin(1)[None, :] < window
    is_partial = (is_seen & ~is_full) | torch.eye(len(ends), dtype=torch.bool, device=end.device)

    def is_visible(_b: Any, _h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q <= end[k])

    def is_visible_in_window(_b: Any, _h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q <= end[k]) & (depth[q] - depth[k] < window)

    return BlockMask.from_kv_blocks(
        *_list_columns(is_partial),
        *_list_columns(is_full & is_seen),
        BLOCK_SIZE=BLOCK,
        mask_mod=is_visible_in_window if window else is_visible,
        seq_lengths=(len(end), len(end)),
    )


def _list_columns(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number of chosen columns of each row, and the columns, chosen ones first."""
    order = torch.argsort(chosen.to(torch.int8), dim=1, descending=True, stable=True)
    return chosen.sum(1).to(torch.int32)[None, None], order.to(torch.int32)[None, None]


def compile_layers(model: Any) -> None:
    """Compile each decoder layer of `model`, unless compiled; equal layers share one compilation.

    In training, all layers compute the gradient of their input. Otherwise the first layer, whose
    input comes from frozen embeddings, would need a second compilation. This costs each step the
    input gradient of one layer.
    """
    for layer in decoder_layers(model):
        if layer._compiled_call_impl is None:  # noqa: SLF001  # torch has no public API
            layer.compile()
    embeddings = model.get_input_embeddings()
    if _require_gradients not in embeddings._forward_hooks.values():  # noqa: SLF001  # likewise
        embeddings.register_forward_hook(_require_gradients)


def _require_gradients(_module: Any, _inputs: Any, embedded: torch.Tensor) -> None:
    if torch.is_grad_enabled():
        embedded.requires_grad_()


def uncompile_layers(model: Any) -> None:
    """Run the layers of `model` without compilation again."""
    for layer in decoder_layers(model):
        layer._compiled_call_impl = None  # noqa: SLF001


def decoder_layers(model: Any) -> list[Any]:
    """Return the layers of `model` in order: the modules that transformers never splits."""
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in kinds]
