"""A competition of plain tables: queries, passages and labels in CSV files of any column names."""

from pathlib import Path

from parity.competition.base import Competition, CompetitionData
from parity.competition.corpus import Corpus
from parity.competition.query import Query
from parity.competition.scoring.row_metrics import Metric
from parity.competition.submission import SubmissionFormat
from parity.competition.table import hidden_test
from parity.competition.table.tables import SEPARATORS, TableReader
from parity.run.config.competition import CompetitionConfig


class TableCompetition(Competition):
    """The competition that the section `[competition]` of a run file describes."""

    def __init__(self, config: CompetitionConfig) -> None:
        """Take the description."""
        self._reader = TableReader(config)
        self.files = self._reader.files
        self.fields = config.query_texts
        self.required_field = config.query_texts[0]
        self.groups = config.groups
        self.metric = Metric(config.metric, config.k, config.beta, config.threshold, config.count)
        self.submission = SubmissionFormat(
            config.submission, config.submission_columns, SEPARATORS[config.submission_format]
        )

    def read(self, folder: Path) -> CompetitionData:
        """Read and check all tables."""
        return self._reader.read(folder)

    def read_test(self, folder: Path) -> list[Query]:
        """Read only the queries to predict."""
        return self._reader.read_test(folder)

    def read_corpus(self, folder: Path) -> Corpus:
        """Read only the passages."""
        return self._reader.read_corpus(folder)

    def write_hidden_test(self, source: Path, target: Path, rows: int) -> int:
        """Write the same tables with another file of queries to predict."""
        return hidden_test.write(self._reader, source, target, rows)
