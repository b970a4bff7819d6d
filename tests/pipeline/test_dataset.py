"""The dataset of a run: its split, and few-shot examples from train, never the query's own."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
from pipeline.run_fixture import RunFixture, contents

from parity.competition import few_shot
from parity.competition.few_shot import Example
from parity.competition.lineage import normalize
from parity.competition.query import Position, UnitId
from parity.competition.splits import split as splits
from parity.pipeline import dataset
from parity.pipeline.dataset import Dataset
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadConfig, Contaminated

MODES = ("fixed", "batch", "question", "random")
OTHER_SPLITS = (
    {"seed": 3},
    {"valid": 0.5},
    {"folds": 3, "fold": 1},
    {"kind": "unseen", "unseen": 0.3},
    {"kind": "label"},
    {"kind": "subject"},
    {"kind": "full"},
)
"""Sections that name another split than the one that `predicted_run` has prepared."""


def load(predicted_run: RunFixture) -> Dataset:
    run = predicted_run.open()
    return dataset.load(run.config, run.workspace)


def showing(mode: str, count: int = 2) -> PromptConfig:
    return PromptConfig.model_validate({"examples": mode, "example_count": count})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", ["train", "valid", "test", "probe"])
def test_b9_every_query_is_shown_train_rows_of_other_questions(
    predicted_run: RunFixture, mode: str, side: str
) -> None:
    data = load(predicted_run)
    train = {query.query_id for query in data.train}
    queries = getattr(data, side)
    shown = dataset.shown(data, showing(mode), queries)
    assert list(shown) == [query.query_id for query in queries]
    for query in queries:
        assert len(shown[query.query_id]) == 2
        for example in shown[query.query_id]:
            assert example.query.query_id in train
            assert normalize(example.query.identity) != normalize(query.identity)
            assert example.position in data.qrels[example.query.query_id]


@pytest.mark.parametrize("mode", MODES)
def test_c16_the_examples_of_a_query_do_not_depend_on_other_queries(
    predicted_run: RunFixture, mode: str
) -> None:
    data = load(predicted_run)
    shown = dataset.shown(data, showing(mode), data.queries)
    for query in data.queries[::5]:
        single = dataset.shown(data, showing(mode), [query])
        assert single[query.query_id] == shown[query.query_id]


def test_without_examples_nothing_is_shown(predicted_run: RunFixture) -> None:
    data = load(predicted_run)
    shown = dataset.shown(data, PromptConfig(), data.valid)
    assert set(shown.values()) == {()}


@pytest.mark.parametrize("mode", ["none", *MODES])
def test_b9_a_pool_that_holds_a_valid_question_is_refused(
    predicted_run: RunFixture, mode: str
) -> None:
    data = load(predicted_run)
    leaked = data.valid[0]
    right = min(data.qrels[leaked.query_id])
    leaking = replace(data, pool=(*data.pool, Example(leaked, right, data.corpus[right])))
    config = showing(mode) if mode != "none" else PromptConfig()
    with pytest.raises(
        Contaminated, match=rf"outside the train side .* \(first: {leaked.query_id}\)"
    ):
        dataset.shown(leaking, config, data.train)


def test_b10_two_examples_picked_by_hand_are_checked_too(predicted_run: RunFixture) -> None:
    data = load(predicted_run)
    picked = [query for query in data.queries if query.unit in data.split.valid][:2]
    by_hand = tuple(Example(query, Position(0), "Adds both") for query in picked)
    with pytest.raises(Contaminated, match=r"outside the train side of split random-s0-v0\.4: 2 "):
        dataset.shown(replace(data, pool=by_hand), showing("fixed"), data.valid)


def test_c17_a_subject_missing_from_the_pool_gets_the_same_number_of_examples(
    predicted_run: RunFixture,
) -> None:
    data = load(predicted_run)
    query = tiny.queries()[0].with_field("subject", "Never seen")
    query_of_new_subject = replace(query, groups={"subject": "99"}, unit=UnitId("1000000"))
    for mode in MODES:
        single = dataset.shown(data, showing(mode), [query_of_new_subject])
        after = dataset.shown(data, showing(mode), [*data.valid, query_of_new_subject])
        assert after[query_of_new_subject.query_id] == single[query_of_new_subject.query_id]
        assert len(single[query_of_new_subject.query_id]) == 2


def test_another_seed_draws_other_examples(predicted_run: RunFixture) -> None:
    data = load(predicted_run)
    for mode in ("fixed", "random"):
        config: dict[str, Any] = {"examples": mode, "example_count": 2}
        first, second = (
            dataset.shown(data, PromptConfig(**config, example_seed=seed), data.valid)
            for seed in (0, 1)
        )
        assert first != second


@pytest.mark.parametrize("section", OTHER_SPLITS, ids=str)
def test_a_split_that_was_not_prepared_is_the_one_that_prepare_would_write(
    predicted_run: RunFixture, section: dict[str, Any]
) -> None:
    predicted_run.write_config("other", split=section)
    expected = predicted_run.run_stages("prepare", name="other").workspace.prepare
    sets = (f"split.{name}={value}" for name, value in section.items())
    run = predicted_run.open(*sets)
    data = dataset.load(run.config, run.workspace)
    assert data.split.name != load(predicted_run).split.name
    assert data.split.name == run.config.split.name
    folder = predicted_run.folder / "rewritten"
    data.split.write(folder / "splits" / f"{data.split.name}.json")
    few_shot.write(folder / "examples.jsonl", data.pool, data.corpus)
    rewritten = contents(folder)
    assert len(rewritten) == 2
    assert rewritten == {name: (expected / name).read_bytes() for name in rewritten}
    assert not (run.workspace.split(data.split.name)).exists()  # nothing is written


def test_an_old_file_of_a_split_is_not_read(predicted_run: RunFixture) -> None:
    run = predicted_run.open("split.seed=3")
    expected = dataset.load(run.config, run.workspace).split
    prepared = load(predicted_run).split
    old = run.workspace.split(run.config.split.name)
    replace(prepared, name=run.config.split.name).write(old)
    assert prepared.valid != expected.valid
    assert dataset.load(run.config, run.workspace).split == expected


def test_the_files_of_a_prepared_split_are_read(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(predicted_run)
    monkeypatch.delattr(splits, "make")
    monkeypatch.delattr(few_shot, "pool")
    data = load(predicted_run)
    assert (data.split, data.pool) == (expected.split, expected.pool)


def test_a_split_that_leaves_a_set_empty_is_refused(predicted_run: RunFixture) -> None:
    run = predicted_run.open("split.folds=40", "split.fold=39")  # there are 26 questions
    with pytest.raises(BadConfig, match=r"leaves no unit in valid of random-s0-f39of40: "):
        dataset.load(run.config, run.workspace)
    run = predicted_run.open("split.kind=teacher")
    with pytest.raises(BadConfig, match=r"split\.kind = 'teacher': the competition has "):
        dataset.load(run.config, run.workspace)
