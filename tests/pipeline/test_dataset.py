"""Tests of few-shot examples: only from train, never of the query's question, always checked."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
from pipeline.run_fixture import RunFixture

from parity.competition.few_shot import Example
from parity.competition.lineage import normalize
from parity.competition.query import Position, UnitId
from parity.pipeline import dataset
from parity.pipeline.dataset import Dataset
from parity.run.config.prompt import PromptConfig
from parity.run.errors import Contaminated

MODES = ("fixed", "batch", "question", "random")


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
