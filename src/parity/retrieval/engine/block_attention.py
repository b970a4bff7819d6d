"""Attention over a packed trie, block by block over gathered ancestors, and the arithmetic of it.

For CPUs, and for GPUs without what FlexAttention needs. Its cost grows with what is seen, not with
the square of a pack.
"""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from parity.retrieval.engine import trie
from parity.retrieval.engine.trie import Pack

Heads = torch.Tensor
"""(1, heads, n, d) queries, keys or values of a pack's nodes."""

_BLOCK = 128  # nodes of a block, and the step to which gathered ancestors are filled up


class Blocks:
    """Blocks of nodes over the ancestors they see, which are gathered; blocks alike run at once.

    All nodes before a block that any node in it sees are the ancestors of its first, so a block's
    keys are those and itself. The heads that share keys are stacked as further queries.
    """

    def __init__(self, pack: Pack) -> None:
        """Sort the pack's blocks by how many ancestors they gather."""
        alike: dict[int, list[trie.Block]] = {}
        for block in trie.blocks(pack, _BLOCK):
            width = -(-len(block.ancestors) // _BLOCK) * _BLOCK
            alike.setdefault(width, []).append(block)
        self._groups = [_Group(pack, width, blocks) for width, blocks in sorted(alike.items())]
        self._sizes = [len(group.places) for group in self._groups]
        by_group = np.concatenate([group.places for group in self._groups])
        self._orders = by_group, np.argsort(by_group)
        self._there: dict[torch.device, list[torch.Tensor]] = {}

    def attend(
        self, query: Heads, key: Heads, value: Heads, scale: float, window: int, cap: float
    ) -> Heads:
        """See `attention.Layout.attend`."""
        _, heads, count, width = query.shape
        filled = torch.nn.functional.pad(query, (0, 0, 0, -count % _BLOCK))
        by_group, in_order = self._on(query.device)
        asked = self._moved(filled.view(heads, -1, _BLOCK, width), by_group, in_order)
        parts = [
            group.attend(part, key, value, scale, window, cap)
            for group, part in zip(
                self._groups, torch.split(asked, self._sizes, dim=1), strict=True
            )
        ]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # (h, blocks, B, d)
        ordered = self._moved(joined, in_order, by_group)
        return ordered.reshape(1, heads, -1, width)[:, :, :count]

    def _on(self, device: torch.device) -> list[torch.Tensor]:
        """Return the blocks by group, and back in order, brought there once for all layers."""
        if device not in self._there:
            self._there[device] = [torch.as_tensor(order, device=device) for order in self._orders]
        return self._there[device]

    def _moved(self, blocks: torch.Tensor, order: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        """Return (h, blocks, B, d) in another order."""
        if len(self._groups) == 1:
            return blocks
        return cast(torch.Tensor, _Moved.apply(blocks, order, back))  # type: ignore[no-untyped-call]


class _Moved(torch.autograd.Function):
    """Blocks in another order; torch's own backward would add them up onto zeros, slowly."""

    @staticmethod
    def forward(
        ctx: Any, blocks: torch.Tensor, order: torch.Tensor, back: torch.Tensor
    ) -> torch.Tensor:
        ctx.back = back
        return blocks.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return slope.index_select(1, ctx.back), None, None


class _Group:
    """Blocks of one pack that gather about as many ancestors: b blocks over k keys each."""

    def __init__(self, pack: Pack, width: int, blocks: list[trie.Block]) -> None:
        self._pack = pack
        self.places = np.array([block.start // _BLOCK for block in blocks])  # (b,)
        self._keys = np.full((len(blocks), width + _BLOCK), -1)  # -1 fills up
        for place, block in enumerate(blocks):
            self._keys[place, : len(block.ancestors)] = block.ancestors
            own = np.arange(block.start, block.stop)
            self._keys[place, width : width + len(own)] = own
        self._kept: dict[tuple[Any, ...], torch.Tensor] = {}

    def attend(
        self,
        asked: torch.Tensor,
        key: Heads,
        value: Heads,
        scale: float,
        window: int,
        cap: float,
    ) -> torch.Tensor:
        """Return the group's (h, b, B, d), fillers included, for its queries of that shape."""
        heads, blocks, _, width = asked.shape
        groups = key.shape[1]
        split = asked.reshape(groups, -1, blocks, _BLOCK, width).permute(2, 0, 1, 3, 4)
        stacked = split.reshape(blocks, groups, -1, width)  # (b, g, h/g·B, d)
        keys = self._gathered(asked.device)  # (b, k)
        near = [one[0][:, keys].transpose(0, 1) for one in (key, value)]  # (b, g, k, d)
        mask = self._mask(window, heads // groups, asked)
        out = scaled(stacked, near[0], near[1], mask, scale, cap)  # (b, g, h/g·B, d)
        # Not a view: some of CUDA's kernels lay their output out in another order.
        return out.reshape(blocks, heads, _BLOCK, width).transpose(0, 1)

    def _gathered(self, device: torch.device) -> torch.Tensor:
        """Return the places of the blocks' keys, on the device."""
        if (device,) not in self._kept:
            self._kept[device,] = torch.as_tensor(np.maximum(self._keys, 0), device=device)
        return self._kept[device,]

    def _mask(self, window: int, stacked: int, like: torch.Tensor) -> torch.Tensor:
        which = (window, stacked, like.device, like.dtype)
        if which not in self._kept:
            sees = torch.as_tensor(self._sees(window), device=like.device)  # (b, B, k)
            self._kept[which] = additive(sees.repeat(1, stacked, 1)[:, None], like.dtype)
        return self._kept[which]

    def _sees(self, window: int) -> NDArray[np.bool_]:
        """Return (b, B, k): q sees k iff `k <= q <= end[k]`, and near enough by depth."""
        row = (self.places[:, None] * _BLOCK + np.arange(_BLOCK))[:, :, None]  # (b, B, 1)
        key = self._keys[:, None, :]  # (b, 1, k)
        sees = (key >= 0) & (key <= row) & (row <= self._pack.end[key])
        if window:
            depth = self._pack.depth
            sees &= depth[np.minimum(row, len(depth) - 1)] - depth[key] < window
        return cast(NDArray[np.bool_], sees | (row >= len(self._pack)))  # fillers: no 0 / 0


def additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to scores: 0 where `sees`, the dtype's minimum elsewhere."""
    empty = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return empty.masked_fill_(~sees, torch.finfo(dtype).min)


def scaled(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    cap: float,
) -> torch.Tensor:
    """Return softmax(scores + mask) @ value, by torch's SDPA unless scores are capped."""
    if not cap:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale
        )
    scores = torch.tanh(query @ key.transpose(-1, -2) * scale / cap) * cap + mask
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype) @ value
