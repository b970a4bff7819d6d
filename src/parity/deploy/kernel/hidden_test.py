"""A hidden test made up from the local files: as many rows as Kaggle's, nothing of it seen before.

Question ids, constructs and subjects are new and every digit is changed, so that no few-shot
example, neighbor or cached text is one of its own. It says nothing about a score, only about the
time, memory and faults of a long run. It holds the competition's text: it stays below data/.
"""

import csv
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path

from parity.competition import csv_reader
from parity.competition.eedi.kaggle_files import MAPPING, SAMPLE, SUBMISSION_COLUMNS, TEST, TRAIN
from parity.competition.lineage import normalize
from parity.competition.query import ANSWERS
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
        target: folder to make.
        rows: of the submission that is asked for, at least; whole questions are asked.

    Returns:
        How many rows it asks for.
    """
    target.mkdir(parents=True)
    for name in (TRAIN, MAPPING):
        files.link(source / name, target / name)
    asked = list(islice(_questions(source), -(-rows // _WRONG)))
    (guess,) = csv_reader.read(source / SAMPLE, SUBMISSION_COLUMNS).columns[SUBMISSION_COLUMNS[1]][
        :1
    ]
    wanted = [
        (f"{row[_KEY]}_{answer}", guess)
        for row in asked
        for answer in ANSWERS
        if answer != row[_CORRECT]
    ]
    _write(target / TEST, _COLUMNS, [tuple(row[name] for name in _COLUMNS) for row in asked])
    _write(target / SAMPLE, SUBMISSION_COLUMNS, wanted)
    return len(wanted)


def _questions(source: Path) -> Iterator[Row]:
    """Yield questions without end, each made of a local one, in an order that hashes give."""
    local = [*_read(source / TRAIN), *_read(source / TEST)]
    local.sort(key=lambda row: digest.of_text(row[_KEY]))
    known = {normalize(row[_TEXT]) for row in local}
    beyond = {name: 1 + max(int(row[name]) for row in local) for name in (_KEY, *_NAMES)}
    for number in count():
        made = _made(local[number % len(local)], number, beyond)
        if normalize(made[_TEXT]) in known:  # a question without a digit, or one that met another
            made[_TEXT] = f"{made[_TEXT]} ({number})"
        yield made


def _made(row: Row, number: int, beyond: dict[str, int]) -> Row:
    """Return a question made of a local one; its digits are exchanged in all its texts alike."""
    digits = sorted("0123456789", key=lambda item: digest.of_text(f"{number}/{item}"))
    other = str.maketrans("0123456789", "".join(digits))
    texts = {name: row[name].translate(other) for name in (_TEXT, *_ANSWERS)}
    made = {**row, **texts, _KEY: str(beyond[_KEY] + number)}
    for key, name in _NAMES.items():
        made[key], made[name] = str(beyond[key] + int(row[key])), f"Unseen {row[name]}"
    return made


def _read(path: Path) -> list[Row]:
    sheet = csv_reader.read(path, _COLUMNS)
    ids = {name: map(str, sheet.integers(name)) for name in (_KEY, *_NAMES)}
    columns = [ids.get(name, sheet.columns[name]) for name in _COLUMNS]
    return [dict(zip(_COLUMNS, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        writer.writerows(rows)
