"""Kaggle's files are read unchanged; an error names file, row and column."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from parity.competition.eedi import kaggle_files
from parity.competition.query import QueryId
from parity.run import digest
from parity.run.errors import BadData

Rows = list[dict[str, str]]


def edit(path: Path, change: Callable[[Rows], object]) -> None:
    """Change the rows of a CSV file in place."""
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    change(rows)
    tiny.write_csv(path, list(rows[0]), [list(row.values()) for row in rows])


def put(number: int, **cells: str) -> Callable[[Rows], object]:
    """Return the change that sets cells of row `number` (from 1)."""
    return lambda rows: rows[number - 1].update(cells)


def without(column: str) -> Callable[[Rows], object]:
    """Return the change that drops a column."""
    return lambda rows: [row.pop(column) for row in rows]


def refusal(folder: Path) -> str:
    with pytest.raises(BadData) as error:
        kaggle_files.read(folder)
    message = str(error.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder}/")


def test_the_tiny_competition_is_read_as_written_by_hand(tmp_path: Path) -> None:
    read = kaggle_files.read(tiny.write_competition(tmp_path))
    assert read.queries == tiny.queries()
    assert list(read.qrels.items()) == list(tiny.qrels().items())
    assert read.test == tiny.hidden_queries()
    assert list(read.corpus.items()) == list(tiny.corpus().items())
    assert tuple(query.query_id for query in read.test) == tiny.sample()
    assert read.corpus.ids == tiny.corpus().ids


def test_each_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    tiny.write_competition(tmp_path)
    assert kaggle_files.read(tmp_path).files == digest.of_tree(tmp_path)


def test_latex_newlines_quotes_and_na_survive(tmp_path: Path) -> None:
    read = {
        query.query_id: query
        for query in kaggle_files.read(tiny.write_competition(tmp_path)).queries
    }
    assert read[QueryId("20_A")].fields["question"] == (
        'Tom says, "three squared is:"\n\\[\n3^{2}\n\\]'
    )
    assert read[QueryId("21_C")].fields["wrong"] == "NA"


def test_equal_sentences_stay_two_misconceptions(tmp_path: Path) -> None:
    read = kaggle_files.read(tiny.write_competition(tmp_path))
    first, second = tiny.at(1), tiny.at(9)
    assert read.corpus[first] == read.corpus[second]
    assert read.qrels[QueryId("10_B")] == {first}
    assert read.qrels[QueryId("11_B")] == {second}


def test_the_order_of_train_rows_changes_nothing(tmp_path: Path) -> None:
    read = kaggle_files.read(tiny.write_competition(tmp_path))
    edit(tmp_path / "train.csv", lambda rows: rows.reverse())
    assert replace(kaggle_files.read(tmp_path), files=read.files) == read


def test_the_test_can_be_read_without_train_as_in_the_kernel(tmp_path: Path) -> None:
    tiny.write_competition(tmp_path)
    (tmp_path / "train.csv").unlink()
    assert kaggle_files.read_test(tmp_path) == tiny.hidden_queries()
    assert kaggle_files.read_corpus(tmp_path) == tiny.corpus()


def test_labels_of_the_test_are_never_read(tmp_path: Path) -> None:
    folder = tiny.write_competition(tmp_path)
    rows = [(*row, "1", "1", "1", "1") for row in tiny.TEST_ROWS]
    tiny.write_csv(folder / "test.csv", tiny.TRAIN_COLUMNS, rows)
    assert kaggle_files.read(folder).qrels == tiny.qrels()


@pytest.mark.parametrize(
    "name", [kaggle_files.TRAIN, kaggle_files.TEST, kaggle_files.MAPPING, kaggle_files.SAMPLE]
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (tiny.write_competition(tmp_path) / name).unlink()
    assert refusal(tmp_path) == f"{name}: no such file"


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        (kaggle_files.TRAIN, tiny.TRAIN_COLUMNS),
        (kaggle_files.TEST, tiny.TEST_COLUMNS),
        (kaggle_files.MAPPING, tiny.CORPUS_COLUMNS),
        (kaggle_files.SAMPLE, tiny.SAMPLE_COLUMNS),
    ],
)
def test_each_missing_column_is_named(tmp_path: Path, name: str, columns: tuple[str, ...]) -> None:
    for column in columns:
        tiny.write_competition(tmp_path)
        edit(tmp_path / name, without(column))
        assert refusal(tmp_path).startswith(f"{name}, header, column {column}: is missing")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            kaggle_files.TRAIN,
            put(2, QuestionId=""),
            "row 2, column QuestionId: the id is missing",
        ),
        (
            kaggle_files.TRAIN,
            put(2, QuestionId="ten"),
            "row 2, column QuestionId: 'ten' is not a whole number",
        ),
        (
            kaggle_files.TRAIN,
            put(2, QuestionId="21"),
            "row 2, column QuestionId: the id 21 is also in row 1",
        ),
        (
            kaggle_files.TRAIN,
            put(2, ConstructId="1.5"),
            "row 2, QuestionId 10, column ConstructId: '1.5' is not a whole number",
        ),
        (
            kaggle_files.TRAIN,
            put(2, CorrectAnswer="E"),
            "row 2, QuestionId 10, column CorrectAnswer: 'E' is not A, B, C or D",
        ),
        (
            kaggle_files.TRAIN,
            put(2, CorrectAnswer=""),
            "row 2, QuestionId 10, column CorrectAnswer: '' is not A, B, C or D",
        ),
        (
            kaggle_files.TRAIN,
            put(2, MisconceptionAId="4.0"),
            "row 2, QuestionId 10, column MisconceptionAId: a label on the correct answer",
        ),
        (
            kaggle_files.TRAIN,
            put(6, MisconceptionBId="2.0"),
            "row 6, QuestionId 30, column MisconceptionBId: "
            "no misconception 2 in misconception_mapping.csv",
        ),
        (
            kaggle_files.TRAIN,
            put(6, MisconceptionBId="four"),
            "row 6, QuestionId 30, column MisconceptionBId: 'four' is not a whole number",
        ),
        (
            kaggle_files.TRAIN,
            put(6, QuestionText=" \n"),
            "row 6, QuestionId 30, column QuestionText: the text is empty",
        ),
        (
            kaggle_files.TRAIN,
            put(6, AnswerCText=""),
            "row 6, QuestionId 30, column AnswerCText: the text is empty",
        ),
        (
            kaggle_files.TEST,
            put(1, ConstructName=""),
            "row 1, QuestionId 41, column ConstructName: the text is empty",
        ),
        (
            kaggle_files.TEST,
            put(2, QuestionId="41.0"),
            "row 2, column QuestionId: the id 41 is also in row 1",
        ),
        (
            kaggle_files.MAPPING,
            put(3, MisconceptionName=""),
            "row 3, MisconceptionId 3, column MisconceptionName: the text is empty",
        ),
        (
            kaggle_files.MAPPING,
            put(3, MisconceptionId="9"),
            "row 3, column MisconceptionId: the id 9 is also in row 1",
        ),
        (
            kaggle_files.SAMPLE,
            put(2, QuestionId_Answer="42_B"),
            "row 2, column QuestionId_Answer: 42_B is not an answer to a question of test.csv",
        ),
        (
            kaggle_files.SAMPLE,
            put(2, QuestionId_Answer="41_A"),
            "row 2, column QuestionId_Answer: 41_A is also in row 1",
        ),
        (
            kaggle_files.SAMPLE,
            put(2, QuestionId_Answer="41_C"),
            "row 2, column QuestionId_Answer: 41_C is the correct answer (row 1 of test.csv)",
        ),
        (
            kaggle_files.SAMPLE,
            put(2, QuestionId_Answer="41"),
            "row 2, column QuestionId_Answer: '41' is not QuestionId_Answer, as 12_B is",
        ),
        (
            kaggle_files.SAMPLE,
            lambda rows: rows.pop(3),
            "row 6, column QuestionId_Answer: 1 rows that test.csv asks for are missing "
            "(first: 40_B)",
        ),
        (
            kaggle_files.SAMPLE,
            lambda rows: [row.update(Score="1") for row in rows],
            "header, column Score: the columns must be exactly QuestionId_Answer,MisconceptionId "
            "(found QuestionId_Answer,MisconceptionId,Score)",
        ),
    ],
)
def test_a_fault_names_file_row_and_column(
    tmp_path: Path, name: str, change: Callable[[Rows], object], message: str
) -> None:
    edit(tiny.write_competition(tmp_path) / name, change)
    assert refusal(tmp_path) == f"{name}, {message}"


def test_a_train_file_without_labels_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_competition(tmp_path)
    blank = {f"Misconception{answer}Id": "" for answer in tiny.ANSWERS}
    edit(folder / kaggle_files.TRAIN, lambda rows: [row.update(blank) for row in rows])
    assert refusal(folder).endswith("no row has a label")


def test_a_file_in_another_encoding_is_refused_with_its_place(tmp_path: Path) -> None:
    folder = tiny.write_competition(tmp_path)
    edit(folder / kaggle_files.TRAIN, put(3, QuestionText="What is 1/2 × 1/3?"))
    text = (folder / kaggle_files.TRAIN).read_text(encoding="utf-8")
    (folder / kaggle_files.TRAIN).write_text(text, encoding="cp1252", newline="")
    assert refusal(folder).startswith("train.csv, row 3, column QuestionText: not UTF-8")
