"""The tables of a competition → queries, labels and corpus; every error names file, row, column."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from parity.competition import csv_reader
from parity.competition.base import CompetitionData
from parity.competition.corpus import Corpus
from parity.competition.csv_reader import CsvTable
from parity.competition.query import (
    PassageId,
    Position,
    Qrels,
    Query,
    QueryId,
    QueryLayout,
    UnitId,
)
from parity.run import digest
from parity.run.config.competition import CompetitionConfig
from parity.run.errors import BadData

SEPARATORS = {"space": " ", "comma": ",", "rows": ""}
"""Row format of a submission → separator of the ids in one cell."""
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)  # 18 digits still fit an int64


class TableReader:
    """Reads the tables that a run file describes.

    Attributes:
        config: names of files and columns.
        layout: purpose of the text columns of a query.
    """

    def __init__(self, config: CompetitionConfig) -> None:
        """Take the description of the tables."""
        self.config = config
        texts = config.query_texts
        self.layout = QueryLayout(
            shorten=texts[::-1], nearest=texts, identity=() if config.unit else texts
        )

    def read(self, folder: Path) -> CompetitionData:
        """Read and check all tables.

        Raises:
            BadData: names file, row (from 1, the header not counted) and column.
        """
        config = self.config
        corpus = self.read_corpus(folder)
        queries, names = self._queries(self._open(folder, config.queries, self._query_columns()))
        qrels = self._qrels(folder, names, corpus)
        return CompetitionData(
            queries=[query for query in queries if query.query_id in qrels],
            qrels={
                query.query_id: qrels[query.query_id]
                for query in queries
                if query.query_id in qrels
            },
            test=self.read_test(folder),
            corpus=corpus,
            files={name: digest.of_file(folder / name) for name in sorted(self.files)},
        )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files, each once."""
        config = self.config
        return tuple(dict.fromkeys((config.test, config.queries, config.corpus, config.labels)))

    def read_test(self, folder: Path) -> list[Query]:
        """Read the queries to predict, in the file's order; as `read`."""
        table = self._open(folder, self.config.test, self._query_columns())
        queries, names = self._queries(table)
        by_id = {query.query_id: query for query in queries}
        return [by_id[query_id] for query_id in names.values()]

    def read_corpus(self, folder: Path) -> Corpus:
        """Read the passages in the order of their ids; as `read`."""
        config = self.config
        columns = (config.passage_id, *config.passage_texts)
        table = self._open(folder, config.corpus, columns)
        may_repeat = config.corpus in (config.queries, config.labels)
        passages: dict[str, str] = {}
        for index in range(len(table.columns[config.passage_id])):
            passage_id = _id(table, config.passage_id, index, config.passage_order)
            text = "\n".join(table.columns[column][index] for column in config.passage_texts)
            if not text.strip():
                raise table.fault(config.passage_texts[0], index, "the text is empty")
            if (separator := SEPARATORS[config.submission_format]) and separator in passage_id:
                problem = f"the id {passage_id!r} contains the separator of the submission"
                raise table.fault(config.passage_id, index, problem)
            is_known = passage_id in passages
            if is_known and not (may_repeat and passages[passage_id] == text):
                problem = f"the id {passage_id} comes twice"
                raise table.fault(config.passage_id, index, problem)
            passages[passage_id] = text
        ordered = _in_order(passages, config.passage_order)
        return Corpus({PassageId(passage_id): passages[passage_id] for passage_id in ordered})

    def _query_columns(self) -> tuple[str, ...]:
        config = self.config
        unit = (config.unit,) if config.unit else ()
        return tuple(dict.fromkeys((config.query_id, *unit, *config.groups, *config.query_texts)))

    def _open(self, folder: Path, name: str, columns: Sequence[str]) -> CsvTable:
        return csv_reader.read(folder / name, tuple(dict.fromkeys(columns)))

    def _queries(self, table: CsvTable) -> tuple[list[Query], dict[str, QueryId]]:
        """Return the queries of a table in the order of their ids, and id in the file → query."""
        config = self.config
        rows = self._distinct(table)
        units = [self._unit(table, index) for index in range(len(rows))]
        names: dict[str, QueryId] = {}
        index_of: dict[QueryId, int] = {}
        for index, row in enumerate(rows):
            query_id = _query_id(row, units[index] if config.unit else "")
            if index_of.setdefault(query_id, index) != index:
                problem = f"the id {row} reads like that of row {index_of[query_id] + 1}"
                raise table.fault(config.query_id, index, problem)
            names[row] = query_id
        ordered = _in_order(names, config.query_order)
        sizes = Counter(units)
        queries = [
            self._query(table, index_of[names[row]], names[row], order, sizes)
            for order, row in enumerate(ordered)
        ]
        return queries, names

    def _query(
        self, table: CsvTable, index: int, query_id: QueryId, order: int, sizes: Counter[str]
    ) -> Query:
        config = self.config
        unit = self._unit(table, index)
        fields = {column: table.columns[column][index] for column in config.query_texts}
        if not fields[config.query_texts[0]].strip():
            raise table.fault(config.query_texts[0], index, "the text is empty")
        for column in config.groups:
            if not table.columns[column][index].strip():
                raise table.fault(column, index, "the group is missing")
        return Query(
            query_id=query_id,
            unit=UnitId(unit),
            order=order,
            row=_id(table, config.query_id, index, config.query_order),
            unit_size=sizes[unit],
            fields=fields,
            groups={column: table.columns[column][index] for column in config.groups},
            layout=self.layout,
        )

    def _unit(self, table: CsvTable, index: int) -> str:
        if self.config.unit:
            return _id(table, self.config.unit, index, "text")
        return _id(table, self.config.query_id, index, self.config.query_order)

    def _distinct(self, table: CsvTable) -> list[str]:
        column = self.config.query_id
        first: dict[str, int] = {}
        rows = []
        for index in range(len(table.columns[column])):
            row = _id(table, column, index, self.config.query_order)
            if first.setdefault(row, index) != index:
                problem = f"the id {row} is also in row {first[row] + 1}"
                raise table.fault(column, index, problem)
            rows.append(row)
        return rows

    def _qrels(self, folder: Path, names: dict[str, QueryId], corpus: Corpus) -> Qrels:
        config = self.config
        table = self._open(folder, config.labels, (config.query_id, config.label))
        labels: dict[QueryId, set[Position]] = {}
        for index, cell in enumerate(table.columns[config.label]):
            row = _id(table, config.query_id, index, config.query_order)
            if row not in names:
                problem = f"no query {row} in {config.queries}"
                raise table.fault(config.query_id, index, problem)
            for passage_id in self._label_ids(table, index, cell):
                position = corpus.find(passage_id)
                if position is None:
                    problem = f"no passage {passage_id!r} in {config.corpus}"
                    raise table.fault(config.label, index, problem)
                row_labels = labels.setdefault(names[row], set())
                if position in row_labels:
                    raise table.fault(config.label, index, f"the label {passage_id} comes twice")
                row_labels.add(position)
        if not labels:
            raise BadData(f"{table.path}, column {config.label}: no row has a label")
        return {query_id: frozenset(positions) for query_id, positions in labels.items()}

    def _label_ids(self, table: CsvTable, index: int, cell: str) -> list[str]:
        """Return the ids in one cell, empty where it holds no label."""
        config = self.config
        if not cell.strip():
            return []
        ids = cell.split(config.label_separator) if config.label_separator else [cell]
        if not all(item.strip() for item in ids):
            problem = f"an id is missing between two separators {config.label_separator!r}"
            raise table.fault(config.label, index, problem)
        return [_text_id(table, config.label, index, item, config.passage_order) for item in ids]


def _id(table: CsvTable, column: str, index: int, order: str) -> str:
    """Return the id in one cell."""
    text = table.columns[column][index]
    if not text.strip():
        raise table.fault(column, index, "the id is missing")
    return _text_id(table, column, index, text, order)


def _text_id(table: CsvTable, column: str, index: int, text: str, order: str) -> str:
    if order == "number":
        number = text.strip().removesuffix(".0")  # pandas writes so where a column has blanks
        if _NUMBER.fullmatch(number) is None:
            raise table.fault(column, index, f"{text!r} is not a whole number")
        return str(int(number))
    if text != text.strip():
        raise table.fault(column, index, f"the id {text!r} has spaces around it")
    return text


def _in_order(ids: Iterable[str], order: str) -> list[str]:
    """Return ids in the order that the run file names."""
    return sorted(ids, key=int) if order == "number" else sorted(ids)


def _query_id(row: str, unit: str) -> QueryId:
    """Return the name of a query; the part before its last underscore is its unit.

    >>> _query_id("q17", ""), _query_id("q_17", ""), _query_id("q_17", "doc_3")
    ('q17', 'q_17_0', 'doc_3_q-17')
    """
    if unit:
        return QueryId(f"{unit}_{row.replace('_', '-')}")
    return QueryId(f"{row}_0" if "_" in row else row)
