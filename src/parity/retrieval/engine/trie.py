"""Pack token sequences as a prefix trie, so that each distinct prefix is computed once.

A causal model's hidden state at a token depends only on the tokens before it. The trie of the
sorted sequences is laid out in depth-first preorder: node i holds a token, its depth (the RoPE
position) and `end`, the last node of its subtree. Token q sees k iff `k <= q <= end[k]`.
Equal sequences share their last node. Knows no model and no torch.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.retrieval.engine import packing
from parity.retrieval.engine.packing import Ordered, Places, TokenSequences
from parity.run.errors import BadData

Nodes = NDArray[np.int32]
"""(n,) int32, one entry for each node of a pack."""


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
    last: Places
    owner: Places

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.ids)


def pack(sequences: Sequence[Sequence[int]], budget: int) -> list[Pack]:
    """Cut the trie of `sequences` into packs of at most `budget` nodes.

    Sequences are taken in sorted order; a prefix that spans a cut is repeated once in the next
    pack. There are as few packs as can be, about equal (see `packing.cuts`). A sequence longer
    than the budget is a pack alone. The packs depend on the sequences and the budget only.

    Args:
        sequences: token ids; none may be empty.
        budget: nodes in a pack.

    Raises:
        BadData: a sequence is empty.
    """
    return pack_flat(packing.flat(sequences), budget)


def pack_flat(sequences: TokenSequences, budget: int) -> list[Pack]:
    """Do as `pack` does for sequences that lie end to end.

    Raises:
        BadData: a sequence is empty.
    """
    order = packing.ordered(sequences)
    return [_grown(order, start, stop) for start, stop in packing.cuts(order, budget)]


def _grown(order: Ordered, start: int, stop: int) -> Pack:
    """Return the trie of sequences `start` to `stop` in order."""
    offsets = order.flat.offsets[start : stop + 1] - order.flat.offsets[start]
    lengths = np.diff(offsets)
    shared = order.shared[start:stop].copy()
    shared[0] = 0  # what it shares with the pack before is repeated here
    depth = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    kept = depth >= np.repeat(shared, lengths)
    ids = order.flat.ids[order.flat.offsets[start] : order.flat.offsets[stop]][kept]
    last = np.cumsum(lengths - shared) - 1
    end = _ends(lengths, shared)
    return Pack(ids, depth[kept].astype(np.int32), end, last, order.owner[start:stop])


def _ends(lengths: Places, shared: Places) -> Nodes:
    """Return each node's last descendant: a subtree ends where a sequence leaves it."""
    nodes = np.arange((lengths - shared).sum(), dtype=np.int32)
    end = np.empty_like(nodes)
    path = np.empty(lengths.max(), dtype=np.int32)  # nodes from the root to the last one
    count = deep = 0
    for length, keep in zip(lengths.tolist(), shared.tolist(), strict=True):
        end[path[keep:deep]] = count - 1
        path[keep:length] = nodes[count : count + length - keep]
        count, deep = count + length - keep, length
    end[path[:deep]] = count - 1
    return end


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
    ids = np.array(kept, dtype=np.int32).reshape(-1)
    depth = np.tile(np.arange(width, dtype=np.int32), count)
    end = np.repeat(np.arange(1, count + 1, dtype=np.int32) * width - 1, width)
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


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive nodes of a pack, and the earlier nodes that any of them sees.

    Attributes:
        start: first node.
        stop: one past the last.
        ancestors: (a,) nodes before `start`, ascending.
    """

    start: int
    stop: int
    ancestors: Places


def blocks(pack_: Pack, size: int) -> list[Block]:
    """Return the blocks of at most `size` nodes; what they see before them, their first one sees.

    An ancestor of a node is the last one before it at its depth, so one walk finds all.
    """
    found: list[Block] = []
    latest = np.zeros(int(pack_.depth.max(initial=0)) + 1, dtype=np.int64)  # node by depth
    for start in range(0, len(pack_), size):
        stop = min(start + size, len(pack_))
        found.append(Block(start, stop, latest[: pack_.depth[start]].copy()))
        latest[pack_.depth[start:stop]] = np.arange(start, stop)  # of equal depths the last stays
    return found


@dataclass(frozen=True, slots=True)
class Counts:
    """What packing saved; depends on the sequences and the budget only.

    Attributes:
        sequences: how many there are, equal ones too.
        flat: tokens of all of them.
        packed: nodes of all packs.
        packs: how many there are.
        padded: tokens of batches sorted by length and padded to their longest, as peers run them.
        repeated: nodes among `packed` that stand in the pack before, too, because of a cut.
    """

    sequences: int
    flat: int
    packed: int
    packs: int
    padded: int
    repeated: int

    @property
    def sharing(self) -> float:
        """Return tokens for each node that is computed; 1 where nothing is shared."""
        return self.flat / self.packed if self.packed else 1.0


def counts(packs: Sequence[Pack], sequences: Sequence[Sized], batch: int = 32) -> Counts:
    """Count what `pack` made of `sequences`.

    Args:
        packs: all of them, in order.
        sequences: what was packed.
        batch: sequences in a peer's batch.
    """
    lengths = sorted(map(len, sequences), reverse=True)
    heads = range(0, len(lengths), batch)
    return Counts(
        sequences=len(lengths),
        flat=sum(lengths),
        packed=sum(map(len, packs)),
        packs=len(packs),
        padded=sum(lengths[head] * len(lengths[head : head + batch]) for head in heads),
        repeated=sum(map(_repeated, packs, packs[1:])),
    )


def _repeated(before: Pack, after: Pack) -> int:
    """Return the leading tokens that the last sequence of one pack shares with the next's first."""
    one = before.ids[ancestors(before, int(before.last[-1]))]
    other = after.ids[: after.last[0] + 1]
    size = min(len(one), len(other))
    return int(np.append(one[:size] == other[:size], False).argmin())
