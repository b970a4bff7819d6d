"""Kaggle's files become a dataset with the same bytes on any machine, or nothing is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.competition.splits.split import Split
from parity.pipeline import dag, dataset
from parity.pipeline.dataset import Dataset
from parity.run.errors import BadConfig, BadData
from parity.run.experiment import Run

Spoil = Callable[[Path], None]


def cell(file: str, row: int, column: str, value: str) -> Spoil:
    def spoil(source: Path) -> None:
        rows = run_fixture.read_rows(source / file)
        rows[row][column] = value
        run_fixture.write_rows(source / file, rows)

    return spoil


def without(file: str) -> Spoil:
    return lambda source: (source / file).unlink()


def emptied(file: str) -> Spoil:
    def spoil(source: Path) -> None:
        (source / file).write_bytes(b"")

    return spoil


WRONG: dict[str, tuple[Spoil, str]] = {
    "no file": (without("test.csv"), r"test\.csv"),
    "empty file": (emptied("train.csv"), r"train\.csv"),
    "no text": (cell("train.csv", 3, "QuestionText", " "), r"train\.csv.*QuestionText"),
    "odd id": (cell("train.csv", 3, "MisconceptionAId", "9999"), r"train\.csv.*MisconceptionAId"),
    "odd answer": (cell("train.csv", 0, "CorrectAnswer", "E"), r"train\.csv.*CorrectAnswer"),
    "odd sample": (
        cell("sample_submission.csv", 0, "QuestionId_Answer", "1_A"),
        r"sample_submission\.csv",
    ),
}


def prepared(small_run: RunFixture) -> tuple[Run, Dataset]:
    run = small_run.run_stages("prepare")
    return run, dataset.load(run.config, run.workspace)


@pytest.fixture
def tiny_run(small_run: RunFixture) -> RunFixture:
    """Return a small run of the competition that was computed by hand."""
    source = tiny.write_competition(small_run.folder / "competition")
    small_run.write_config(data={"source": str(source)}, split={"kind": "label", "valid": 0.3})
    return small_run


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_file_is_refused_before_anything_is_written(
    tiny_run: RunFixture, wrong: str
) -> None:
    spoil, expected = WRONG[wrong]
    spoil(tiny_run.folder / "competition")
    with pytest.raises(BadData, match=expected) as error:
        tiny_run.run_stages("prepare")
    assert len(str(error.value).splitlines()) == 1
    assert not tiny_run.data.exists()


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_becomes_wrong_leaves_the_dataset_unchanged(
    tiny_run: RunFixture, wrong: str
) -> None:
    run = tiny_run.run_stages("prepare")
    before = run_fixture.contents(tiny_run.data)
    WRONG[wrong][0](tiny_run.folder / "competition")
    with pytest.raises(BadData):
        tiny_run.run_stages("prepare")
    assert run_fixture.contents(tiny_run.data) == before
    assert dag.StageGraph().standing(run, "prepare").state == "stale"


def test_a_missing_folder_names_the_setting(small_run: RunFixture) -> None:
    small_run.write_config(data={"source": "nowhere"})
    with pytest.raises(BadData, match=r"data\.source = 'nowhere': no such folder. .* --set data"):
        small_run.run_stages("prepare")
    assert not small_run.data.exists()


def test_a_split_that_leaves_a_side_empty_writes_nothing(tiny_run: RunFixture) -> None:
    tiny_run.write_config(
        data={"source": str(tiny_run.folder / "competition")},
        split={"kind": "subject", "folds": 9, "fold": 8},
    )
    with pytest.raises(BadConfig):
        tiny_run.run_stages("prepare")
    assert not tiny_run.data.exists()


def test_prepare_writes_all_files_of_the_dataset(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare")
    assert sorted(run_fixture.contents(run.workspace.prepare)) == [
        "corpus.jsonl",
        "examples.jsonl",
        "manifest.json",
        "probe.jsonl",
        "qrels.jsonl",
        "queries.jsonl",
        "splits/random-s0-v0.4.json",
        "test_queries.jsonl",
    ]


def test_the_dataset_of_the_tiny_competition_equals_the_one_computed_by_hand(
    tiny_run: RunFixture,
) -> None:
    run, data = prepared(tiny_run)
    assert data.queries == tiny.queries()
    assert data.qrels == tiny.qrels()
    assert data.test == tiny.hidden_queries()
    assert data.corpus == tiny.corpus()
    assert [query.query_id for query in data.probe] == [
        "10_B",
        "11_B",
        "12_A",
        "20_A",
        "21_B",
        "30_A",
    ]
    manifest = dag.StageGraph().standing(run, "prepare").manifest
    assert manifest is not None
    assert manifest.facts["queries"] == len(tiny.queries())
    assert manifest.facts["test"] == len(tiny.sample())
    assert manifest.facts["passages"] == len(tiny.corpus())


def test_training_and_validation_set_are_disjoint_and_complete(small_run: RunFixture) -> None:
    run, data = prepared(small_run)
    split = Split.read(run.workspace.split("random-s0-v0.4"))
    assert split == data.split
    assert not set(split.train) & set(split.valid)
    assert data.train
    assert data.valid
    assert sorted([*data.train, *data.valid], key=lambda item: item.query_id) == sorted(
        data.queries, key=lambda item: item.query_id
    )
    assert list(data.valid_qrels) == [item.query_id for item in data.valid]
    assert data.positives == {key for item in data.train for key in data.qrels[item.query_id]}
    for query in data.valid:
        unseen = data.positives.isdisjoint(data.qrels[query.query_id])
        assert unseen == (query.query_id in split.unseen)


def test_b9_examples_come_from_train_alone(small_run: RunFixture) -> None:
    _, data = prepared(small_run)
    shown = [example.query.query_id for example in data.pool]
    assert sorted(shown) == sorted(query.query_id for query in data.train)


def test_a1_the_unseen_share_is_printed_with_the_split(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    _, data = prepared(small_run)
    output = capsys.readouterr().out
    assert output.startswith("52 labeled rows, 12 rows to predict, 40 passages\n")
    assert "split random-s0-v0.4, seed 0, digest " in output
    share = len(data.split.unseen) / len(data.valid)
    assert f"{share:.1%}".replace("%", " %") in output


def test_no_sentence_of_the_competition_is_in_an_example_or_the_probe(
    small_run: RunFixture,
) -> None:
    run = small_run.run_stages("prepare")
    for name in ("examples.jsonl", "probe.jsonl"):
        text = (run.workspace.prepare / name).read_text()
        assert " " not in text  # ids alone


def test_prepare_writes_the_same_bytes_twice(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare")
    first = run_fixture.digests(run.workspace.prepare)
    before = dag.StageGraph().standing(run, "prepare").manifest
    small_run.run_stages("prepare")
    repeated = dag.StageGraph().standing(run, "prepare").manifest
    assert before is not None
    assert repeated is not None
    assert repeated.digest() == before.digest()
    second = run_fixture.digests(run.workspace.prepare)
    del first["manifest.json"], second["manifest.json"]  # it holds the duration
    assert second == first


def test_a_query_id_has_question_id_and_letter(small_run: RunFixture) -> None:
    _, data = prepared(small_run)
    for query in data.queries:
        assert query.query_id == query.row
        assert query.unit == query.query_id.split("_")[0]
