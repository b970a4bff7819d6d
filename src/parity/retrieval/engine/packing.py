"""What packing needs to know of sequences: their order, what neighbours share, where to cut.

Arrays only, and a cost that grows with the tokens, so that a million sequences are planned in a
minute. Knows no trie, no model and no torch.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from parity.run.errors import BadData

Places = NDArray[np.int64]
"""(n,) int64: nodes, sequences or tokens by their index, or how many."""

_AT_ONCE = 1 << 20  # tokens that are compared or turned at once; bounds what is held beside them


@dataclass(frozen=True, slots=True)
class TokenSequences:
    """Sequences end to end, so that a million of them are two arrays.

    Attributes:
        ids: (t,) int32 token ids, not negative.
        offsets: (n + 1,) int64; sequence i is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: NDArray[np.int32]
    offsets: Places

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.offsets) - 1

    def lengths(self) -> Places:
        """Return (n,) tokens of each sequence."""
        return np.diff(self.offsets)


def flat(sequences: Sequence[Sequence[int]]) -> TokenSequences:
    """Return `sequences` end to end."""
    offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
    np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
    count = int(offsets[-1])
    return TokenSequences(np.fromiter(chain.from_iterable(sequences), np.int32, count), offsets)


@dataclass(frozen=True, slots=True)
class Ordered:
    """Sequences in lexicographic order, equal ones in the order of the input.

    Attributes:
        flat: the sequences, sorted.
        owner: (n,) place of each in the input.
        shared: (n,) leading tokens that each has in common with the one before it; 0 for the first.
    """

    flat: TokenSequences
    owner: Places
    shared: Places

    def new(self) -> Places:
        """Return (n,) nodes that each adds to a trie that holds the one before it."""
        return self.flat.lengths() - self.shared


def ordered(sequences: TokenSequences) -> Ordered:
    """Sort sequences, and compare each with the one before it.

    Raises:
        BadData: a sequence is empty.
    """
    lengths = sequences.lengths()
    if len(empty := np.flatnonzero(lengths == 0)):
        raise BadData(f"sequence {empty[0]} has no tokens")
    keys = _keys(sequences)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    joined = np.frombuffer(b"".join([keys[place] for place in order]), dtype=">i4")
    del keys  # as large as the sequences themselves
    owner = np.array(order, dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[owner])])
    one = TokenSequences(joined.astype(np.int32), offsets)
    return Ordered(one, owner, _shared(one))


def _keys(sequences: TokenSequences) -> list[bytes]:
    """Return big-endian bytes, whose order is that of the sequences: a prefix comes first."""
    keys: list[bytes] = []
    for start, stop in _chunks(sequences):
        first = sequences.offsets[start]
        data = sequences.ids[first : sequences.offsets[stop]].astype(">i4").tobytes()
        cuts = ((sequences.offsets[start : stop + 1] - first) * 4).tolist()
        keys += [data[one:other] for one, other in pairwise(cuts)]
    return keys


def _chunks(sequences: TokenSequences) -> list[tuple[int, int]]:
    """Return runs of sequences of about `_AT_ONCE` tokens, at least one sequence each."""
    marks = np.arange(0, sequences.offsets[-1], _AT_ONCE)
    bounds = np.unique([*np.searchsorted(sequences.offsets[:-1], marks), len(sequences)]).tolist()
    return list(pairwise(bounds))


def _shared(one: TokenSequences) -> Places:
    shared = np.zeros(len(one), dtype=np.int64)
    lengths = one.lengths()
    for start, stop in _chunks(one):
        rows = np.arange(max(start, 1), stop)
        common = np.minimum(lengths[rows], lengths[rows - 1])  # (r,) tokens that can be compared
        stops = np.cumsum(common)
        starts = stops - common
        place = np.arange(common.sum()) - np.repeat(starts, common)
        here = np.repeat(one.offsets[rows], common) + place
        before = np.repeat(one.offsets[rows - 1], common) + place
        parted = np.flatnonzero(one.ids[here] != one.ids[before])
        # The first difference at or after a row's start; that of a later row where it has none.
        first = np.append(parted, stops[-1:])[np.searchsorted(parted, starts)]
        shared[rows] = np.minimum(first, stops) - starts
    return shared


def cuts(sequences: Ordered, budget: int) -> list[tuple[int, int]]:
    """Return (start, stop) of each pack, of as few and then as equal packs as the budget allows.

    Packs are filled one after the other, which no other way of cutting beats in number: a part of
    a pack never holds more nodes than the whole. They are filled to the lowest level, at most the
    budget, that needs no further pack, so that the last is not nearly empty.

    Args:
        sequences: in order.
        budget: nodes in a pack; a longer sequence, with its equals, is a pack alone.
    """
    ends = np.cumsum(sequences.new()).tolist()
    lengths = sequences.flat.lengths().tolist()
    if not lengths:
        return []
    best = _filled(ends, lengths, budget, len(lengths))
    low, high = 1, budget
    while low < high:
        level = (low + high) // 2
        found = _filled(ends, lengths, level, len(best))
        if found:
            best, high = found, level
        else:
            low = level + 1
    return best


def _filled(ends: list[int], lengths: list[int], level: int, most: int) -> list[tuple[int, int]]:
    """Return packs filled to `level`, or none where they would be more than `most`."""
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(lengths):
        if len(found) == most:
            return []
        # The first sequence of a pack is there whole. One equal to the last adds no node.
        room = max(level - lengths[start], 0)
        stop = bisect_right(ends, ends[start] + room, start)
        found.append((start, stop))
        start = stop
    return found


def deal(sizes: Sequence[int], world: int) -> tuple[int, ...]:
    """Return the rank that each pack goes to, so that all have about as many tokens.

    The largest goes first, each to whoever has least; ties go to the smaller index and rank. The
    fullest rank has at most 4/3 of what the best deal gives it (Graham 1969, the LPT rule).

    Args:
        sizes: tokens of each pack.
        world: how many ranks there are.
    """
    loads = [0] * world
    ranks = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        rank = loads.index(min(loads))
        ranks[index] = rank
        loads[rank] += sizes[index]
    return tuple(ranks)
