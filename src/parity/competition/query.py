"""Queries and labels, in the terms that every competition shares.

Ids are text. A passage is known by its position in the corpus, whose order the competition defines;
only files hold passage ids.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NewType

from parity.run import files

QueryId = NewType("QueryId", str)
"""Name of a query: the unit, an underscore and the row; a unit of one row may be the name alone."""
UnitId = NewType("UnitId", str)
"""Name of what a split never cuts, such as a question with all its wrong answers."""
PassageId = NewType("PassageId", str)
"""Name of a passage, as the competition's files and the submission have it."""
Position = NewType("Position", int)
"""Position of a passage in the corpus, from 0."""
Passages = Mapping[Position, str]
"""Position of a passage → its text."""
Qrels = dict[QueryId, frozenset[Position]]
"""Query id → positions of the right passages; only labeled queries have a row."""


@dataclass(frozen=True, slots=True)
class QueryLayout:
    """Purpose of the fields of a competition's queries.

    Attributes:
        shorten: fields that a prompt may shorten, the first one first; a template must name the
            last one.
        nearest: fields that decide which few-shot examples are the nearest.
        identity: fields that name a unit; units with the same texts count as one. Empty if only
            the id names a unit.
    """

    shorten: tuple[str, ...]
    nearest: tuple[str, ...]
    identity: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One row to rank passages for.

    Attributes:
        query_id: name of the query.
        unit: what a split never cuts.
        order: rank in the competition's order of queries.
        row: name of the row in the submission.
        unit_size: number of rows that the unit has when all of them are labeled.
        fields: name in templates → text, in the competition's order.
        groups: kind of group → id of the group; the first kind is the topic.
        layout: purpose of the fields.
    """

    query_id: QueryId
    unit: UnitId
    order: int
    row: str
    unit_size: int
    fields: Mapping[str, str] = field(hash=False)
    groups: Mapping[str, str] = field(hash=False)
    layout: QueryLayout

    @property
    def text(self) -> str:
        """All fields, separated by spaces."""
        return " ".join(self.fields.values())

    @property
    def identity(self) -> str:
        """The text that names the unit; empty if only its id does."""
        return "\n".join(self.fields[name] for name in self.layout.identity)

    @property
    def nearest_text(self) -> str:
        """The text that few-shot examples are compared by."""
        return " ".join(self.fields[name] for name in self.layout.nearest)

    @property
    def topic(self) -> str:
        """Id of the group of the first kind; empty where there are no groups."""
        return next(iter(self.groups.values()), "")

    def with_field(self, name: str, text: str) -> "Query":
        """Return the query with a new text in one field."""
        return replace(self, fields={**self.fields, name: text})


def unit_of(query_id: QueryId) -> UnitId:
    """Return the unit's part of a query id.

    >>> unit_of(QueryId("1672_A")), unit_of(QueryId("q17"))
    ('1672', 'q17')
    """
    return UnitId(query_id.rpartition("_")[0] or query_id)


def write_queries(path: Path, queries: list[Query]) -> None:
    """Write `queries.jsonl`, one query a line, in the given order."""
    files.write_jsonl(path, (asdict(query) for query in queries))


def read_queries(path: Path) -> list[Query]:
    """Read what `write_queries` wrote."""
    return [_query(row) for row in files.read_jsonl(path)]


def _query(row: dict[str, Any]) -> Query:
    layout = {name: tuple(fields) for name, fields in row["layout"].items()}
    return Query(**{**row, "layout": QueryLayout(**layout)})
