"""A table of runs alone → what it shows by itself: false numbers, the gap and its cause, noise.

The table has the columns of the golden run table; every statement follows from its figures, marks
and notes by the rules here and in `log_pairs`. Rerankers have no pairs here.
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
"""Validation rows of each split (the log's own README)."""
SPREAD = 0.4  # of MAP over single rows
HIDDEN = 1600  # rows of the hidden test: 685 questions of 2.34 labels each (pitfalls, part H)
_COLUMNS = ("run", "split", "round", "epoch", "adapter", "quantised", "cv_map25", "lb_public")
_SAME_ROWS = {"cv": "v3"}  # byte-identical
_BOTH = 2**0.5  # of two scores
_BROKEN = 0.6  # of what the same training scored elsewhere
_RERANKER = re.compile(r"rerank")
_CONTAMINATED = re.compile(r"POLLUTED|on the val rows|val questions are in")
_TRAINED_ON = re.compile(r"([\d.]+)\s?% of")
_OWN = re.compile(r"(\d+) of (\d+) val rows")


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """One line of the table; None where it says nothing.

    Attributes:
        place: in the table, from 0.
        tuned: adapter weights, or a fine-tune by its name, were meant to be in effect.
        cv: MAP@25 on `split`.
        recall: Recall@25 on `split`.
        lb: MAP@25 on the public leaderboard.
    """

    place: int
    run: str
    split: str
    round: str
    epoch: str
    tuned: bool
    quantised: bool
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
        """The base that it tunes or is."""
        return golden.model_of(self.run)

    @property
    def rows(self) -> str:
        """What it was scored on: equal splits have one name."""
        return _SAME_ROWS.get(self.split, self.split)

    @property
    def contaminated(self) -> bool:
        """Whether mark or note says that it was scored on rows it was trained on."""
        return bool(_CONTAMINATED.search(f"{self.run} {self.notes}"))

    @property
    def score(self) -> float:
        """CV of a row that has one."""
        assert self.cv is not None  # whoever asks has looked
        return self.cv

    @property
    def public(self) -> float:
        """Leaderboard value of a row that has one."""
        assert self.lb is not None
        return self.lb


def read(path: Path) -> list[LoggedRun]:
    """Return the rows of a table of runs, in order.

    Raises:
        BadData: it lacks a column, or a figure is none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        lacking = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if lacking:
            raise BadData(
                f"{path}: no column {lacking[0]}; a log of runs has {', '.join(_COLUMNS)}"
            )
        try:
            return [_row(place, one) for place, one in enumerate(table)]
        except ValueError as error:
            raise BadData(f"{path}: {error}; a score is a number or empty") from None


def error(rows: int) -> float:
    """Return one standard error of a MAP over so many rows.

    >>> round(error(864), 4)
    0.0136
    """
    return float(SPREAD / rows**0.5)


def noise(rows: int) -> float:
    """Return below which a difference of two scores on so many rows ranks nothing.

    One standard error of the difference of two unrelated scores; 95 % of it where the two rankings'
    rows correlate by 0.74, as those of one recipe do.

    >>> round(noise(864), 3), round(noise(HIDDEN), 3)
    (0.019, 0.014)
    """
    return _BOTH * error(rows)


def usable(rows: Iterable[LoggedRun]) -> list[LoggedRun]:
    """Return the retrievers' rows with a CV on a known split that nothing speaks against."""
    found = [
        row for row in rows if row.cv is not None and row.split in ROWS and not row.contaminated
    ]
    bad = {one.place for one, _ in broken(found)}
    return [one for one in found if one.place not in bad and not _RERANKER.search(one.run)]


def pairs(rows: Sequence[LoggedRun]) -> list[LoggedRun]:
    """Return the usable rows that have a public score."""
    return [one for one in usable(rows) if one.lb is not None]


def excess(rows: Sequence[LoggedRun]) -> Iterator[tuple[LoggedRun, float, str]]:
    """Yield each contaminated row, how far it lies above what it should, and what that is."""
    clean = usable(rows)
    for row in rows:
        if not row.contaminated or row.cv is None:
            continue
        if row.lb is not None:
            widest = max((abs(pair.score - pair.public) for pair in pairs(rows)), default=0.0)
            yield row, row.cv - row.lb, f"its LB (widest clean gap {widest:.3f})"
            continue
        alike = [
            it.score
            for it in clean
            if (it.model, it.rows, it.epoch, it.tuned) == (row.model, row.rows, row.epoch, True)
        ]
        if alike:
            yield row, row.cv - median(alike), "clean ones"


def broken(rows: Iterable[LoggedRun]) -> Iterator[tuple[LoggedRun, LoggedRun]]:
    """Yield each tuned row far below a variant of its training and epoch, and the best of those."""
    groups: dict[tuple[str, ...], list[LoggedRun]] = defaultdict(list)
    for row in rows:
        if row.tuned and row.cv is not None and not row.contaminated:
            groups[stem(row.run), row.rows, row.epoch].append(row)
    for group in groups.values():
        best = max(group, key=lambda item: item.score)
        yield from ((one, best) for one in group if one.score < _BROKEN * best.score)


def trained_on(one: LoggedRun) -> str:
    """Return the share of its questions that a note says it was trained on, in percent."""
    told = _TRAINED_ON.search(one.notes)
    return told[1] if told else ""


def bare(rows: Iterable[LoggedRun], one: LoggedRun) -> LoggedRun | None:
    """Return the untuned row of the same base that scores as a row does, within noise."""
    return next(
        (
            row
            for row in rows
            if not row.tuned
            and row.cv is not None
            and row.model == one.model
            and abs(row.score - one.score) <= noise(ROWS.get(one.split, HIDDEN))
        ),
        None,
    )


def own_answers(rows: Iterable[LoggedRun]) -> list[tuple[LoggedRun, float]]:
    """Return rows whose prompts held answers, and the most that this can have added."""
    found = ((row, _OWN.search(row.notes)) for row in rows if row.cv is not None)
    return [(one, int(told[1]) / int(told[2]) * (1 - one.score)) for one, told in found if told]


def stem(run: str) -> str:
    """Return the first two words of a run's name, which its variants share.

    >>> stem("icl-lora-r64a32")
    'icl-lora'
    """
    return "-".join(run.split("-")[:2])


def _row(place: int, one: dict[str, str]) -> LoggedRun:
    cv, recall, lb = (
        float(one[name]) if one.get(name) else None
        for name in ("cv_map25", "cv_recall25", "lb_public")
    )
    return LoggedRun(
        place,
        one["run"],
        one["split"],
        one["round"],
        one["epoch"],
        one["adapter"] == "true" or "-ft-" in one["run"],
        one["quantised"] == "true",
        cv,
        recall,
        lb,
        one.get("notes", ""),
    )
