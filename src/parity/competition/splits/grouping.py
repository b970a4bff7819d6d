"""Part questions that belong together: by share, into folds, or around whole misconceptions.

The order of everything is that of sha256 over seed and smallest question id, so a cut depends on
the data and the seed alone: not on the order of rows, nor on any library's version.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from parity.competition import lineage
from parity.competition.query import MisconceptionId, Qrels, Query
from parity.run import digest

Right = frozenset[MisconceptionId]
"""The right misconceptions of one row."""
Parts = dict[int, int]
"""Question id → part, from 0."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Questions that no cut may separate.

    Attributes:
        questions: ids, ascending, at least one.
        rows: what is right in each of their labeled rows.
    """

    questions: tuple[int, ...]
    rows: tuple[Right, ...]


@dataclass(frozen=True, slots=True)
class SplitShape:
    """What a cut looks like, whatever the units.

    Attributes:
        folds: parts that are valid in turn; 0 where part 0 is valid and part 1 is train for good.
        rows: rows wanted on a valid side.
        seed: of every choice.
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
        """Number of parts, from 0, that are valid at some time."""
        return max(self.folds, 1)

    def place(self, units: Iterable[Unit], first: Callable[[Unit], bool] | None = None) -> Parts:
        """Return each question's part: units in the seed's order, those that are `first` first."""
        ordered = shuffled(units, self.seed)
        if first is not None:
            ordered.sort(key=lambda unit: not first(unit))  # stable
        return _deal(ordered, self.folds) if self.folds else _take(ordered, self.rows)


def shuffled(units: Iterable[Unit], seed: int) -> list[Unit]:
    """Return the units in the order that the seed gives them."""
    return sorted(units, key=lambda unit: digest.of_text(f"{seed}/{unit.questions[0]}"))


def units(labeled: Sequence[Query], qrels: Qrels) -> list[Unit]:
    """Return the questions of equal text as one unit each, by smallest id.

    Args:
        labeled: rows with a label, by question id.
        qrels: their right misconceptions.
    """
    groups = lineage.groups(labeled)
    members: dict[int, list[int]] = defaultdict(list)
    for question, group in groups.items():
        members[group].append(question)
    rows: dict[int, list[Right]] = defaultdict(list)
    for query in labeled:
        rows[groups[query.question_id]].append(qrels[query.query_id])
    return [Unit(tuple(members[group]), tuple(rows[group])) for group in sorted(members)]


def labeled_alike(
    units: list[Unit], labeled: Sequence[Query], label: Callable[[Query], int]
) -> list[Unit]:
    """Return the units with all questions of one label made one unit."""
    place = {question: at for at, unit in enumerate(units) for question in unit.questions}
    ties: dict[int, list[int]] = defaultdict(list)
    for query in labeled:
        ties[label(query)].append(place[query.question_id])
    return join(units, ties.values(), cap=len(labeled))


def join(units: Sequence[Unit], ties: Iterable[Sequence[int]], *, cap: int) -> list[Unit]:
    """Return the units with those of each tie made one, unless that one would exceed `cap` rows.

    Args:
        units: what is joined.
        ties: places in `units` that should stay together; earlier ties come first.
        cap: rows of the largest unit that a tie may make.
    """
    parent = list(range(len(units)))
    rows = [len(unit.rows) for unit in units]

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for tie in ties:
        first, *others = sorted({root(place) for place in tie})
        total = rows[first] + sum(rows[other] for other in others)
        if others and total <= cap:
            rows[first] = total
            for other in others:
                parent[other] = first
    members: dict[int, list[Unit]] = defaultdict(list)
    for place, unit in enumerate(units):
        members[root(place)].append(unit)
    return [
        Unit(
            tuple(sorted(question for unit in joined for question in unit.questions)),
            tuple(row for unit in joined for row in unit.rows),
        )
        for joined in members.values()
    ]


def carriers(units: Sequence[Unit]) -> dict[MisconceptionId, list[int]]:
    """Return misconception → places in `units` of those with a row that it is right for, by id."""
    found: dict[MisconceptionId, list[int]] = defaultdict(list)
    for place, unit in enumerate(units):
        for one in sorted(frozenset[MisconceptionId]().union(*unit.rows)):
            found[one].append(place)
    return {one: found[one] for one in sorted(found)}


def _take(units: Sequence[Unit], rows: int) -> Parts:
    """Put units in part 0, the first ones first, as near to `rows` rows as they come; others in 1.

    At least one unit is taken where there is any.
    """
    taken: list[Unit] = []
    left: list[Unit] = []
    filled = 0
    for unit in units:
        fits = filled + len(unit.rows) <= rows
        (taken if fits else left).append(unit)
        filled += len(unit.rows) if fits else 0
    smallest = min(left, key=lambda unit: len(unit.rows), default=None)
    if smallest and (not taken or len(smallest.rows) < 2 * (rows - filled)):
        taken.append(smallest)  # nearer with it, or nothing else fits at all
    valid = {question for unit in taken for question in unit.questions}
    return {question: int(question not in valid) for unit in units for question in unit.questions}


def _deal(units: Sequence[Unit], folds: int) -> Parts:
    """Put each unit in the fold with the fewest rows, so that folds grow alike.

    Larger units go first, that the last ones may level; of about equal size, the first ones first.
    """
    filled = [0] * folds
    parts: Parts = {}
    for unit in sorted(units, key=lambda unit: -len(unit.rows).bit_length()):
        fold = filled.index(min(filled))
        filled[fold] += len(unit.rows)
        parts.update(dict.fromkeys(unit.questions, fold))
    return parts
