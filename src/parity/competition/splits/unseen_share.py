"""Cut so that a wanted share of the held-out rows is unseen, with questions whole.

Holding the questions of a misconception together is what makes rows unseen: the more of them are
held, in the order the seed gives, the larger the share. What is then missing is mended by swaps.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

from parity.competition.query import MisconceptionId
from parity.competition.splits import grouping
from parity.competition.splits.grouping import Parts, Right, SplitShape, Unit
from parity.run import digest

_DRAWS = 20_000  # swaps tried at most: under a second on a few thousand rows
_BLOCKS = 4  # at the least so many blocks of questions held together make a valid side


def cut(units: Sequence[Unit], shape: SplitShape, *, wanted: float) -> Parts:
    """Cut so that the share of unseen rows is as near to `wanted` as it gets in each scored part.

    Args:
        units: what is cut, by smallest question id.
        shape: folds, rows of a valid side, seed.
        wanted: share of a scored part's rows whose misconceptions stand in no other part.
    """
    ties = grouping.carriers(units)
    order = sorted(ties, key=lambda item: _by_seed(shape, item))

    def held(count: int) -> Parts:
        kept = [ties[one] for one in order[:count]]
        return shape.place(grouping.join(units, kept, cap=shape.rows // _BLOCKS))

    def enough(count: int) -> bool:
        # The least share decides: swaps lower a share more easily than they raise one.
        tally = _Tally(units, held(count), shape.parts)
        return all(tally.missing(part, wanted) <= 0 for part in range(shape.scored))

    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    # Where blocks in the seed's order hold too little, the blocks chosen to hold most may do.
    parts = held(low) if enough(low) else apart(units, shape)
    return _mend(units, parts, shape, wanted)


def apart(units: Sequence[Unit], shape: SplitShape) -> Parts:
    """Cut so that as few misconceptions as may be stand in more than one part.

    Blocks of questions that share no misconception with any other come first, so a valid side
    that they fill is held out whole. Elsewhere the questions of frequent misconceptions are kept
    together first; a misconception whose questions fill no block is cut.
    """
    ties = grouping.carriers(units)
    order = sorted(ties, key=lambda item: (-len(ties[item]), _by_seed(shape, item)))
    blocks = grouping.join(units, [ties[one] for one in order], cap=shape.rows)
    shared = {one for one, places in grouping.carriers(blocks).items() if len(places) > 1}
    return shape.place(
        blocks, first=lambda block: shared.isdisjoint(chain.from_iterable(block.rows))
    )


class _Tally:
    """Rows and unseen rows of each part, kept up to date while units change places."""

    def __init__(self, units: Sequence[Unit], parts: Parts, size: int) -> None:
        self.rows = [0] * size
        self.unseen = [0] * size
        self._held: dict[MisconceptionId, list[int]] = defaultdict(lambda: [0] * size)
        self._alike: dict[Right, list[int]] = defaultdict(lambda: [0] * size)
        self._with: dict[MisconceptionId, list[Right]] = defaultdict(list)
        for unit in units:
            part = parts[unit.questions[0]]
            self.rows[part] += len(unit.rows)
            for right in unit.rows:
                if right not in self._alike:
                    for one in right:
                        self._with[one].append(right)
                self._add(right, part, 1)
        self._count(self._alike, 1)

    def missing(self, part: int, wanted: float) -> float:
        """Return how many unseen rows the part has too few; negative where too many."""
        return wanted * self.rows[part] - self.unseen[part]

    def swap(self, first: Unit, second: Unit, parts: tuple[int, int]) -> None:
        """Move `first` from the one part to the other and `second` back; as many rows in each."""
        changed = frozenset[MisconceptionId]().union(*first.rows, *second.rows)
        touched = {right for one in changed for right in self._with[one]}
        self._count(touched, -1)
        for unit, (source, target) in ((first, parts), (second, parts[::-1])):
            for right in unit.rows:
                self._add(right, source, -1)
                self._add(right, target, 1)
        self._count(touched, 1)

    def _add(self, right: Right, part: int, rows: int) -> None:
        self._alike[right][part] += rows
        for one in right:
            self._held[one][part] += rows

    def _count(self, touched: Iterable[Right], sign: int) -> None:
        for right in touched:
            for part, rows in enumerate(self._alike[right]):
                if rows and all(self._held[one][part] == sum(self._held[one]) for one in right):
                    self.unseen[part] += sign * rows


def _mend(units: Sequence[Unit], parts: Parts, shape: SplitShape, wanted: float) -> Parts:
    """Swap units of as many rows between parts while that brings the shares nearer to `wanted`."""
    tally = _Tally(units, parts, shape.parts)
    members: list[list[Unit]] = [[] for _ in tally.rows]
    for unit in units:
        members[parts[unit.questions[0]]].append(unit)
    draw = random.Random(int(digest.of_text(f"{shape.seed}/swaps"), 16)).random
    scored = range(shape.scored)

    def gap() -> float:
        return sum(abs(tally.missing(part, wanted)) for part in scored)

    best = gap()
    for _ in range(_DRAWS if all(members) else 0):
        off = [part for part in scored if abs(tally.missing(part, wanted)) > 0.5]  # by a whole row
        if not off:
            break
        here = off[int(draw() * len(off))]
        there = (here + 1 + int(draw() * (len(members) - 1))) % len(members)
        mine, theirs = (int(draw() * len(members[part])) for part in (here, there))
        first, second = members[here][mine], members[there][theirs]
        if len(first.rows) != len(second.rows):
            continue
        tally.swap(first, second, (here, there))
        if gap() <= best:  # a swap that gains nothing may open the way for one that does
            best = gap()
            members[here][mine], members[there][theirs] = second, first
        else:
            tally.swap(second, first, (here, there))
    return {
        question: part
        for part, inside in enumerate(members)
        for unit in inside
        for question in unit.questions
    }


def _by_seed(shape: SplitShape, one: MisconceptionId) -> str:
    return digest.of_text(f"{shape.seed}/held/{one}")
