"""A generated hidden test: valid, of any number of rows, and all of them new."""

import re
from pathlib import Path

import pytest
import tiny
from shipped_data import synthetic_folder

from parity.competition.eedi import hidden_test, kaggle_files
from parity.competition.lineage import normalize
from parity.run import digest

SYNTHETIC = synthetic_folder()
FILES = (kaggle_files.MAPPING, kaggle_files.TRAIN, kaggle_files.TEST, kaggle_files.SAMPLE)


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a hidden test with more questions than the local files."""
    target = tmp_path_factory.mktemp("hidden") / "competition"
    assert hidden_test.write(SYNTHETIC, target, 3000) == 3000
    return target


def test_a_hidden_test_is_read_without_an_error(competition: Path) -> None:
    read = kaggle_files.read(competition)
    assert len(read.test) == 3000
    local = kaggle_files.read(SYNTHETIC)
    assert (read.queries, read.corpus) == (local.queries, local.corpus)


def test_ids_groups_and_texts_are_new(competition: Path) -> None:
    read, local = kaggle_files.read(competition), kaggle_files.read(SYNTHETIC)
    local_queries = [*local.queries, *local.test]
    for name in ("construct", "subject"):
        for values in ("groups", "fields"):
            before = {getattr(query, values)[name] for query in local_queries}
            assert not before & {getattr(query, values)[name] for query in read.test}, name
    assert not {query.unit for query in local_queries} & {query.unit for query in read.test}
    texts = {normalize(query.identity) for query in local_queries}
    assert not texts & {normalize(query.identity) for query in read.test}


def test_train_and_misconceptions_are_the_local_files(competition: Path) -> None:
    for name in (kaggle_files.TRAIN, kaggle_files.MAPPING):
        assert (competition / name).read_bytes() == (SYNTHETIC / name).read_bytes()
    assert {path.name for path in competition.iterdir()} == set(FILES)


def test_questions_have_the_shape_of_local_ones(competition: Path) -> None:
    """Only digits change, so that tokens and hours are those of real questions."""
    shapes = {
        re.sub(r"\d", "0", query.fields["question"])
        for query in kaggle_files.read(SYNTHETIC).queries
    } | {
        re.sub(r"\d", "0", query.fields["question"]) for query in kaggle_files.read(SYNTHETIC).test
    }
    made_shapes = [
        re.sub(r"\d", "0", query.fields["question"])
        for query in kaggle_files.read_test(competition)
    ]
    alike = sum(re.sub(r" \(0+\)$", "", shape) in shapes for shape in made_shapes)
    assert alike == len(made_shapes)


def test_right_and_wrong_answers_stay_different(competition: Path) -> None:
    before = sum(
        query.fields["correct"] == query.fields["wrong"]
        for query in kaggle_files.read(SYNTHETIC).test
    )
    assert before == 0
    assert not [
        query
        for query in kaggle_files.read_test(competition)
        if query.fields["correct"] == query.fields["wrong"]
    ]


def test_the_same_files_give_the_same_test(competition: Path, tmp_path: Path) -> None:
    hidden_test.write(SYNTHETIC, tmp_path / "again", 3000)
    for name in FILES:
        assert digest.of_file(tmp_path / "again" / name) == digest.of_file(competition / name)


@pytest.mark.parametrize(("minimum", "rows"), [(1, 3), (3, 3), (4, 6), (2000, 2001)])
def test_the_rows_are_rounded_up_to_complete_questions(
    tmp_path: Path, minimum: int, rows: int
) -> None:
    assert hidden_test.write(SYNTHETIC, tmp_path / "made", minimum) == rows
    assert len(kaggle_files.read_test(tmp_path / "made")) == rows


def test_awkward_texts_survive(tmp_path: Path) -> None:
    """LaTeX, quotes, commas, newlines, `NA`, and ids that are not in order."""
    source = tiny.write_competition(tmp_path / "tiny")
    assert hidden_test.write(source, tmp_path / "made", 24) == 24
    read = kaggle_files.read_test(tmp_path / "made")
    assert {int(query.unit) for query in read} == set(range(42, 50))
    assert any(
        "\n" in query.fields["question"] and '"' in query.fields["question"] for query in read
    )
    assert {"NA", "null"} & {query.fields["wrong"] for query in read}


def test_a_question_without_a_digit_gets_a_number(tmp_path: Path) -> None:
    source = tiny.write_competition(tmp_path / "tiny")
    rows = [(*row[:6], "How many?", *row[7:]) for row in tiny.TEST_ROWS]
    tiny.write_csv(source / kaggle_files.TEST, tiny.TEST_COLUMNS, rows)
    hidden_test.write(source, tmp_path / "made", 60)
    texts = {query.fields["question"] for query in kaggle_files.read_test(tmp_path / "made")}
    assert "How many?" not in texts
    assert any(re.fullmatch(r"How many\? \(\d+\)", text) for text in texts)
