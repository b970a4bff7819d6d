"""What each query is shown: of train alone, never its own question, and proven at every use."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
from pipeline.run_fixture import Bench

from parity.competition.few_shot import Example
from parity.competition.lineage import normalize
from parity.competition.query import MisconceptionId
from parity.pipeline import dataset
from parity.pipeline.dataset import Dataset
from parity.run.config.run_file import PromptConfig
from parity.run.errors import Contaminated

MODES = ("fixed", "batch", "question", "random")


def known(made: Bench) -> Dataset:
    return dataset.load(made.run())


def showing(mode: str, count: int = 2) -> PromptConfig:
    return PromptConfig.model_validate({"examples": mode, "example_count": count})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", ["train", "valid", "test", "probe"])
def test_b9_every_query_is_shown_train_rows_of_other_questions(
    made: Bench, mode: str, side: str
) -> None:
    there = known(made)
    train = {query.query_id for query in there.train}
    queries = getattr(there, side)
    shown = dataset.shown(there, showing(mode), queries)
    assert list(shown) == [query.query_id for query in queries]
    for query in queries:
        assert len(shown[query.query_id]) == 2
        for one in shown[query.query_id]:
            assert one.query.query_id in train
            assert normalize(one.query.question) != normalize(query.question)
            assert one.misconception_id in there.qrels[one.query.query_id]


@pytest.mark.parametrize("mode", MODES)
def test_c16_what_a_query_is_shown_depends_on_nothing_beside_it(made: Bench, mode: str) -> None:
    there = known(made)
    shown = dataset.shown(there, showing(mode), there.queries)
    for query in there.queries[::5]:
        alone = dataset.shown(there, showing(mode), [query])
        assert alone[query.query_id] == shown[query.query_id]


def test_without_examples_nothing_is_shown(made: Bench) -> None:
    there = known(made)
    shown = dataset.shown(there, PromptConfig(), there.valid)
    assert set(shown.values()) == {()}


@pytest.mark.parametrize("mode", ["none", *MODES])
def test_b9_a_pool_that_holds_a_valid_question_is_refused(made: Bench, mode: str) -> None:
    there = known(made)
    leaked = there.valid[0]
    right = min(there.qrels[leaked.query_id])
    leaking = replace(there, pool=(*there.pool, Example(leaked, right, there.corpus[right])))
    config = showing(mode) if mode != "none" else PromptConfig()
    with pytest.raises(
        Contaminated, match=rf"outside the train side .* \(first: {leaked.query_id}\)"
    ):
        dataset.shown(leaking, config, there.train)


def test_b10_two_examples_picked_by_hand_are_held_to_the_same(made: Bench) -> None:
    there = known(made)
    picked = [query for query in there.queries if query.question_id in there.split.valid][:2]
    by_hand = tuple(Example(one, MisconceptionId(0), "Adds both") for one in picked)
    with pytest.raises(Contaminated, match=r"outside the train side of split random-s0-v0\.4: 2 "):
        dataset.shown(replace(there, pool=by_hand), showing("fixed"), there.valid)


def test_c17_a_subject_that_the_pool_lacks_is_shown_what_others_are(made: Bench) -> None:
    there = known(made)
    odd = replace(tiny.queries()[0], subject="Never seen", subject_id=99, question_id=10**6)
    for mode in MODES:
        alone = dataset.shown(there, showing(mode), [odd])
        after = dataset.shown(there, showing(mode), [*there.valid, odd])
        assert after[odd.query_id] == alone[odd.query_id]
        assert len(alone[odd.query_id]) == 2


def test_changing_the_seed_changes_what_is_drawn(made: Bench) -> None:
    there = known(made)
    for mode in ("fixed", "random"):
        config: dict[str, Any] = {"examples": mode, "example_count": 2}
        one, other = (
            dataset.shown(there, PromptConfig(**config, example_seed=seed), there.valid)
            for seed in (0, 1)
        )
        assert one != other
