"""Attention over a packed trie in blocks of queries, each over its gathered ancestors.

It runs on CPUs, and on GPUs that FlexAttention does not support. Its cost grows with the number of
visible pairs, not with the square of a pack.
"""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from parity.retrieval.engine import trie
from parity.retrieval.engine.trie import Pack

Heads = torch.Tensor
"""(1, heads, n, d): queries, keys or values of n packed tokens."""

_BLOCK = 128  # tokens in a block; gathered ancestors are padded to a multiple of it


class BlockLayout:
    """Attention in blocks of tokens over their gathered ancestors; similar blocks run together.

    All tokens before a block that a token in it attends to are ancestors of its first token, so the
    keys of a block are these ancestors and the block itself. Heads that share keys (GQA) are
    stacked as additional queries.
    """

    def __init__(self, pack: Pack) -> None:
        """Group the pack's blocks by the number of gathered ancestors."""
        by_width: dict[int, list[trie.Block]] = {}
        for block in trie.split_blocks(pack, _BLOCK):
            width = -(-len(block.ancestors) // _BLOCK) * _BLOCK
            by_width.setdefault(width, []).append(block)
        self._groups = [_Group(pack, width, blocks) for width, blocks in sorted(by_width.items())]
        self._sizes = [len(group.indices) for group in self._groups]
        by_group = np.concatenate([group.indices for group in self._groups])
        self._orders = by_group, np.argsort(by_group)
        self._device_orders: dict[torch.device, list[torch.Tensor]] = {}

    def attend(
        self, query: Heads, key: Heads, value: Heads, scale: float, window: int, cap: float
    ) -> Heads:
        """See `attention.Layout.attend`."""
        _, heads, count, width = query.shape
        filled = torch.nn.functional.pad(query, (0, 0, 0, -count % _BLOCK))
        by_group, in_order = self._orders_on(query.device)
        queries = self._permuted(filled.view(heads, -1, _BLOCK, width), by_group, in_order)
        parts = [
            group.attend(part, key, value, scale, window, cap)
            for group, part in zip(
                self._groups, torch.split(queries, self._sizes, dim=1), strict=True
            )
        ]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # (h, blocks, B, d)
        ordered = self._permuted(joined, in_order, by_group)
        return ordered.reshape(1, heads, -1, width)[:, :, :count]

    def _orders_on(self, device: torch.device) -> list[torch.Tensor]:
        """Return the order by group and its inverse, copied to the device once for all layers."""
        if device not in self._device_orders:
            self._device_orders[device] = [
                torch.as_tensor(order, device=device) for order in self._orders
            ]
        return self._device_orders[device]

    def _permuted(
        self, blocks: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        """Return the blocks, (h, blocks, B, d), in another order."""
        if len(self._groups) == 1:
            return blocks
        return cast(torch.Tensor, _PermuteBlocks.apply(blocks, order, inverse))  # type: ignore[no-untyped-call]


class _PermuteBlocks(torch.autograd.Function):
    """Permute blocks; torch's default backward would accumulate into zeros, which is slow."""

    @staticmethod
    def forward(
        ctx: Any, blocks: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        ctx.inverse = inverse
        return blocks.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient.index_select(1, ctx.inverse), None, None


class _Group:
    """Blocks of one pack with about the same number of ancestors: b blocks over k keys each."""

    def __init__(self, pack: Pack, width: int, blocks: list[trie.Block]) -> None:
        self._pack = pack
        self.indices = np.array([block.start // _BLOCK for block in blocks])  # (b,)
        self._keys = np.full((len(blocks), width + _BLOCK), -1)  # -1 is padding
        for row, block in enumerate(blocks):
            self._keys[row, : len(block.ancestors)] = block.ancestors
            positions = np.arange(block.start, block.stop)
            self._keys[row, width : width + len(positions)] = positions
        self._cache: dict[tuple[Any, ...], torch.Tensor] = {}

    def attend(
        self,
        queries: torch.Tensor,
        key: Heads,
        value: Heads,
        scale: float,
        window: int,
        cap: float,
    ) -> torch.Tensor:
        """Return the outputs of the group, (h, b, B, d), padding included.

        Args:
            queries: (h, b, B, d) queries of the group's blocks.
            key: see `attention.Layout.attend`.
            value: see `attention.Layout.attend`.
            scale: see `attention.Layout.attend`.
            window: see `attention.Layout.attend`.
            cap: see `attention.Layout.attend`.
        """
        heads, blocks, _, width = queries.shape
        groups = key.shape[1]
        per_head = queries.reshape(groups, -1, blocks, _BLOCK, width).permute(2, 0, 1, 3, 4)
        stacked = per_head.reshape(blocks, groups, -1, width)  # (b, g, h/g·B, d)
        keys = self._gathered(queries.device)  # (b, k)
        gathered = [tensor[0][:, keys].transpose(0, 1) for tensor in (key, value)]  # (b, g, k, d)
        mask = self._mask(window, heads // groups, queries)
        out = masked_attention(
            stacked, gathered[0], gathered[1], mask, scale, cap
        )  # (b, g, h/g·B, d)
        # Not a view: some CUDA kernels return another memory layout.
        return out.reshape(blocks, heads, _BLOCK, width).transpose(0, 1)

    def _gathered(self, device: torch.device) -> torch.Tensor:
        """Return the key indices of the blocks, (b, k) int64, on the device."""
        if (device,) not in self._cache:
            self._cache[device,] = torch.as_tensor(np.maximum(self._keys, 0), device=device)
        return self._cache[device,]

    def _mask(self, window: int, stacked: int, like: torch.Tensor) -> torch.Tensor:
        cache_key = (window, stacked, like.device, like.dtype)
        if cache_key not in self._cache:
            sees = torch.as_tensor(self._sees(window), device=like.device)  # (b, B, k)
            self._cache[cache_key] = additive_mask(sees.repeat(1, stacked, 1)[:, None], like.dtype)
        return self._cache[cache_key]

    def _sees(self, window: int) -> NDArray[np.bool_]:
        """Return (b, B, k) bool: q attends to k iff `k <= q <= end[k]` and k is in the window."""
        row = (self.indices[:, None] * _BLOCK + np.arange(_BLOCK))[:, :, None]  # (b, B, 1)
        key = self._keys[:, None, :]  # (b, 1, k)
        sees = (key >= 0) & (key <= row) & (row <= self._pack.end[key])
        if window:
            depth = self._pack.depth
            sees &= depth[np.minimum(row, len(depth) - 1)] - depth[key] < window
        return cast(NDArray[np.bool_], sees | (row >= len(self._pack)))  # padding: avoid 0 / 0


def additive_mask(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask of the scores: 0 where `sees`, the dtype's minimum elsewhere."""
    empty = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return empty.masked_fill_(~sees, torch.finfo(dtype).min)


def masked_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    cap: float,
) -> torch.Tensor:
    """Return softmax(scores + mask) @ value, with torch's SDPA unless scores are capped.

    Args:
        query: (…, q, d).
        key: (…, k, d).
        value: (…, k, d).
        mask: additive mask, broadcast to (…, q, k).
        scale: factor of the scores.
        cap: bound of the scores by tanh, as in Gemma 2; 0 means none.
    """
    if not cap:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale
        )
    scores = torch.tanh(query @ key.transpose(-1, -2) * scale / cap) * cap + mask
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype) @ value
