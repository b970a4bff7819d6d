"""A hidden test generated from the local files: as many rows as Kaggle's, and all of them new.

Question ids, constructs and subjects are new and every digit is changed, so no few-shot example,
neighbor or cached text matches a hidden question. It measures time and memory and finds faults of a
long run; it says nothing about a score. It contains the competition's text, so it stays below
data/.
"""

import csv
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path

from parity.competition import csv_reader
from parity.competition.eedi.kaggle_files import (
    ANSWERS,
    MAPPING,
    SAMPLE,
    SUBMISSION_COLUMNS,
    TEST,
    TRAIN,
)
from parity.competition.lineage import normalize
from parity.run import digest, files

_KEY, _TEXT, _CORRECT = "QuestionId", "QuestionText", "CorrectAnswer"
_ANSWERS = tuple(f"Answer{answer}Text" for answer in ANSWERS)
_NAMES = {"ConstructId": "ConstructName", "SubjectId": "SubjectName"}
_COLUMNS = (_KEY, *_NAMES, *_NAMES.values(), _CORRECT, _TEXT, *_ANSWERS)
_WRONG = len(ANSWERS) - 1  # rows a question

Row = dict[str, str]


def write(source: Path, target: Path, rows: int) -> int:
    """Write a competition whose test is hidden; train and misconceptions are the local ones.

    Args:
        source: folder of the competition's four files.
        target: folder to create.
        rows: minimum number of rows of the submission; questions stay whole.

    Returns:
        The number of rows of its submission.
    """
    target.mkdir(parents=True)
    for name in (TRAIN, MAPPING):
        files.link(source / name, target / name)
    questions = list(islice(_questions(source), -(-rows // _WRONG)))
    (guess,) = csv_reader.read(source / SAMPLE, SUBMISSION_COLUMNS).columns[SUBMISSION_COLUMNS[1]][
        :1
    ]
    sample_rows = [
        (f"{row[_KEY]}_{answer}", guess)
        for row in questions
        for answer in ANSWERS
        if answer != row[_CORRECT]
    ]
    _write(target / TEST, _COLUMNS, [tuple(row[name] for name in _COLUMNS) for row in questions])
    _write(target / SAMPLE, SUBMISSION_COLUMNS, sample_rows)
    return len(sample_rows)


def _questions(source: Path) -> Iterator[Row]:
    """Yield an endless series of questions, each derived from a local one, in hash order."""
    local = [*_read(source / TRAIN), *_read(source / TEST)]
    local.sort(key=lambda row: digest.of_text(row[_KEY]))
    texts = {normalize(row[_TEXT]) for row in local}
    beyond = {name: 1 + max(int(row[name]) for row in local) for name in (_KEY, *_NAMES)}
    for number in count():
        question = _derive_question(local[number % len(local)], number, beyond)
        if normalize(question[_TEXT]) in texts:  # it has no digit, or equals another question
            question[_TEXT] = f"{question[_TEXT]} ({number})"
        yield question


def _derive_question(row: Row, number: int, beyond: dict[str, int]) -> Row:
    """Return a question derived from a local one, with its digits exchanged in all its texts."""
    digits = sorted("0123456789", key=lambda item: digest.of_text(f"{number}/{item}"))
    other = str.maketrans("0123456789", "".join(digits))
    texts = {name: row[name].translate(other) for name in (_TEXT, *_ANSWERS)}
    question = {**row, **texts, _KEY: str(beyond[_KEY] + number)}
    for key, name in _NAMES.items():
        question[key], question[name] = str(beyond[key] + int(row[key])), f"Unseen {row[name]}"
    return question


def _read(path: Path) -> list[Row]:
    table = csv_reader.read(path, _COLUMNS)
    ids = {name: map(str, table.integers(name)) for name in (_KEY, *_NAMES)}
    columns = [ids.get(name, table.columns[name]) for name in _COLUMNS]
    return [dict(zip(_COLUMNS, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        writer.writerows(rows)
