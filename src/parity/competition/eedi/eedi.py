"""Eedi - Mining Misconceptions in Mathematics: rank misconceptions for each wrong answer."""

from pathlib import Path

from parity.competition.base import Competition, CompetitionData
from parity.competition.corpus import Corpus
from parity.competition.eedi import hidden_test, kaggle_files
from parity.competition.query import Query
from parity.competition.scoring.row_metrics import Metric
from parity.competition.submission import SubmissionFormat


class Eedi(Competition):
    """The competition as Kaggle published it: MAP@25 over question × wrong answer."""

    files = (
        kaggle_files.SAMPLE,
        kaggle_files.MAPPING,
        kaggle_files.TEST,
        kaggle_files.TRAIN,
    )
    fields = kaggle_files.FIELDS
    required_field = "wrong"
    passage_fields = ("passage", "misconception")
    groups = ("subject", "construct")
    metric = Metric("map", 25)
    submission = SubmissionFormat(columns=kaggle_files.SUBMISSION_COLUMNS)

    def read(self, folder: Path) -> CompetitionData:
        """Read and check Kaggle's four files."""
        return kaggle_files.read(folder)

    def read_test(self, folder: Path) -> list[Query]:
        """Read only the wrong answers to predict."""
        return kaggle_files.read_test(folder)

    def read_corpus(self, folder: Path) -> Corpus:
        """Read only the misconceptions."""
        return kaggle_files.read_corpus(folder)

    def write_hidden_test(self, source: Path, target: Path, rows: int) -> int:
        """Write a competition with new questions, derived from the local ones."""
        return hidden_test.write(source, target, rows)
