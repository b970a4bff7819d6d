"""A made-up hidden test: as many rows as wanted, valid, and nothing of it seen before."""

import re
from pathlib import Path

import pytest
import tiny

from parity.competition.eedi import kaggle_files
from parity.competition.lineage import normalize
from parity.deploy.kernel import hidden_test
from parity.run import digest

SYNTHETIC = Path(__file__).parents[3] / "data" / "synthetic"
FILES = (kaggle_files.MAPPING, kaggle_files.TRAIN, kaggle_files.TEST, kaggle_files.SAMPLE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a hidden test of more questions than there are to make it of."""
    target = tmp_path_factory.mktemp("hidden") / "competition"
    assert hidden_test.write(SYNTHETIC, target, 3000) == 3000
    return target


def test_it_is_a_competition_that_reads_without_a_fault(made: Path) -> None:
    read = kaggle_files.read(made)
    assert len(read.test) == len(read.sample) == 3000
    local = kaggle_files.read(SYNTHETIC)
    assert (read.queries, read.corpus) == (local.queries, local.corpus)


def test_nothing_of_it_was_seen_before(made: Path) -> None:
    read, local = kaggle_files.read(made), kaggle_files.read(SYNTHETIC)
    known = [*local.queries, *local.test]
    for name in ("question_id", "construct_id", "construct", "subject_id", "subject"):
        before = {getattr(one, name) for one in known}
        assert not before & {getattr(one, name) for one in read.test}, name
    texts = {normalize(one.question) for one in known}
    assert not texts & {normalize(one.question) for one in read.test}


def test_train_and_misconceptions_are_the_local_files(made: Path) -> None:
    for name in (kaggle_files.TRAIN, kaggle_files.MAPPING):
        assert (made / name).read_bytes() == (SYNTHETIC / name).read_bytes()
    assert {path.name for path in made.iterdir()} == set(FILES)


def test_questions_have_the_shape_of_local_ones(made: Path) -> None:
    """Only digits change, so that tokens and hours are those of real questions."""
    shapes = {
        re.sub(r"\d", "0", query.question) for query in kaggle_files.read(SYNTHETIC).queries
    } | {re.sub(r"\d", "0", one.question) for one in kaggle_files.read(SYNTHETIC).test}
    made_shapes = [re.sub(r"\d", "0", one.question) for one in kaggle_files.read_test(made)]
    alike = sum(re.sub(r" \(0+\)$", "", shape) in shapes for shape in made_shapes)
    assert alike == len(made_shapes)


def test_right_and_wrong_answers_stay_apart(made: Path) -> None:
    before = sum(one.correct == one.wrong for one in kaggle_files.read(SYNTHETIC).test)
    assert before == 0
    assert not [one for one in kaggle_files.read_test(made) if one.correct == one.wrong]


def test_the_same_files_give_the_same_test(made: Path, tmp_path: Path) -> None:
    hidden_test.write(SYNTHETIC, tmp_path / "again", 3000)
    for name in FILES:
        assert digest.of_file(tmp_path / "again" / name) == digest.of_file(made / name)


@pytest.mark.parametrize(("wanted", "rows"), [(1, 3), (3, 3), (4, 6), (2000, 2001)])
def test_whole_questions_are_asked(tmp_path: Path, wanted: int, rows: int) -> None:
    assert hidden_test.write(SYNTHETIC, tmp_path / "made", wanted) == rows
    assert len(kaggle_files.read_test(tmp_path / "made")) == rows


def test_awkward_texts_survive(tmp_path: Path) -> None:
    """LaTeX, quotes, commas, newlines, `NA`, and ids that are not in order."""
    source = tiny.write_competition(tmp_path / "tiny")
    assert hidden_test.write(source, tmp_path / "made", 24) == 24
    read = kaggle_files.read_test(tmp_path / "made")
    assert {one.question_id for one in read} == set(range(42, 50))
    assert any("\n" in one.question and '"' in one.question for one in read)
    assert {"NA", "null"} & {one.wrong for one in read}


def test_a_question_without_a_digit_becomes_another(tmp_path: Path) -> None:
    source = tiny.write_competition(tmp_path / "tiny")
    rows = [(*row[:6], "How many?", *row[7:]) for row in tiny.TEST_ROWS]
    tiny.write_csv(source / kaggle_files.TEST, tiny.TEST_COLUMNS, rows)
    hidden_test.write(source, tmp_path / "made", 60)
    texts = {one.question for one in kaggle_files.read_test(tmp_path / "made")}
    assert "How many?" not in texts
    assert any(re.fullmatch(r"How many\? \(\d+\)", text) for text in texts)
