"""Read the diary's run log and find its contaminated and broken scores.

Every statement follows from the scores, marks and notes of the table by the rules here and in
`log_pairs`. Rerankers are left out of pairs.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.run_log import golden
from parity.run.errors import BadData

ROWS = {"v1": 1460, "v2": 1866, "v3": 864, "cv": 864}
"""Split → validation rows, from the log's README."""
SPREAD = 0.4  # standard deviation of a row's average precision
HIDDEN = 1600  # rows of the hidden test: 685 questions with 2.34 labels each (pitfalls, part H)
_COLUMNS = ("run", "split", "round", "epoch", "adapter", "quantised", "cv_map25", "lb_public")
_SAME_ROWS = {"cv": "v3"}  # byte-identical
_TWO_SCORES = 2**0.5
_BROKEN = 0.6  # of the best score of the same training
_RERANKER = re.compile(r"rerank")
_CONTAMINATED = re.compile(r"POLLUTED|on the val rows|val questions are in")
_TRAINED_ON = re.compile(r"([\d.]+)\s?% of")
_LEAKED = re.compile(r"(\d+) of (\d+) val rows")


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """One row of the log; None where a cell is empty.

    Attributes:
        row: index in the log, from 0.
        tuned: True for adapter weights and for fine-tunes by their name.
        cv: MAP@25 on `split`.
        recall: Recall@25 on `split`.
        lb: MAP@25 on the public leaderboard.
    """

    row: int
    run: str
    split: str
    round: str
    epoch: str
    tuned: bool
    quantized: bool
    cv: float | None
    recall: float | None
    lb: float | None
    notes: str

    @property
    def name(self) -> str:
        """Run and epoch."""
        return f"{self.run}{f' e{self.epoch}' if self.epoch else ''}"

    @property
    def model(self) -> str:
        """Base model of the run."""
        return golden.model_of(self.run)

    @property
    def rows(self) -> str:
        """Name of the scored rows; splits with equal rows share it."""
        return _SAME_ROWS.get(self.split, self.split)

    @property
    def contaminated(self) -> bool:
        """Whether mark or note says that it was scored on its training rows."""
        return bool(_CONTAMINATED.search(f"{self.run} {self.notes}"))

    @property
    def score(self) -> float:
        """CV of a row that has a CV."""
        assert self.cv is not None
        return self.cv

    @property
    def public(self) -> float:
        """Public score of a row that has a public score."""
        assert self.lb is not None
        return self.lb


def read_log(path: Path) -> list[LoggedRun]:
    """Return the rows of the log, in order.

    Raises:
        BadData: a column is missing or a score is not a number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise BadData(
                f"no column {missing[0]} in {path}; the run log has {', '.join(_COLUMNS)}"
            )
        try:
            return [_logged_run(row, cells) for row, cells in enumerate(table)]
        except ValueError as error:
            raise BadData(f"{error} in {path}; a score is a number or empty") from None


def error(rows: int) -> float:
    """Return the standard error of a MAP over a number of rows.

    >>> round(error(864), 4)
    0.0136
    """
    return float(SPREAD / rows**0.5)


def noise(rows: int) -> float:
    """Return the difference of two scores on these rows below which they have no order.

    It is one standard error of the difference of two independent scores, or 95 % of the difference
    of two rankings whose rows correlate by 0.74, as those of one recipe do.

    >>> round(noise(864), 3), round(noise(HIDDEN), 3)
    (0.019, 0.014)
    """
    return _TWO_SCORES * error(rows)


def usable(rows: Iterable[LoggedRun]) -> list[LoggedRun]:
    """Return the retrievers' rows with a valid CV on a split of known size."""
    scored = [
        row for row in rows if row.cv is not None and row.split in ROWS and not row.contaminated
    ]
    bad = {row.row for row, _ in broken(scored)}
    return [row for row in scored if row.row not in bad and not _RERANKER.search(row.run)]


def pairs(rows: Sequence[LoggedRun]) -> list[LoggedRun]:
    """Return the usable rows that have a public score."""
    return [row for row in usable(rows) if row.lb is not None]


def excess(rows: Sequence[LoggedRun]) -> Iterator[tuple[LoggedRun, float, str]]:
    """Yield each contaminated row, its excess over a reference score, and the reference's name."""
    clean = usable(rows)
    for row in rows:
        if not row.contaminated or row.cv is None:
            continue
        if row.lb is not None:
            widest = max((abs(pair.score - pair.public) for pair in pairs(rows)), default=0.0)
            yield row, row.cv - row.lb, f"its LB (widest clean gap {widest:.3f})"
            continue
        similar = [
            item.score
            for item in clean
            if (item.model, item.rows, item.epoch, item.tuned)
            == (row.model, row.rows, row.epoch, True)
        ]
        if similar:
            yield row, row.cv - median(similar), "clean scores"


def broken(rows: Iterable[LoggedRun]) -> Iterator[tuple[LoggedRun, LoggedRun]]:
    """Yield each tuned row far below a variant of its training and epoch, and the best variant."""
    groups: dict[tuple[str, ...], list[LoggedRun]] = defaultdict(list)
    for row in rows:
        if row.tuned and row.cv is not None and not row.contaminated:
            groups[stem(row.run), row.rows, row.epoch].append(row)
    for group in groups.values():
        best = max(group, key=lambda item: item.score)
        yield from ((row, best) for row in group if row.score < _BROKEN * best.score)


def trained_on(row: LoggedRun) -> str:
    """Return the percentage of validation questions that a note counts as trained on."""
    match = _TRAINED_ON.search(row.notes)
    return match[1] if match else ""


def base_of(rows: Iterable[LoggedRun], tuned: LoggedRun) -> LoggedRun | None:
    """Return the untuned row of the same base model with the same score, within noise."""
    return next(
        (
            row
            for row in rows
            if not row.tuned
            and row.cv is not None
            and row.model == tuned.model
            and abs(row.score - tuned.score) <= noise(ROWS.get(tuned.split, HIDDEN))
        ),
        None,
    )


def leaked_answers(rows: Iterable[LoggedRun]) -> list[tuple[LoggedRun, float]]:
    """Return rows whose prompts contained answers, and the most that they can have added."""
    noted = ((row, _LEAKED.search(row.notes)) for row in rows if row.cv is not None)
    return [(row, int(match[1]) / int(match[2]) * (1 - row.score)) for row, match in noted if match]


def stem(run: str) -> str:
    """Return the first two words of a run's name, which its variants share.

    >>> stem("icl-lora-r64a32")
    'icl-lora'
    """
    return "-".join(run.split("-")[:2])


def _logged_run(row: int, cells: dict[str, str]) -> LoggedRun:
    cv, recall, lb = (
        float(cells[name]) if cells.get(name) else None
        for name in ("cv_map25", "cv_recall25", "lb_public")
    )
    return LoggedRun(
        row,
        cells["run"],
        cells["split"],
        cells["round"],
        cells["epoch"],
        cells["adapter"] == "true" or "-ft-" in cells["run"],
        cells["quantised"] == "true",
        cv,
        recall,
        lb,
        cells.get("notes", ""),
    )
