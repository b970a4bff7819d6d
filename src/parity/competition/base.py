"""The interface of a competition; the other rooms use competitions only through it.

A new competition is one folder next to `eedi`: a subclass of `Competition` and its readers. A
competition of plain tables needs no code: see `table` and the section `[competition]` of a run
file.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parity.competition.corpus import Corpus
from parity.competition.query import Qrels, Query
from parity.competition.ranking import Ranking
from parity.competition.scoring.row_metrics import Metric
from parity.competition.submission import SubmissionFormat
from parity.run.config.split import SplitConfig
from parity.run.errors import BadConfig, BadData


@dataclass(frozen=True, slots=True)
class CompetitionData:
    """What the files of a competition hold.

    Attributes:
        queries: labeled queries, in the competition's order.
        qrels: labels of exactly these queries.
        test: queries to predict, in the order of the submission.
        corpus: all passages, in the competition's order.
        files: file name → sha256.
    """

    queries: list[Query]
    qrels: Qrels
    test: list[Query]
    corpus: Corpus
    files: dict[str, str]


class Competition(ABC):
    """A competition: its files, its queries and passages, its metric and its submission.

    Attributes:
        files: names of the competition's files.
        fields: names of a query's texts, as templates have them.
        required_field: field that a query's template must name.
        passage_fields: names of a passage's text in its template.
        groups: kinds of group that a split can keep on one side.
        metric: metric of the leaderboard, its depth k included.
        submission: row format of the submission.
    """

    files: tuple[str, ...]
    fields: tuple[str, ...]
    required_field: str
    passage_fields: tuple[str, ...] = ("passage",)
    groups: tuple[str, ...] = ()
    metric: Metric
    submission: SubmissionFormat

    @abstractmethod
    def read(self, folder: Path) -> CompetitionData:
        """Read and check all files.

        Raises:
            BadData: names file, row (from 1, the header not counted) and column.
        """

    @abstractmethod
    def read_test(self, folder: Path) -> list[Query]:
        """Read only the queries to predict; raises as `read`."""

    @abstractmethod
    def read_corpus(self, folder: Path) -> Corpus:
        """Read only the passages; raises as `read`."""

    @abstractmethod
    def write_hidden_test(self, source: Path, target: Path, rows: int) -> int:
        """Write a competition with a test generated from the local files.

        Args:
            source: folder of the competition's files.
            target: folder to create.
            rows: minimum number of rows of the submission; units stay whole.

        Returns:
            The number of rows of its submission.
        """

    def write_submission(
        self, path: Path, ranking: Ranking, test: Sequence[Query], corpus: Corpus
    ) -> str:
        """Write a checked submission and return its sha256; see `SubmissionFormat.write`."""
        return self.submission.write(path, ranking, test, corpus, self.metric)

    def read_submission(self, path: Path, test: Sequence[Query], corpus: Corpus) -> Ranking:
        """Read a submission; see `SubmissionFormat.read`."""
        return self.submission.read(path, test, corpus)

    def check_submission(self, submitted: Ranking, test: Sequence[Query], corpus: Corpus) -> None:
        """Check a submission; see `SubmissionFormat.check`."""
        self.submission.check(submitted, test, corpus, self.metric)

    def check_split(self, config: SplitConfig) -> None:
        """Check that a split by group names one of `groups`.

        Raises:
            BadConfig: the kind is unknown; the message lists `groups`.
        """
        if config.is_by_group and config.kind not in self.groups:
            kinds = ", ".join(self.groups) or "no groups"
            raise BadConfig(f"split.kind = {config.kind!r}: the competition has {kinds}")

    def folder(self, root: Path) -> Path:
        """Return the folder under `root` that holds the competition's files.

        Raises:
            BadData: zero or several folders do.
        """
        folders = [
            path.parent
            for path in sorted(root.rglob(self.files[0]))
            if all((path.parent / name).is_file() for name in self.files)
        ]
        if len(folders) != 1:
            raise BadData(
                f"want the competition's files once under {root.name}/, found them {len(folders)} "
                "times; attach the competition itself"
            )
        return folders[0]
