"""Settings of mining, training and evaluations, and which of them decide a score."""

from typing import Any

import pytest

from parity.run.config import stage_settings
from parity.run.config.evaluation import SECTIONS
from parity.run.config.run_file import Config, build
from parity.run.errors import BadConfig

SHOTS = {"examples": "question", "example_count": 2}


def config(**sections: dict[str, Any]) -> Config:
    return build({"name": "plain", **sections}, "here")


# Mining and training


@pytest.mark.parametrize("stage", ["mining", "training"])
@pytest.mark.parametrize(
    ("choice", "expected"),
    [("", ("question", 2)), ("question", ("question", 2)), ("random", ("random", 2))],
)
def test_a_stage_can_choose_other_few_shot_examples(
    stage: str, choice: str, expected: tuple[str, int]
) -> None:
    before = config(prompt=SHOTS, **{stage: {"examples": choice}})
    for name in ("mining", "training"):
        used = getattr(stage_settings, f"{name}_config")(before).prompt
        examples = expected if name == stage else ("question", 2)
        assert (used.examples, used.example_count) == examples
    assert before.prompt.examples == "question"


@pytest.mark.parametrize("stage", ["mining", "training"])
def test_a_stage_without_examples_has_the_settings_of_a_prompt_without_them(stage: str) -> None:
    before = config(prompt=SHOTS, **{stage: {"examples": "none"}})
    assert getattr(stage_settings, f"{stage}_config")(before).prompt == config().prompt


@pytest.mark.parametrize("stage", ["mining", "training"])
def test_a_stage_with_examples_needs_their_number(stage: str) -> None:
    wrong = config(**{stage: {"examples": "fixed"}})
    expected = rf"^{stage}\.examples = 'fixed' needs prompt\.example_count\."
    with pytest.raises(BadConfig, match=expected):
        stage_settings.check_evaluations(wrong)


def test_mining_can_choose_another_quantization() -> None:
    assert stage_settings.mining_config(config()).encoder.quantize == "none"
    quantized = config(encoder={"quantize": "4bit"})
    assert stage_settings.mining_config(quantized).encoder.quantize == "4bit"
    before = config(mining={"quantize": "fp8"}, encoder={"quantize": "4bit"})
    assert stage_settings.mining_config(before).encoder.quantize == "fp8"
    assert stage_settings.training_config(before).encoder == before.encoder


# Evaluations


def test_an_evaluation_changes_its_keys_and_no_others() -> None:
    before = config(
        prompt={"query": "{wrong}", "query_max_length": 128},
        encoder={"num_layers": 4},
        evaluations={"shots": {"prompt": {**SHOTS, "query_max_length": 512}}},
    )
    used = stage_settings.evaluation_config(before, "shots")
    assert used.prompt.model_dump() == {
        **before.prompt.model_dump(),
        **SHOTS,
        "query_max_length": 512,
    }
    unchanged = {"prompt": before.prompt}
    assert used.model_copy(update=unchanged) == before


def test_an_evaluation_can_set_a_key_back_to_its_default() -> None:
    before = config(
        prompt=SHOTS,
        scoring={"bootstrap": 200},
        evaluations={"plain": {"prompt": {"examples": "none"}, "scoring": {"bootstrap": 1000}}},
    )
    used = stage_settings.evaluation_config(before, "plain")
    assert stage_settings.evaluation_settings(used) == stage_settings.evaluation_settings(config())


def test_an_evaluation_can_describe_another_competition() -> None:
    table = {"kind": "table", "k": 5, "metric": "recall"}
    used = stage_settings.evaluation_config(
        config(evaluations={"table": {"competition": table}}), "table"
    )
    assert (used.competition.kind, used.competition.k) == ("table", 5)


@pytest.mark.parametrize(
    ("evaluations", "names"),
    [({}, "none"), ({"b": {}, "a": {"scoring": {"bootstrap": 200}}}, "a, b")],
)
def test_an_unknown_evaluation_is_refused_with_a_list(
    evaluations: dict[str, Any], names: str
) -> None:
    expected = rf"^no evaluation 'c' in the run file \(it has: {names}\)\. Add \[evaluations\.c\]$"
    with pytest.raises(BadConfig, match=expected):
        stage_settings.evaluation_config(config(evaluations=evaluations), "c")


# Digests


def changed_settings(**sections: dict[str, Any]) -> set[str]:
    before = stage_settings.evaluation_settings(config())
    after = stage_settings.evaluation_settings(config(**sections))
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key] != after[key]}
    has_same_digest = stage_settings.settings_digest(config()) == stage_settings.settings_digest(
        config(**sections)
    )
    assert has_same_digest == (not changed)
    return changed


@pytest.mark.parametrize(
    "change",
    [
        {"split": {"seed": 1}},
        {"prompt": {"query_max_length": 64}},
        {"encoder": {"quantize": "4bit"}},
        {"encoder": {"num_layers": 2}},
        {"scoring": {"seen_share": 0.5}},
        {"scoring": {"seed": 1}},
        {"competition": {"kind": "table"}},
    ],
    ids=str,
)
def test_what_decides_a_score_is_in_its_settings(change: dict[str, dict[str, Any]]) -> None:
    ((section, values),) = change.items()
    assert changed_settings(**change) == {f"{section}.{key}" for key in values}


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"source": "elsewhere"}},
        {"encoder": {"device": "cpu"}},
        {"encoder": {"token_budget": 512}},
        {"encoder": {"parallelism": "model"}},
        {"mining": {"seed": 1}},
        {"training": {"learning_rate": 0.5}},
        {"shipping": {"owner": "ann"}},
        {"evaluations": {"half": {"scoring": {"seen_share": 0.5}}}},
    ],
    ids=str,
)
def test_what_does_not_decide_a_score_is_not_in_its_settings(
    change: dict[str, dict[str, Any]],
) -> None:
    assert changed_settings(**change) == set()


def test_a_number_of_examples_without_examples_changes_nothing() -> None:
    assert changed_settings(prompt={"example_count": 2}) == set()
    assert changed_settings(prompt=SHOTS) == {"prompt.examples", "prompt.example_count"}


def test_the_settings_name_starts_their_digest() -> None:
    name = stage_settings.settings_name(config())
    assert len(name) == 8
    assert stage_settings.settings_digest(config()).startswith(name)


def test_settings_are_those_of_the_sections_of_an_evaluation() -> None:
    settings = stage_settings.evaluation_settings(config())
    assert {key.partition(".")[0] for key in settings} == set(SECTIONS)
    keys = {
        f"{section}.{key}"
        for section in Config.model_fields
        if hasattr(config(), section) and hasattr(getattr(config(), section), "model_dump")
        for key in getattr(config(), section).model_dump()
    }
    assert keys >= stage_settings.NEUTRAL | {stage_settings.PARALLELISM}
