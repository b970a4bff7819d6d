"""Plan of the packs: order of the sequences, shared prefixes, bounds and ranks.

All functions work on arrays in time linear in the tokens, so that a million sequences are planned
in a minute. This module needs neither a model nor torch.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from parity.run.errors import BadData

Indices = NDArray[np.int64]
"""(n,) int64: indices or counts of sequences or tokens."""

_CHUNK_TOKENS = 1 << 20  # tokens compared or converted in one step, which bounds the memory


@dataclass(frozen=True, slots=True)
class TokenSequences:
    """n concatenated sequences, so that a million of them are two arrays.

    Attributes:
        ids: (t,) int32 token ids, not negative.
        offsets: (n + 1,) int64 bounds; sequence i is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: NDArray[np.int32]
    offsets: Indices

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.offsets) - 1

    def lengths(self) -> Indices:
        """Return (n,) int64, the number of tokens in each sequence."""
        return np.diff(self.offsets)


def concatenate(sequences: Sequence[Sequence[int]]) -> TokenSequences:
    """Return `sequences` concatenated."""
    offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
    np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
    count = int(offsets[-1])
    return TokenSequences(np.fromiter(chain.from_iterable(sequences), np.int32, count), offsets)


@dataclass(frozen=True, slots=True)
class SortedSequences:
    """Sequences in lexicographic order; equal sequences keep the order of the input.

    Attributes:
        sequences: the n sorted sequences.
        owner: (n,) int64 index of each sequence in the input.
        shared: (n,) int64 leading tokens that each sequence shares with the previous one; 0 for
            the first.
    """

    sequences: TokenSequences
    owner: Indices
    shared: Indices

    def added_tokens(self) -> Indices:
        """Return (n,) int64, the tokens that each sequence adds to a trie with the previous one."""
        return self.sequences.lengths() - self.shared


def sort_sequences(sequences: TokenSequences) -> SortedSequences:
    """Sort sequences and compare each with the previous one.

    Raises:
        BadData: a sequence is empty.
    """
    lengths = sequences.lengths()
    if len(empty := np.flatnonzero(lengths == 0)):
        raise BadData(f"sequence {empty[0]} has no tokens")
    keys = _keys(sequences)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    joined = np.frombuffer(b"".join([keys[index] for index in order]), dtype=">i4")
    del keys  # as large as the sequences themselves
    owner = np.array(order, dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[owner])])
    sorted_sequences = TokenSequences(joined.astype(np.int32), offsets)
    return SortedSequences(sorted_sequences, owner, _shared_lengths(sorted_sequences))


def _keys(sequences: TokenSequences) -> list[bytes]:
    """Return sort keys: big-endian bytes sort like the sequences, prefixes first."""
    keys: list[bytes] = []
    for start, stop in _chunks(sequences):
        first = sequences.offsets[start]
        data = sequences.ids[first : sequences.offsets[stop]].astype(">i4").tobytes()
        bounds = ((sequences.offsets[start : stop + 1] - first) * 4).tolist()
        keys += [data[low:high] for low, high in pairwise(bounds)]
    return keys


def _chunks(sequences: TokenSequences) -> list[tuple[int, int]]:
    """Return (start, stop) of runs of sequences with about `_CHUNK_TOKENS` tokens each."""
    marks = np.arange(0, sequences.offsets[-1], _CHUNK_TOKENS)
    bounds = np.unique([*np.searchsorted(sequences.offsets[:-1], marks), len(sequences)]).tolist()
    return list(pairwise(bounds))


def _shared_lengths(sequences: TokenSequences) -> Indices:
    shared = np.zeros(len(sequences), dtype=np.int64)
    lengths = sequences.lengths()
    for start, stop in _chunks(sequences):
        rows = np.arange(max(start, 1), stop)
        common = np.minimum(lengths[rows], lengths[rows - 1])  # (r,) comparable tokens
        stops = np.cumsum(common)
        starts = stops - common
        columns = np.arange(common.sum()) - np.repeat(starts, common)
        current = np.repeat(sequences.offsets[rows], common) + columns
        previous = np.repeat(sequences.offsets[rows - 1], common) + columns
        differing = np.flatnonzero(sequences.ids[current] != sequences.ids[previous])
        # The first difference at or after a row's start; a row without one finds a later row's.
        first_difference = np.append(differing, stops[-1:])[np.searchsorted(differing, starts)]
        shared[rows] = np.minimum(first_difference, stops) - starts
    return shared


def pack_bounds(sequences: SortedSequences, budget: int) -> list[tuple[int, int]]:
    """Return (start, stop) of each pack: as few packs as the budget allows, of about equal size.

    Greedy filling gives the smallest number of packs, since part of a pack never has more tokens
    than the pack. Packs are filled up to the lowest level (at most the budget) that needs no
    additional pack, so the last pack is not nearly empty.

    Args:
        sequences: the sorted sequences.
        budget: largest number of tokens in a pack; a longer sequence and its duplicates get their
            own pack.
    """
    ends = np.cumsum(sequences.added_tokens()).tolist()
    lengths = sequences.sequences.lengths().tolist()
    if not lengths:
        return []
    best = _fill_packs(ends, lengths, budget, len(lengths))
    low, high = 1, budget
    while low < high:
        level = (low + high) // 2
        packs = _fill_packs(ends, lengths, level, len(best))
        if packs:
            best, high = packs, level
        else:
            low = level + 1
    return best


def _fill_packs(
    ends: list[int], lengths: list[int], level: int, max_packs: int
) -> list[tuple[int, int]]:
    """Return (start, stop) of packs filled up to `level`; empty if they exceed `max_packs`."""
    packs: list[tuple[int, int]] = []
    start = 0
    while start < len(lengths):
        if len(packs) == max_packs:
            return []
        # The first sequence of a pack is stored in full. A duplicate of the last adds no token.
        room = max(level - lengths[start], 0)
        stop = bisect_right(ends, ends[start] + room, start)
        packs.append((start, stop))
        start = stop
    return packs


def assign_ranks(sizes: Sequence[int], world_size: int) -> tuple[int, ...]:
    """Return the rank of each pack, so that all ranks have about the same number of tokens.

    The largest pack comes first, and each goes to the rank with the fewest tokens. Ties go to the
    smaller index and rank. The largest load is at most 4/3 of the optimum.

    Args:
        sizes: tokens in each pack.
        world_size: number of ranks.

    Source: the LPT rule, Graham 1969, "Bounds on Multiprocessing Timing Anomalies".
    """
    loads = [0] * world_size
    ranks = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        rank = loads.index(min(loads))
        ranks[index] = rank
        loads[rank] += sizes[index]
    return tuple(ranks)
