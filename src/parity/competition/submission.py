"""The submission of a competition: written, read and checked in the competition's row format."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from parity.competition import csv_reader
from parity.competition.corpus import Corpus
from parity.competition.csv_reader import CsvTable
from parity.competition.query import Query, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.row_metrics import Metric
from parity.run import digest, files
from parity.run.errors import BadData, Mismatch

NAME = "submission.csv"
"""Default file name of a submission on Kaggle."""
_NO_PASSAGE = -1  # fills the rows of a ranking that name fewer passages than the longest one


@dataclass(frozen=True, slots=True)
class SubmissionFormat:
    """The format of a competition's submission.

    Attributes:
        file: name of the file.
        columns: names of the column of rows and of the column of predicted ids.
        separator: separator of the ids in one cell; empty if each id has its own row.
    """

    file: str = NAME
    columns: tuple[str, str] = ("query_id", "passage_ids")
    separator: str = " "

    def write(
        self, path: Path, ranking: Ranking, test: Sequence[Query], corpus: Corpus, metric: Metric
    ) -> str:
        """Write the submission, read it back, check it again, and return its sha256.

        Args:
            path: the CSV to write; an error leaves it as it was.
            ranking: at least the queries of `test`, with `metric.k` or more passages each.
            test: the queries to predict, in the order of the submission.
            corpus: all passages.
            metric: metric that scores the submission.

        Raises:
            Mismatch: a query is not ranked.
            BadData: the written file does not pass `check`.
        """
        row_of = {query_id: row for row, query_id in enumerate(ranking.query_ids)}
        if missing := [query.query_id for query in test if query.query_id not in row_of]:
            raise Mismatch(
                f"{len(missing)} rows of the test are not ranked (first: {missing[0]})",
                fix=("predict",),
            )
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        for query in test:
            row = row_of[query.query_id]
            predicted = metric.predicted(
                ranking.positions[row].tolist(), ranking.scores[row].tolist()
            )
            writer.writerows(self._rows(query.row, [corpus.ids[item] for item in predicted]))
        with files.replacing(path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
            self.check(self.read(temporary, test, corpus), test, corpus, metric)
        return digest.of_file(path)

    def read(self, path: Path, test: Sequence[Query], corpus: Corpus) -> Ranking:
        """Read a submission; scores fall by one with each rank, since a CSV holds none.

        Args:
            path: the CSV.
            test: queries whose rows it may hold; other rows keep their own name as query id.
            corpus: all passages.

        Raises:
            BadData: names file, row and column.
        """
        table = csv_reader.read(path, self.columns)
        csv_reader.check_columns(table, self.columns)
        names = {query.row: query.query_id for query in test}
        rows = self._grouped(table, corpus)
        width = max(len(positions) for _, positions in rows)
        filled = [[*positions, *[_NO_PASSAGE] * (width - len(positions))] for _, positions in rows]
        positions = np.array(filled, dtype=np.int64)
        scores = np.where(
            positions == _NO_PASSAGE, -np.inf, width - np.arange(width, dtype=np.float32)
        ).astype(np.float32)
        query_ids = tuple(names.get(name, QueryId(name)) for name, _ in rows)
        return Ranking(query_ids, positions, scores)

    def check(
        self, submitted: Ranking, test: Sequence[Query], corpus: Corpus, metric: Metric
    ) -> None:
        """Check a submission as Kaggle's scorer would, and stricter.

        Raises:
            BadData: other rows or another order than the test's, or a row with too few, too many
                or repeated passages.
        """
        expected = [query.query_id for query in test]
        pairs = zip_longest(submitted.query_ids, expected, fillvalue="nothing")
        for row, (actual, sample_id) in enumerate(pairs, start=1):
            if actual != sample_id:
                raise BadData(f"submission, row {row}: {actual} where the sample has {sample_id}")
        width = min(metric.k, len(corpus))
        for query_id, cells in zip(submitted.query_ids, submitted.positions.tolist(), strict=True):
            positions = [position for position in cells if position != _NO_PASSAGE]
            right = len(positions) == width if metric.is_fixed else len(positions) <= width
            if not right or len(set(positions)) != len(positions):
                count = f"{width}" if metric.is_fixed else f"1 to {width}"
                raise BadData(f"submission, row {query_id}: wants {count} distinct ids")

    def _rows(self, name: str, ids: Sequence[str]) -> list[tuple[str, str]]:
        if not self.separator:
            return [(name, passage_id) for passage_id in ids]
        return [(name, self.separator.join(ids))]

    def _grouped(self, table: CsvTable, corpus: Corpus) -> list[tuple[str, list[int]]]:
        """Return each row's name with the positions of its passages."""
        name_column, column = self.columns
        rows: list[tuple[str, list[int]]] = []
        for index, (name, cell) in enumerate(
            zip(table.columns[name_column], table.columns[column], strict=True)
        ):
            ids = cell.split(self.separator) if self.separator else [cell]
            if not all(ids) or any(item != item.strip() for item in ids):
                between = {"": "one id", " ": "ids with one space between them"}
                wish = between.get(self.separator, f"ids separated by {self.separator!r}")
                raise table.fault(column, index, f"wants {wish}")
            positions = [corpus.find(item) for item in ids]
            if None in positions:
                unknown = ids[positions.index(None)]
                raise table.fault(column, index, f"the corpus has no passage {unknown!r}")
            passages = [position for position in positions if position is not None]
            if not self.separator and rows and rows[-1][0] == name:
                rows[-1][1].extend(passages)
            else:
                rows.append((name, list(passages)))
        return rows
