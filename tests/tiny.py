"""A competition small enough to work out by hand: six labeled questions, five misconceptions.

What it holds on purpose: ids 1 and 9 share one sentence; id 7 is never right in train; questions 10
and 11 differ in white space only; question 20 has all its wrong answers labeled, question 12 one;
question 21 has the texts `NA` and `null`; question 20 has LaTeX, quotes, a comma and newlines; the
files are not in order of id. Two further questions, 40 and 41, are the test, 41 first.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from parity.competition.corpus import Corpus
from parity.competition.eedi.kaggle_files import build_query
from parity.competition.query import PassageId, Position, Qrels, Query, QueryId

ANSWERS = "ABCD"
TEST_COLUMNS = (
    "QuestionId",
    "ConstructId",
    "ConstructName",
    "SubjectId",
    "SubjectName",
    "CorrectAnswer",
    "QuestionText",
    *(f"Answer{answer}Text" for answer in ANSWERS),
)
TRAIN_COLUMNS = (*TEST_COLUMNS, *(f"Misconception{answer}Id" for answer in ANSWERS))
CORPUS_COLUMNS = ("MisconceptionId", "MisconceptionName")
SAMPLE_COLUMNS = ("QuestionId_Answer", "MisconceptionId")

_FRACTIONS = ("100", "Add fractions with different denominators", "5", "Adding Fractions")
_BORROWING = ("101", "Subtract, with borrowing", "6", "Mental Addition and Subtraction")
_POWERS = ("102", 'Find the "square" of a number', "7", "Squares, Cubes, etc")
_SQUARE = 'Tom says, "three squared is:"\n\\[\n3^{2}\n\\]'

CORPUS_ROWS = (
    ("9", "Adds the denominators when adding fractions"),
    ("1", "Adds the denominators when adding fractions"),
    ("3", 'Multiplies by the power, says "twice"'),
    ("4", "Takes the smaller digit from the larger"),
    ("7", "Ignores the power"),
)
TRAIN_ROWS = (
    ("21", *_POWERS, "A", "What is 5 squared?", "25", "10", "NA", "null", "", "3.0", "3", ""),
    ("10", *_FRACTIONS, "A", "Work out 1/2 + 1/3", "5/6", "2/5", "1/6", "2/6", "", "1.0", "4", ""),
    ("11", *_FRACTIONS, "C", "Work out\n1/2  + 1/3", "1/5", "2/5", "5/6", "2", "", "9.0", "", ""),
    ("12", *_BORROWING, "B", "Work out 52 - 37", "25", "15", "89", "5", "4.0", "", "", ""),
    ("20", *_POWERS, "B", _SQUARE, "6", "9", r"\( 3 \)", "32", "3.0", "", "4.0", "1.0"),
    ("30", *_FRACTIONS, "D", "Work out 1/4 + 1/4", "2/8", "1/8", "0", "1/2", "1.0", "9", "", ""),
)
TEST_ROWS = (
    ("41", *_POWERS, "C", "What is 4 squared?", "8", "42", "16", "4"),
    ("40", *_FRACTIONS, "A", "Work out 1/3 + 1/3", "2/3", "2/6", "1/9", "1"),
)
SAMPLE_ROWS = tuple(
    (query_id, "1 3 4 7 9") for query_id in ("41_A", "41_B", "41_D", "40_B", "40_C", "40_D")
)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV as Kaggle does: UTF-8, CRLF between records, newlines within quoted texts."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        writer.writerows(rows)


def write_competition(folder: Path) -> Path:
    """Write the four files of the competition and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "train.csv", TRAIN_COLUMNS, TRAIN_ROWS)
    write_csv(folder / "test.csv", TEST_COLUMNS, TEST_ROWS)
    write_csv(folder / "misconception_mapping.csv", CORPUS_COLUMNS, CORPUS_ROWS)
    write_csv(folder / "sample_submission.csv", SAMPLE_COLUMNS, SAMPLE_ROWS)
    return folder


def queries() -> list[Query]:
    """Return the labeled queries of train, by question id, then answer."""
    rows = {row[0]: row for row in TRAIN_ROWS}
    return [_query(rows[query_id.split("_")[0]], query_id[-1]) for query_id in qrels()]


def hidden_queries() -> list[Query]:
    """Return the queries of the test, in the order of the sample submission."""
    rows = {row[0]: row for row in TEST_ROWS}
    return [_query(rows[query_id.split("_")[0]], query_id[-1]) for query_id in sample()]


def qrels() -> Qrels:
    """Return the labels of `queries()`, in their order."""
    right = {
        "10_B": 1,
        "10_C": 4,
        "11_B": 9,
        "12_A": 4,
        "20_A": 3,
        "20_C": 4,
        "20_D": 1,
        "21_B": 3,
        "21_C": 3,
        "30_A": 1,
        "30_B": 9,
    }
    return {QueryId(key): frozenset({at(value)}) for key, value in right.items()}


def corpus() -> Corpus:
    """Return the five misconceptions, by id."""
    rows = sorted(CORPUS_ROWS)  # every id is one digit
    return Corpus({PassageId(key): text for key, text in rows})


def at(number: int) -> Position:
    """Return the position of the misconception with this id."""
    return corpus().at(str(number))


def sample() -> tuple[QueryId, ...]:
    """Return the rows of the sample submission, in order."""
    return tuple(QueryId(query_id) for query_id, _ in SAMPLE_ROWS)


def _query(row: Sequence[str], answer: str) -> Query:
    cells = dict(zip(TEST_COLUMNS, row, strict=False))  # labels stay out
    return build_query(
        int(cells["QuestionId"]),
        answer,
        construct=(int(cells["ConstructId"]), cells["ConstructName"]),
        subject=(int(cells["SubjectId"]), cells["SubjectName"]),
        question=cells["QuestionText"],
        answers=(
            cells[f"Answer{cells['CorrectAnswer']}Text"],
            cells[f"Answer{answer}Text"],
        ),
    )
