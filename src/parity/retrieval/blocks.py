"""Attention over a packed trie, block by block over gathered ancestors, and the arithmetic of it.

For CPUs, and for GPUs without what FlexAttention needs. Its cost grows with what is seen, not with
the square of a pack.
"""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from parity.retrieval import trie
from parity.retrieval.trie import Pack

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
        self._count = len(pack)
        alike: dict[int, list[trie.Block]] = {}
        for block in trie.blocks(pack, _BLOCK):
            width = -(-len(block.ancestors) // _BLOCK) * _BLOCK
            alike.setdefault(width, []).append(block)
        self._groups = [_Group(pack, width, blocks) for width, blocks in sorted(alike.items())]
        self._order = np.argsort(np.concatenate([group.places for group in self._groups]))

    def attend(
        self, query: Heads, key: Heads, value: Heads, scale: float, window: int, cap: float
    ) -> Heads:
        """See `attention.Layout.attend`."""
        _, heads, count, width = query.shape
        filled = torch.nn.functional.pad(query, (0, 0, 0, -count % _BLOCK))
        asked = filled.view(heads, -1, _BLOCK, width)  # (h, blocks, B, d)
        parts = [one.attend(asked, key, value, scale, window, cap) for one in self._groups]
        order = torch.as_tensor(self._order, device=query.device)
        joined = parts[0] if len(parts) == 1 else torch.cat(parts).index_select(0, order)
        return joined.transpose(0, 1).reshape(1, heads, -1, width)[:, :, :count]


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
        """Return (b, h, B, d), fillers included, of all blocks' queries (h, blocks, B, d)."""
        heads, _, _, width = asked.shape
        groups, blocks = key.shape[1], len(self.places)
        mine = asked.index_select(1, self._on(asked.device, "places"))  # (h, b, B, d)
        mine = mine.view(groups, -1, blocks, _BLOCK, width).permute(2, 0, 1, 3, 4)
        stacked = mine.reshape(blocks, groups, -1, width)  # (b, g, h/g·B, d)
        keys = self._on(asked.device, "keys")  # (b, k)
        near = [one[0][:, keys].transpose(0, 1) for one in (key, value)]  # (b, g, k, d)
        mask = self._mask(window, heads // groups, asked)
        out = scaled(stacked, near[0], near[1], mask, scale, cap)  # (b, g, h/g·B, d)
        return out.view(blocks, heads, _BLOCK, width)

    def _on(self, device: torch.device, which: str) -> torch.Tensor:
        """Return the places of the blocks, or of their keys, on the device."""
        if (device, which) not in self._kept:
            values = self.places if which == "places" else np.maximum(self._keys, 0)
            self._kept[device, which] = torch.as_tensor(values, device=device)
        return self._kept[device, which]

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
