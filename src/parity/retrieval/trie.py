"""Pack token sequences as a prefix trie, so that each distinct prefix is computed once.

A causal model's hidden state at a token depends only on the tokens before it. The trie of the
sorted sequences is laid out in depth-first preorder: node i holds a token, its depth (the RoPE
position) and `end`, the last node of its subtree. Token q sees k iff `k <= q <= end[k]`.
Equal sequences share their last node. Knows no model and no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.run.errors import BadData

Nodes = NDArray[np.int64]
"""(n,) int64, one entry for each node of a pack."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One trie in preorder.

    Attributes:
        ids: (n,) token ids.
        depth: (n,) positions from 0.
        end: (n,) index of the last node of each node's subtree.
        last: (m,) node of the last token of each owned sequence.
        owner: (m,) index of each owned sequence in the input of `pack`.
    """

    ids: Nodes
    depth: Nodes
    end: Nodes
    last: Nodes
    owner: Nodes

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.ids)


def pack(sequences: Sequence[Sequence[int]], budget: int) -> list[Pack]:
    """Cut the trie of `sequences` into packs of at most `budget` nodes.

    Sequences are taken in sorted order until the next would pass the budget; a prefix that spans
    a cut is repeated once in the next pack. A sequence longer than the budget is a pack alone.
    The packs depend on the sequences and the budget only.

    Args:
        sequences: token ids; none may be empty.
        budget: nodes in a pack.

    Raises:
        BadData: a sequence is empty.
    """
    order = sorted(range(len(sequences)), key=lambda index: (tuple(sequences[index]), index))
    packs: list[Pack] = []
    builder = _Builder()
    for index in order:
        tokens = sequences[index]
        if len(tokens) == 0:
            raise BadData(f"sequence {index} has no tokens")
        # A sequence that adds no node is equal to the last one; it goes where that one is.
        cost = builder.cost(tokens)
        if builder.ids and cost and len(builder.ids) + cost > budget:
            packs.append(builder.finish())
            builder = _Builder()
        builder.add(index, tokens)
    if builder.ids:
        packs.append(builder.finish())
    return packs


def rows(sequences: Sequence[Sequence[int]], budget: int) -> list[Pack]:
    """Return packs for models that are not causal: whole distinct sequences of one length each.

    A pack's nodes are its sequences end to end; nothing is shared but duplicates, and nothing is
    padded. At most `budget` nodes, at least one sequence.

    Raises:
        BadData: a sequence is empty.
    """
    owners: dict[tuple[int, ...], list[int]] = {}
    for index, tokens in enumerate(sequences):
        if len(tokens) == 0:
            raise BadData(f"sequence {index} has no tokens")
        owners.setdefault(tuple(tokens), []).append(index)
    packs: list[Pack] = []
    order = sorted(owners, key=lambda tokens: (len(tokens), tokens))
    start = 0
    while start < len(order):
        width = len(order[start])
        stop = start
        limit = start + max(1, budget // width)
        while stop < min(limit, len(order)) and len(order[stop]) == width:
            stop += 1
        packs.append(_row_pack(order[start:stop], owners, width))
        start = stop
    return packs


def _row_pack(
    kept: Sequence[tuple[int, ...]], owners: dict[tuple[int, ...], list[int]], width: int
) -> Pack:
    count = len(kept)
    ids = np.array(kept, dtype=np.int64).reshape(-1)
    depth = np.tile(np.arange(width, dtype=np.int64), count)
    end = np.repeat(np.arange(1, count + 1, dtype=np.int64) * width - 1, width)
    pairs = [(place, owner) for place, tokens in enumerate(kept) for owner in owners[tokens]]
    last = np.array([(place + 1) * width - 1 for place, _ in pairs], dtype=np.int64)
    return Pack(ids, depth, end, last, np.array([owner for _, owner in pairs], dtype=np.int64))


def unpack(packs: Sequence[Pack]) -> dict[int, list[int]]:
    """Return sequence index → tokens, by walking each last node to its root."""
    found: dict[int, list[int]] = {}
    for one in packs:
        for node, owner in zip(one.last.tolist(), one.owner.tolist(), strict=True):
            found[owner] = [int(one.ids[i]) for i in ancestors(one, node)]
    return found


def ancestors(pack_: Pack, node: int) -> list[int]:
    """Return the nodes that `node` sees, root first, itself last."""
    before = np.arange(node + 1)
    seen: list[int] = before[pack_.end[: node + 1] >= node].tolist()
    return seen


def visible(pack_: Pack) -> NDArray[np.bool_]:
    """Return the dense mask: (n, n) bool, row q true where q may see k."""
    index = np.arange(len(pack_))
    keys: NDArray[np.bool_] = (index[None, :] <= index[:, None]) & (
        index[:, None] <= pack_.end[None, :]
    )
    return keys


class _Builder:
    """Grows one pack from sequences in sorted order."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.depth: list[int] = []
        self.end: list[int] = []
        self.last: list[int] = []
        self.owner: list[int] = []
        self.path: list[int] = []  # nodes from the root to the node added last

    def shared(self, tokens: Sequence[int]) -> int:
        """Return how many leading tokens lie on the current path."""
        count = 0
        for node, token in zip(self.path, tokens, strict=False):
            if self.ids[node] != token:
                break
            count += 1
        return count

    def cost(self, tokens: Sequence[int]) -> int:
        """Return how many nodes `tokens` would add."""
        return len(tokens) - self.shared(tokens)

    def add(self, index: int, tokens: Sequence[int]) -> None:
        shared = self.shared(tokens)
        self.close(shared)
        for position in range(shared, len(tokens)):
            self.path.append(len(self.ids))
            self.ids.append(int(tokens[position]))
            self.depth.append(position)
            self.end.append(-1)
        self.last.append(self.path[-1])
        self.owner.append(index)

    def close(self, keep: int) -> None:
        """End the subtrees of all path nodes past the first `keep`."""
        for node in self.path[keep:]:
            self.end[node] = len(self.ids) - 1
        del self.path[keep:]

    def finish(self) -> Pack:
        self.close(0)
        columns = (self.ids, self.depth, self.end, self.last, self.owner)
        return Pack(*(np.array(column, dtype=np.int64) for column in columns))
