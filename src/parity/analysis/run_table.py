"""Read a table of runs: CV and leaderboard scores of any experiment log in CSV.

The header says which column is which, with `_HEADERS` as accepted names. `run`, `split`, a CV and
a leaderboard score are required; `epoch`, `round`, `adapter` (false: a base model) and `rows` are
read where the table has them, and every other column is ignored.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parity.run.errors import BadConfig, BadData

ROW_SD = 0.4
"""Standard deviation of a row's average precision, which single scores do not show."""
SAME_CV = 0.005
"""Difference of CV below which two rows with one leaderboard score are one adapter, rescored."""
_HEADERS = {
    "run": (r"run|run_name|name|experiment",),
    "split": (r"split|fold",),
    "cv": (r"cv|cv_score", r"cv_map@?\d*", r"cv_\w+"),
    "lb": (r"lb|lb_score|lb_public|public|public_score", r"(lb|lb_public|public)_map@?\d*"),
    "epoch": (r"epoch",),
    "round": (r"round",),
    "adapter": (r"adapter",),
    "rows": (r"rows|n_rows",),
}
"""Column → patterns of its header; a pattern counts where no earlier one matches."""
_REQUIRED = ("run", "split", "cv", "lb")
_EXAMPLES = "run, split, cv (or cv_map25), lb (or lb_public, public)"
_FALSE = ("false", "0", "no", "none")
_MOST_NAMED = 5  # splits that an error names


@dataclass(frozen=True, slots=True)
class TableRun:
    """One row of a table of runs; None where a score is empty.

    Attributes:
        line: line of the file, from 1.
        run: name of the run.
        split: name of the split that `cv` is on.
        round: round of mining; empty where unknown.
        epoch: number of the epoch, 0 for a base model; None where unknown.
        cv: CV on the split.
        lb: public leaderboard score.
        rows: scored rows of the split; 0 where there is no CV.
    """

    line: int
    run: str
    split: str
    round: str
    epoch: int | None
    cv: float | None
    lb: float | None
    rows: int

    @property
    def name(self) -> str:
        """Run and epoch."""
        return f"{self.run} e{self.epoch}" if self.epoch else self.run


@dataclass(frozen=True, slots=True)
class TablePair:
    """A row of a table that has a CV and a leaderboard score.

    Attributes:
        row: row of the table.
        cv: its CV.
        lb: its leaderboard score.
    """

    row: TableRun
    cv: float
    lb: float

    @property
    def gap(self) -> float:
        """CV minus leaderboard score."""
        return self.cv - self.lb


def parse_rows(options: Sequence[str]) -> dict[str, int]:
    """Return split → scored rows of options such as `fold0=864`.

    >>> parse_rows(["fold0=864", "a=b=2"])
    {'fold0': 864, 'a=b': 2}

    Raises:
        BadConfig: an option is not SPLIT=N with a positive integer.
    """
    counts = {}
    for option in options:
        split, _, count = option.rpartition("=")
        if not split or not count.isdecimal() or not int(count):
            raise BadConfig(f"--rows={option} is not SPLIT=N, such as --rows=fold0=864")
        counts[split] = int(count)
    return counts


def read_runs(path: Path, counts: Mapping[str, int] | None = None) -> list[TableRun]:
    """Return the rows of a table of runs, in order.

    Args:
        path: CSV file.
        counts: split → scored rows; it wins over the table's `rows` column.

    Raises:
        BadConfig: the file does not exist, or `counts` names a split that the table does not have.
        BadData: a column is missing or ambiguous, a cell is not a number, or the row count of a
            split is unknown.
    """
    if not path.is_file():
        raise BadConfig(f"no such table of runs: {path}")
    counts = counts or {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        columns = _columns(table.fieldnames or (), path)
        rows = [_table_run(cells, columns, table.line_num, path) for cells in table]
    splits = {row.split for row in rows}
    unknown = sorted(set(counts) - splits)
    if unknown:
        raise BadConfig(
            f"--rows names {_some(unknown)}, which is not a split in {path}. Its splits: "
            f"{_some(sorted(splits))}"
        )
    return _with_counts(rows, counts, path)


def score_pairs(rows: Sequence[TableRun]) -> list[TablePair]:
    """Return the rows that have a CV and a leaderboard score."""
    return [
        TablePair(row, row.cv, row.lb) for row in rows if row.cv is not None and row.lb is not None
    ]


def without_rescored(rows: Sequence[TableRun]) -> Iterator[TableRun]:
    """Yield the rows except those that score an adapter of an earlier row again.

    Such a row has the leaderboard score, split, round, epoch and first word of the name in common
    with an earlier row, and nearly its CV.
    """
    earlier: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows:
        if row.cv is None or row.lb is None:
            yield row
            continue
        word = re.split(r"[-_ /]", row.run)[0]
        scores = earlier[word, row.split, row.round, row.epoch, row.lb]
        if all(abs(row.cv - cv) >= SAME_CV for cv in scores):
            yield row
        scores.append(row.cv)


def _columns(headers: Sequence[str], path: Path) -> dict[str, str]:
    """Return column → header of the file.

    Raises:
        BadData: a required column is missing, or two headers match.
    """
    columns = {}
    for column, patterns in _HEADERS.items():
        matches: list[str] = []
        for pattern in patterns:
            matches = matches or [
                header
                for header in headers
                if re.fullmatch(pattern, header.strip().lower().replace(" ", "_"))
            ]
        if len(matches) > 1:
            raise BadData(
                f"columns {', '.join(matches)} in {path} could each be the {column}. "
                f"Rename one of them"
            )
        if not matches and column in _REQUIRED:
            raise BadData(
                f"no column for {column} in {path}. Found {', '.join(headers) or 'no header'}; "
                f"wanted {_EXAMPLES}"
            )
        if matches:
            columns[column] = matches[0]
    return columns


def _table_run(
    cells: Mapping[str, str], columns: Mapping[str, str], line: int, path: Path
) -> TableRun:
    values = {column: (cells[header] or "").strip() for column, header in columns.items()}
    numbers = {}
    for column in ("cv", "lb", "epoch", "rows"):
        value = values.get(column, "")
        try:
            numbers[column] = float(value) if value else None
        except ValueError:
            raise BadData(
                f"{columns[column]} is {value!r} in {path}, line {line}; want a number or nothing"
            ) from None
    epoch = numbers["epoch"]
    if values.get("adapter", "").lower() in _FALSE:
        epoch = 0
    return TableRun(
        line,
        values["run"],
        values["split"],
        values.get("round", ""),
        None if epoch is None else int(epoch),
        numbers["cv"],
        numbers["lb"],
        int(numbers["rows"] or 0),
    )


def _with_counts(rows: Sequence[TableRun], counts: Mapping[str, int], path: Path) -> list[TableRun]:
    """Return the rows with the row count of their split.

    Raises:
        BadData: the count of a split with a CV is unknown, or the table has two counts for it.
    """
    sizes: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        if row.cv is not None:
            sizes[row.split] |= {row.rows} - {0}
    unknown = [split for split, numbers in sizes.items() if not numbers and split not in counts]
    if unknown:
        raise BadData(
            f"the number of scored rows of split {_some(unknown)} is unknown in {path}. Add a "
            f"column `rows`, or pass --rows={unknown[0]}=N for each split"
        )
    for split, numbers in sizes.items():
        if len(numbers) > 1 and split not in counts:
            raise BadData(
                f"split {split} has {' and '.join(map(str, sorted(numbers)))} rows in {path}. "
                f"Give each split a name, or pass --rows={split}=N"
            )
    merged = {split: max(numbers, default=0) for split, numbers in sizes.items()} | dict(counts)
    return [
        TableRun(
            row.line,
            row.run,
            row.split,
            row.round,
            row.epoch,
            row.cv,
            row.lb,
            merged[row.split] if row.cv is not None else 0,
        )
        for row in rows
    ]


def _some(names: Sequence[str]) -> str:
    """Return the first names, and how many there are in all where it leaves some out."""
    shown = ", ".join(name or "(empty)" for name in names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"
