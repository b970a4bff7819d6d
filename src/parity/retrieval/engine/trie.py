"""Prefix tries of token sequences (packs): each distinct prefix is computed once.

The hidden state of a causal model at a token depends only on that token and the ones before it, so
sequences can share the states of a common prefix. The trie of the sorted sequences is stored in
depth-first preorder. Packed token i has an id, a depth (its RoPE position) and `end`, the index of
the last token in its subtree. Token q attends to k iff `k <= q <= end[k]`. Equal sequences share
their last token. This module needs neither a model nor torch.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.retrieval.engine import packing
from parity.retrieval.engine.packing import Indices, SortedSequences, TokenSequences
from parity.run.errors import BadData

PackedTokens = NDArray[np.int32]
"""(n,) int32: one value for each packed token."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One trie of n packed tokens and m sequences, in preorder.

    Attributes:
        ids: (n,) int32 token ids.
        depth: (n,) int32 positions in the sequence, from 0.
        end: (n,) int32 index of the last packed token in each token's subtree.
        last: (m,) int64 index of the last packed token of each sequence.
        owner: (m,) int64 index of each sequence in the input of `pack`.
    """

    ids: PackedTokens
    depth: PackedTokens
    end: PackedTokens
    last: Indices
    owner: Indices

    def __len__(self) -> int:
        """Return the number of packed tokens."""
        return len(self.ids)


def pack(sequences: Sequence[Sequence[int]], budget: int) -> list[Pack]:
    """Split the trie of `sequences` into packs of at most `budget` tokens.

    Sequences are packed in sorted order. A prefix that continues in the next pack is repeated there
    once. The number of packs is minimal, and their sizes are about equal (see
    `packing.pack_bounds`). A sequence longer than the budget gets its own pack. The packs depend
    only on the sequences and the budget.

    Args:
        sequences: token ids of each sequence, at least one.
        budget: largest number of packed tokens in a pack.

    Raises:
        BadData: a sequence is empty.
    """
    return pack_concatenated(packing.concatenate(sequences), budget)


def pack_concatenated(sequences: TokenSequences, budget: int) -> list[Pack]:
    """Split the trie of concatenated sequences into packs, see `pack`.

    Raises:
        BadData: a sequence is empty.
    """
    order = packing.sort_sequences(sequences)
    return [_build_pack(order, start, stop) for start, stop in packing.pack_bounds(order, budget)]


def _build_pack(order: SortedSequences, start: int, stop: int) -> Pack:
    """Return the trie of the sorted sequences from `start` to `stop`."""
    offsets = order.sequences.offsets[start : stop + 1] - order.sequences.offsets[start]
    lengths = np.diff(offsets)
    shared = order.shared[start:stop].copy()
    shared[0] = 0  # the prefix shared with the previous pack is repeated
    depth = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    is_new = depth >= np.repeat(shared, lengths)
    ids = order.sequences.ids[order.sequences.offsets[start] : order.sequences.offsets[stop]][
        is_new
    ]
    last = np.cumsum(lengths - shared) - 1
    end = _subtree_ends(lengths, shared)
    return Pack(ids, depth[is_new].astype(np.int32), end, last, order.owner[start:stop])


def _subtree_ends(lengths: Indices, shared: Indices) -> PackedTokens:
    """Return (n,) the last descendant of each token: a subtree ends where a sequence leaves it."""
    positions = np.arange((lengths - shared).sum(), dtype=np.int32)
    end = np.empty_like(positions)
    path = np.empty(lengths.max(), dtype=np.int32)  # tokens from the root to the last
    node_count = path_length = 0
    for length, prefix in zip(lengths.tolist(), shared.tolist(), strict=True):
        end[path[prefix:path_length]] = node_count - 1
        path[prefix:length] = positions[node_count : node_count + length - prefix]
        node_count, path_length = node_count + length - prefix, length
    end[path[:path_length]] = node_count - 1
    return end


def pack_equal_lengths(sequences: Sequence[Sequence[int]], budget: int) -> list[Pack]:
    """Return packs for bidirectional models: distinct sequences of equal length in each pack.

    The sequences of a pack are concatenated, without padding. Only duplicates are shared. A pack
    has at most `budget` tokens, but at least one sequence.

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
        packs.append(_pack_rows(order[start:stop], owners, width))
        start = stop
    return packs


def _pack_rows(
    rows: Sequence[tuple[int, ...]], owners: dict[tuple[int, ...], list[int]], width: int
) -> Pack:
    count = len(rows)
    ids = np.array(rows, dtype=np.int32).reshape(-1)
    depth = np.tile(np.arange(width, dtype=np.int32), count)
    end = np.repeat(np.arange(1, count + 1, dtype=np.int32) * width - 1, width)
    row_owners = [(row, owner) for row, tokens in enumerate(rows) for owner in owners[tokens]]
    last = np.array([(row + 1) * width - 1 for row, _ in row_owners], dtype=np.int64)
    return Pack(ids, depth, end, last, np.array([owner for _, owner in row_owners], dtype=np.int64))


def unpack(packs: Sequence[Pack]) -> dict[int, list[int]]:
    """Return sequence index → token ids, read from each last token back to its root."""
    sequences: dict[int, list[int]] = {}
    for pack_ in packs:
        for token, owner in zip(pack_.last.tolist(), pack_.owner.tolist(), strict=True):
            sequences[owner] = [int(pack_.ids[i]) for i in ancestors(pack_, token)]
    return sequences


def ancestors(pack_: Pack, token: int) -> list[int]:
    """Return the packed tokens that `token` attends to, from the root to itself."""
    before = np.arange(token + 1)
    seen: list[int] = before[pack_.end[: token + 1] >= token].tolist()
    return seen


def attention_mask(pack_: Pack) -> NDArray[np.bool_]:
    """Return the dense attention mask, (n, n) bool: row q, column k is true if q attends to k."""
    index = np.arange(len(pack_))
    keys: NDArray[np.bool_] = (index[None, :] <= index[:, None]) & (
        index[:, None] <= pack_.end[None, :]
    )
    return keys


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive tokens of a pack, and the earlier tokens that any of them attends to.

    Attributes:
        start: index of the first token.
        stop: index after the last token.
        ancestors: (a,) int64 indices of the tokens before `start`, ascending.
    """

    start: int
    stop: int
    ancestors: Indices


def split_blocks(pack_: Pack, size: int) -> list[Block]:
    """Return the blocks of at most `size` tokens of a pack.

    The ancestors of a block are those of its first token. A token's ancestor at some depth is the
    latest token of that depth, so one pass over the pack finds them all.
    """
    blocks: list[Block] = []
    latest = np.zeros(int(pack_.depth.max(initial=0)) + 1, dtype=np.int64)  # token by depth
    for start in range(0, len(pack_), size):
        stop = min(start + size, len(pack_))
        blocks.append(Block(start, stop, latest[: pack_.depth[start]].copy()))
        latest[pack_.depth[start:stop]] = np.arange(start, stop)  # the last of equal depths wins
    return blocks


@dataclass(frozen=True, slots=True)
class PackingCounts:
    """Token counts that show what packing saves; they depend on the sequences and the budget only.

    Attributes:
        sequences: number of sequences, duplicates included.
        tokens_without_sharing: tokens in all sequences.
        tokens_with_sharing: tokens in all packs.
        packs: number of packs.
        padded_tokens: tokens in batches sorted by length and padded, as other libraries run them.
        repeated_tokens: packed tokens that repeat a prefix of the previous pack.
    """

    sequences: int
    tokens_without_sharing: int
    tokens_with_sharing: int
    packs: int
    padded_tokens: int
    repeated_tokens: int

    @property
    def sharing(self) -> float:
        """Return the ratio of tokens without to tokens with prefix sharing, at least 1."""
        return (
            self.tokens_without_sharing / self.tokens_with_sharing
            if self.tokens_with_sharing
            else 1.0
        )


def count_tokens(
    packs: Sequence[Pack], sequences: Sequence[Sized], batch: int = 32
) -> PackingCounts:
    """Count the tokens of `sequences` with and without prefix sharing.

    Args:
        packs: all packs of the sequences, in order.
        sequences: token ids of each sequence.
        batch: sequences in a padded batch, for comparison.
    """
    lengths = sorted(map(len, sequences), reverse=True)
    heads = range(0, len(lengths), batch)
    return PackingCounts(
        sequences=len(lengths),
        tokens_without_sharing=sum(lengths),
        tokens_with_sharing=sum(map(len, packs)),
        packs=len(packs),
        padded_tokens=sum(lengths[head] * len(lengths[head : head + batch]) for head in heads),
        repeated_tokens=sum(map(_repeated_prefix, packs, packs[1:])),
    )


def _repeated_prefix(before: Pack, after: Pack) -> int:
    """Return how many leading tokens two adjacent packs share where they were split."""
    last_path = before.ids[ancestors(before, int(before.last[-1]))]
    first_path = after.ids[: after.last[0] + 1]
    size = min(len(last_path), len(first_path))
    return int(np.append(last_path[:size] == first_path[:size], False).argmin())
