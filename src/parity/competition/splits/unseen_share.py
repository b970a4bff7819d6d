"""Splits in which a target share of the validation rows is unseen, without cutting units.

Rows become unseen when all units of a label stay together: the more labels keep their units
together, in the seed's order, the larger the share. Swaps of blocks correct the remaining gap.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

from parity.competition.query import Position
from parity.competition.splits import grouping
from parity.competition.splits.grouping import Parts, Right, SplitShape, UnitBlock
from parity.run import digest

_DRAWS = 20_000  # swaps tried at most: under a second on a few thousand rows
_BLOCKS = 4  # smallest number of joined blocks in a validation set


def cut(blocks: Sequence[UnitBlock], shape: SplitShape, *, share: float) -> Parts:
    """Return parts whose share of unseen rows is as near to `share` as possible.

    Args:
        blocks: blocks to split, in the competition's order.
        shape: folds, rows of a validation set, seed.
        share: target share of a scored part's rows whose labels appear in no other part.
    """
    ties = grouping.carriers(blocks)
    order = sorted(ties, key=lambda item: _by_seed(shape, item))

    def join_labels(count: int) -> Parts:
        joined = [ties[position] for position in order[:count]]
        return shape.assign(grouping.join(blocks, joined, cap=shape.rows // _BLOCKS))

    def enough(count: int) -> bool:
        # The smallest share decides: swaps lower a share more easily than they raise it.
        tally = _Tally(blocks, join_labels(count), shape.parts)
        return all(tally.missing(part, share) <= 0 for part in range(shape.scored))

    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    # If joining all labels in the seed's order is not enough, start from separated labels.
    parts = join_labels(low) if enough(low) else separate_labels(blocks, shape)
    return _swap_blocks(blocks, parts, shape, share)


def separate_labels(blocks: Sequence[UnitBlock], shape: SplitShape) -> Parts:
    """Return parts such that as few labels as possible are in more than one part.

    Blocks that share no label with another block come first, so a validation set filled by them
    shares no label with train. The units of frequent labels are joined before those of rare ones; a
    label whose units exceed a block is divided.
    """
    ties = grouping.carriers(blocks)
    order = sorted(ties, key=lambda item: (-len(ties[item]), _by_seed(shape, item)))
    joined = grouping.join(blocks, [ties[position] for position in order], cap=shape.rows)
    carriers = grouping.carriers(joined)
    shared = {position for position, indices in carriers.items() if len(indices) > 1}
    return shape.assign(
        joined, first=lambda block: shared.isdisjoint(chain.from_iterable(block.rows))
    )


class _Tally:
    """Rows and unseen rows of each part, updated while blocks are swapped."""

    def __init__(self, blocks: Sequence[UnitBlock], parts: Parts, size: int) -> None:
        self.rows = [0] * size
        self.unseen = [0] * size
        self._held: dict[Position, list[int]] = defaultdict(lambda: [0] * size)
        self._alike: dict[Right, list[int]] = defaultdict(lambda: [0] * size)
        self._with: dict[Position, list[Right]] = defaultdict(list)
        for block in blocks:
            part = parts[block.units[0]]
            self.rows[part] += len(block.rows)
            for right in block.rows:
                if right not in self._alike:
                    for position in right:
                        self._with[position].append(right)
                self._add(right, part, 1)
        self._count(self._alike, 1)

    def missing(self, part: int, share: float) -> float:
        """Return the number of unseen rows that the part is short of; negative for a surplus."""
        return share * self.rows[part] - self.unseen[part]

    def swap(self, first: UnitBlock, second: UnitBlock, parts: tuple[int, int]) -> None:
        """Swap `first`, of the first part, with `second`, of the second; both have equal rows."""
        changed = frozenset[Position]().union(*first.rows, *second.rows)
        touched = {right for position in changed for right in self._with[position]}
        self._count(touched, -1)
        for block, (source, target) in ((first, parts), (second, parts[::-1])):
            for right in block.rows:
                self._add(right, source, -1)
                self._add(right, target, 1)
        self._count(touched, 1)

    def _add(self, right: Right, part: int, rows: int) -> None:
        self._alike[right][part] += rows
        for position in right:
            self._held[position][part] += rows

    def _count(self, touched: Iterable[Right], sign: int) -> None:
        for right in touched:
            for part, rows in enumerate(self._alike[right]):
                if rows and all(
                    self._held[position][part] == sum(self._held[position]) for position in right
                ):
                    self.unseen[part] += sign * rows


def _swap_blocks(
    blocks: Sequence[UnitBlock], parts: Parts, shape: SplitShape, share: float
) -> Parts:
    """Swap blocks of equal rows between parts while that brings the shares nearer to `share`."""
    tally = _Tally(blocks, parts, shape.parts)
    members: list[list[UnitBlock]] = [[] for _ in tally.rows]
    for block in blocks:
        members[parts[block.units[0]]].append(block)
    draw = random.Random(int(digest.of_text(f"{shape.seed}/swaps"), 16)).random
    scored = range(shape.scored)

    def gap() -> float:
        return sum(abs(tally.missing(part, share)) for part in scored)

    best = gap()
    for _ in range(_DRAWS if all(members) else 0):
        off = [part for part in scored if abs(tally.missing(part, share)) > 0.5]  # by a full row
        if not off:
            break
        source = off[int(draw() * len(off))]
        target = (source + 1 + int(draw() * (len(members) - 1))) % len(members)
        index, other_index = (int(draw() * len(members[part])) for part in (source, target))
        first, second = members[source][index], members[target][other_index]
        if len(first.rows) != len(second.rows):
            continue
        tally.swap(first, second, (source, target))
        if gap() <= best:  # a swap without a gain may enable one with a gain
            best = gap()
            members[source][index], members[target][other_index] = second, first
        else:
            tally.swap(second, first, (source, target))
    return {
        unit: part for part, group in enumerate(members) for block in group for unit in block.units
    }


def _by_seed(shape: SplitShape, position: Position) -> str:
    return digest.of_text(f"{shape.seed}/held/{position}")
