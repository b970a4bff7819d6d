"""Kaggle's files become nouns with the same bytes anywhere, or nothing is written at all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.competition.query import QueryId
from parity.competition.splits.split import Split
from parity.pipeline import dag, dataset
from parity.pipeline.dataset import Dataset
from parity.run.errors import BadConfig, BadData
from parity.run.experiment import Run

Spoil = Callable[[Path], None]


def cell(file: str, row: int, column: str, value: str) -> Spoil:
    def spoil(source: Path) -> None:
        rows = benches.read_rows(source / file)
        rows[row][column] = value
        benches.write_rows(source / file, rows)

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


def prepared(bench: Bench) -> tuple[Run, Dataset]:
    run = bench.make("prepare")
    return run, dataset.load(run)


@pytest.fixture
def tiny_bench(bench: Bench) -> Bench:
    """Return a bench over the competition that is worked out by hand."""
    source = tiny.write_competition(bench.folder / "competition")
    bench.write(data={"source": str(source)}, split={"kind": "misconception", "valid": 0.3})
    return bench


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_is_wrong_stops_all_before_a_byte_is_written(
    tiny_bench: Bench, wrong: str
) -> None:
    spoil, told = WRONG[wrong]
    spoil(tiny_bench.folder / "competition")
    with pytest.raises(BadData, match=told) as caught:
        tiny_bench.make("prepare")
    assert len(str(caught.value).splitlines()) == 1
    assert not tiny_bench.data.exists()


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_gone_wrong_since_leaves_what_was_made_of_the_right_one(
    tiny_bench: Bench, wrong: str
) -> None:
    run = tiny_bench.make("prepare")
    before = benches.contents(tiny_bench.data)
    WRONG[wrong][0](tiny_bench.folder / "competition")
    with pytest.raises(BadData):
        tiny_bench.make("prepare")
    assert benches.contents(tiny_bench.data) == before
    assert dag.StageGraph().standing(run, "prepare").state == "stale"


def test_a_folder_that_is_not_there_says_how_to_name_one(bench: Bench) -> None:
    bench.write(data={"source": "nowhere"})
    with pytest.raises(BadData, match=r"data\.source = 'nowhere': no such folder; .* --set data"):
        bench.make("prepare")
    assert not bench.data.exists()


def test_a_split_that_leaves_a_side_empty_writes_nothing(tiny_bench: Bench) -> None:
    tiny_bench.write(
        data={"source": str(tiny_bench.folder / "competition")},
        split={"kind": "subject", "folds": 9, "fold": 8},
    )
    with pytest.raises(BadConfig):
        tiny_bench.make("prepare")
    assert not tiny_bench.data.exists()


def test_prepare_writes_the_nouns_by_their_names(bench: Bench) -> None:
    run = bench.make("prepare")
    assert sorted(benches.contents(run.workspace.prepare)) == [
        "corpus.jsonl",
        "examples.jsonl",
        "manifest.json",
        "probe.jsonl",
        "qrels.jsonl",
        "queries.jsonl",
        "splits/random-s0-v0.4.json",
        "test_queries.jsonl",
    ]


def test_the_nouns_of_the_tiny_competition_are_those_worked_out_by_hand(tiny_bench: Bench) -> None:
    run, known = prepared(tiny_bench)
    assert known.queries == tiny.queries()
    assert known.qrels == tiny.qrels()
    assert known.test == tiny.hidden_queries()
    assert known.corpus == tiny.corpus()
    assert [one.query_id for one in known.probe] == ["10_B", "11_B", "12_A", "20_A", "21_B", "30_A"]
    manifest = dag.StageGraph().standing(run, "prepare").manifest
    assert manifest is not None
    assert manifest.facts["queries"] == len(tiny.queries())
    assert manifest.facts["test"] == len(tiny.sample())
    assert manifest.facts["misconceptions"] == len(tiny.corpus())


def test_the_two_sides_share_no_question_and_are_all_there_is(bench: Bench) -> None:
    run, known = prepared(bench)
    split = Split.read(run.workspace.split("random-s0-v0.4"))
    assert split == known.split
    assert not set(split.train) & set(split.valid)
    assert known.train
    assert known.valid
    assert sorted([*known.train, *known.valid], key=lambda item: item.query_id) == sorted(
        known.queries, key=lambda item: item.query_id
    )
    assert list(known.valid_qrels) == [one.query_id for one in known.valid]
    assert known.positives == {key for one in known.train for key in known.qrels[one.query_id]}
    for query in known.valid:
        unseen = known.positives.isdisjoint(known.qrels[query.query_id])
        assert unseen == (query.query_id in split.unseen)


def test_b9_examples_come_from_train_alone(bench: Bench) -> None:
    _, known = prepared(bench)
    shown = [one.query.query_id for one in known.pool]
    assert sorted(shown) == sorted(query.query_id for query in known.train)


def test_a1_the_unseen_share_is_printed_beside_the_split(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    _, known = prepared(bench)
    said = capsys.readouterr().out
    assert said.startswith("52 labeled rows, 12 rows to predict, 40 misconceptions\n")
    assert "split random-s0-v0.4, seed 0, digest " in said
    share = len(known.split.unseen) / len(known.valid)
    assert f"{share:.1%}".replace("%", " %") in said


def test_no_sentence_of_the_competition_is_in_an_example_or_the_probe(bench: Bench) -> None:
    run = bench.make("prepare")
    for name in ("examples.jsonl", "probe.jsonl"):
        text = (run.workspace.prepare / name).read_text()
        assert " " not in text  # ids alone


def test_preparing_again_writes_the_same_bytes(bench: Bench) -> None:
    run = bench.make("prepare")
    first = benches.digests(run.workspace.prepare)
    before = dag.StageGraph().standing(run, "prepare").manifest
    bench.make("prepare")
    again = dag.StageGraph().standing(run, "prepare").manifest
    assert before is not None
    assert again is not None
    assert again.digest() == before.digest()
    second = benches.digests(run.workspace.prepare)
    del first["manifest.json"], second["manifest.json"]  # it knows how long it took
    assert second == first


def test_a_query_has_its_question_id_and_letter_for_a_name(bench: Bench) -> None:
    _, known = prepared(bench)
    for query in known.queries:
        assert query.query_id == QueryId(f"{query.question_id}_{query.answer}")
