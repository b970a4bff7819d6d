"""Blocks of units that belong together, and their assignment to the parts of a split.

Blocks are ordered by the sha256 of the seed and their first unit's id, so a split depends only on
the data and the seed: not on the order of rows or the version of a library.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from parity.competition import lineage
from parity.competition.query import Position, Qrels, Query, UnitId
from parity.run import digest

Right = frozenset[Position]
"""The right passages of one row."""
Parts = dict[UnitId, int]
"""Block → part, from 0."""


@dataclass(frozen=True, slots=True)
class UnitBlock:
    """Units that no split may separate.

    Attributes:
        units: ids; the first one is the first in the competition's order.
        rows: what is right in each of their labeled rows.
    """

    units: tuple[UnitId, ...]
    rows: tuple[Right, ...]


@dataclass(frozen=True, slots=True)
class SplitShape:
    """The shape of a split, independent of its blocks.

    Attributes:
        folds: number of parts that are valid in turn; 0 if part 0 is always valid and part 1 train.
        rows: target number of rows of a validation set.
        seed: seed of every choice.
    """

    folds: int
    rows: int
    seed: int

    @property
    def parts(self) -> int:
        """Number of parts, from 0."""
        return self.folds or 2

    @property
    def scored(self) -> int:
        """Number of parts, from 0, that are valid in some fold."""
        return max(self.folds, 1)

    def assign(
        self, blocks: Iterable[UnitBlock], first: Callable[[UnitBlock], bool] | None = None
    ) -> Parts:
        """Return each unit's part: blocks in the seed's order, those with `first` before others."""
        ordered = shuffled(blocks, self.seed)
        if first is not None:
            ordered.sort(key=lambda block: not first(block))  # stable
        return _deal(ordered, self.folds) if self.folds else _take(ordered, self.rows)


def shuffled(blocks: Iterable[UnitBlock], seed: int) -> list[UnitBlock]:
    """Return the blocks in the order that the seed gives them."""
    return sorted(blocks, key=lambda block: digest.of_text(f"{seed}/{block.units[0]}"))


def blocks(labeled: Sequence[Query], qrels: Qrels) -> list[UnitBlock]:
    """Return the units of equal text as one block each, in the competition's order.

    Args:
        labeled: rows with a label, in the competition's order.
        qrels: their right passages.
    """
    groups = lineage.groups(labeled)
    members: dict[UnitId, list[UnitId]] = defaultdict(list)
    for unit, group in groups.items():
        members[group].append(unit)
    rows: dict[UnitId, list[Right]] = defaultdict(list)
    for query in labeled:
        rows[groups[query.unit]].append(qrels[query.query_id])
    return [UnitBlock(tuple(members[group]), tuple(rows[group])) for group in members]


def joined_by_group(
    blocks: list[UnitBlock], labeled: Sequence[Query], group: str
) -> list[UnitBlock]:
    """Return the blocks with all units of one group of this kind merged into one block."""
    index_of = {unit: index for index, block in enumerate(blocks) for unit in block.units}
    ties: dict[str, list[int]] = defaultdict(list)
    for query in labeled:
        ties[query.groups[group]].append(index_of[query.unit])
    return join(blocks, ties.values(), cap=len(labeled))


def join(
    blocks: Sequence[UnitBlock], ties: Iterable[Sequence[int]], *, cap: int
) -> list[UnitBlock]:
    """Return the blocks with those of each tie merged, unless the result would exceed `cap` rows.

    Args:
        blocks: blocks to join.
        ties: indices in `blocks` that should stay together; earlier ties come first.
        cap: rows of the largest block that a tie may make.
    """
    parent = list(range(len(blocks)))
    rows = [len(block.rows) for block in blocks]

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for tie in ties:
        first, *absorbed = sorted({root(index) for index in tie})
        total = rows[first] + sum(rows[other] for other in absorbed)
        if absorbed and total <= cap:
            rows[first] = total
            for other in absorbed:
                parent[other] = first
    members: dict[int, list[UnitBlock]] = defaultdict(list)
    for index, block in enumerate(blocks):
        members[root(index)].append(block)
    return [
        UnitBlock(
            tuple(unit for block in joined for unit in block.units),
            tuple(row for block in joined for row in block.rows),
        )
        for joined in members.values()
    ]


def carriers(blocks: Sequence[UnitBlock]) -> dict[Position, list[int]]:
    """Return passage → indices of the blocks with a row that it is right for, in order."""
    indices: dict[Position, list[int]] = defaultdict(list)
    for index, block in enumerate(blocks):
        for position in sorted(frozenset[Position]().union(*block.rows)):
            indices[position].append(index)
    return {position: indices[position] for position in sorted(indices)}


def _take(blocks: Sequence[UnitBlock], rows: int) -> Parts:
    """Put blocks in part 0 in order, as near to `rows` rows as possible, and the others in part 1.

    Takes at least one block if there is any.
    """
    taken: list[UnitBlock] = []
    remaining: list[UnitBlock] = []
    filled = 0
    for block in blocks:
        fits = filled + len(block.rows) <= rows
        (taken if fits else remaining).append(block)
        filled += len(block.rows) if fits else 0
    smallest = min(remaining, key=lambda block: len(block.rows), default=None)
    if smallest and (not taken or len(smallest.rows) < 2 * (rows - filled)):
        taken.append(smallest)  # nearer with it, or nothing else fits at all
    valid = {unit for block in taken for unit in block.units}
    return {unit: int(unit not in valid) for block in blocks for unit in block.units}


def _deal(blocks: Sequence[UnitBlock], folds: int) -> Parts:
    """Put each block in the fold with the fewest rows, so that folds have similar sizes.

    Larger blocks go first, so that the smaller ones even out the folds; ties keep the order.
    """
    filled = [0] * folds
    parts: Parts = {}
    for block in sorted(blocks, key=lambda block: -len(block.rows).bit_length()):
        fold = filled.index(min(filled))
        filled[fold] += len(block.rows)
        parts.update(dict.fromkeys(block.units, fold))
    return parts
