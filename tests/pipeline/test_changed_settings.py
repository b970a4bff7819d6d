"""Which stages a changed setting makes stale: those that used it or read what it decides."""

import re
import shutil
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture
from pipeline.stage_states import ROUND, reason_of, refused, stale, states

from parity.competition.synthetic import tiny_table
from parity.pipeline import dag, model_reference
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.run.experiment import Run

ENCODING = ROUND[1:]
"""Stages that load a model."""
EXAMPLES = {"examples": "question", "example_count": 1}
TABLE = {
    "kind": "table",
    "queries": "tickets.csv",
    "test": "new_tickets.csv",
    "corpus": "articles.csv",
    "labels": "links.csv",
    "query_id": "ticket",
    "passage_id": "article",
    "label": "articles",
    "label_separator": ";",
    "query_texts": ["message", "subject"],
    "passage_texts": ["headline", "advice"],
}
"""Section `[competition]` of the table competition that ships."""


@pytest.mark.parametrize(
    ("change", "first", "reading"),
    [
        ({"split": {"seed": 1}}, "prepare", ENCODING),
        ({"data": {"competition": "other"}}, "prepare", ENCODING),
        ({"prompt": {"query": "{question}"}}, "mine", ("train", "eval", "predict")),
        ({"encoder": {"num_layers": 1}}, "mine", ("train", "eval", "predict")),
        ({"mining": {"seed": 1}}, "mine", ("train",)),
        ({"training": {"seed": 1}}, "train", ()),
        ({"training": {"target_modules": ["q_proj"]}}, "train", ()),
        ({"scoring": {"seen_share": 0.5}}, "eval", ()),
        ({"scoring": {"bootstrap": 200}}, "eval", ()),
    ],
    ids=str,
)
def test_a_changed_setting_makes_stale_the_stages_that_use_it(
    predicted_run: RunFixture, change: dict[str, dict[str, Any]], first: str, reading: tuple[str]
) -> None:
    predicted_run.write_config(**change)
    run = predicted_run.open()
    assert stale(run) == [first, *reading]
    ((section, values),) = change.items()
    ((key, value),) = values.items()
    assert re.fullmatch(rf"{section}\.{key} was .*, the run file now has .*", reason_of(run, first))
    assert repr(value) in reason_of(run, first)


def test_an_override_changes_the_run(predicted_run: RunFixture) -> None:
    run = predicted_run.open("mining.count=5")
    assert stale(run) == ["mine", "train"]
    assert reason_of(run, "mine") == "mining.count was 6, the run file now has 5"
    assert reason_of(run, "train") == "mine of round 0 is stale"
    assert refused(run, "train") == (
        "mine of round 0 is stale (mining.count was 6, the run file now has 5). "
        "Run: mine --run small.toml --set=mining.count=5"
    )


@pytest.mark.parametrize(
    "sets",
    [
        ("training.r=4", "scoring.seed=0"),
        ("mining.examples=none", "training.examples=none", "mining.quantize=none"),
        ("data.license=MIT", "shipping.hours=5.0", "shipping.owner=ann"),
        ("encoder.parallelism=model",),
    ],
)
def test_a_setting_with_the_same_value_or_without_effect_changes_nothing(
    predicted_run: RunFixture, sets: tuple[str, ...]
) -> None:
    assert stale(predicted_run.open(*sets)) == []


def test_paths_devices_and_trackers_change_nothing(predicted_run: RunFixture) -> None:
    source = predicted_run.folder / "elsewhere"
    shutil.copytree(predicted_run.source, source)
    predicted_run.write_config(
        data={"source": str(source)},
        encoder={"device": "auto", "token_budget": 64},
        training={"tracker": "tensorboard", "checkpoint_every": 7},
    )
    assert stale(predicted_run.open()) == []


@pytest.mark.parametrize("neutral", ["encoder.parallelism=model", "encoder.device=cpu"])
def test_where_a_model_runs_does_not_name_another_evaluation(
    small_run: RunFixture, neutral: str
) -> None:
    shorter = "prompt.query_max_length=64"
    assert small_run.open(neutral).evaluation == ""
    assert small_run.open(shorter, neutral).evaluation == small_run.open(shorter).evaluation != ""


def test_training_that_was_not_repeated_leaves_the_scores_of_its_adapter_current(
    predicted_run: RunFixture,
) -> None:
    predicted_run.write_config(training={"seed": 1, "epochs": 1})
    run = predicted_run.open()
    assert stale(run) == ["train"]
    StageGraph().require(run, "predict")
    predicted_run.run_stages("train")
    assert stale(run) == ["eval", "predict"]
    for stage in ("eval", "predict"):
        assert reason_of(run, stage) == "model round-0/best has changed since"


@pytest.mark.parametrize(
    ("section", "first", "reading"), [("mining", "mine", ("train",)), ("training", "train", ())]
)
def test_examples_of_mining_or_training_make_stale_the_stage_that_uses_them(
    predicted_run: RunFixture, section: str, first: str, reading: tuple[str]
) -> None:
    predicted_run.write_config(prompt=EXAMPLES)
    for stage in ENCODING:
        run_fixture.rewrite_config(predicted_run.open(), stage)
    assert stale(predicted_run.open(f"{section}.examples=question")) == []  # as in [prompt]
    run = predicted_run.open(f"{section}.examples=none")
    assert stale(run) == [first, *reading]
    assert reason_of(run, first) == ("prompt.examples was 'question', the run file now has 'none'")


def test_quantization_of_mining_makes_stale_what_mining_decides(predicted_run: RunFixture) -> None:
    run = predicted_run.open("mining.quantize=4bit")
    assert stale(run) == ["mine", "train"]
    assert reason_of(run, "mine") == "encoder.quantize was 'none', the run file now has '4bit'"


@pytest.mark.parametrize(
    "override",
    [
        'prompt.query="{question}"',
        "prompt.query_max_length=64",
        "prompt.passage_max_length=32",
        "encoder.precision=bf16",
        "encoder.quantize=4bit",
        "split.seed=1",
        "scoring.seen_share=0.5",
    ],
)
@pytest.mark.parametrize("form", ["overridden", "named"])
def test_settings_of_one_evaluation_leave_every_other_stage_current(
    predicted_run: RunFixture, override: str, form: str
) -> None:
    key, _, _ = override.partition("=")
    section, _, name = key.partition(".")
    evaluated = predicted_run.open(override)
    if form == "named":
        value = evaluated.config.model_dump(mode="json")[section][name]
        predicted_run.write_config(**{f"evaluations.other.{section}": {name: value}})
        evaluated = predicted_run.open().evaluated_as("other")
    assert states(evaluated, stages=("eval",)) == {"eval": "missing"}
    with stage_context(evaluated, "eval") as work:
        work.out("scores.json").write_text("{}")
    assert states(evaluated, stages=("eval",)) == {"eval": "done"}
    assert states(predicted_run.open()) == dict.fromkeys(ROUND, "done")


def test_a_named_evaluation_is_stale_when_its_settings_change(predicted_run: RunFixture) -> None:
    for seed, state in ((1, "missing"), (1, "done"), (2, "stale")):
        predicted_run.write_config(**{"evaluations.other.scoring": {"seed": seed}})
        run = predicted_run.open().evaluated_as("other")
        assert states(run, stages=("eval",)) == {"eval": state}
        if state == "missing":
            with stage_context(run, "eval"):
                pass
    assert reason_of(run, "eval") == "scoring.seed was 1, the run file now has 2"


def test_a_prediction_under_a_named_evaluation_is_current_while_its_settings_stay(
    predicted_run: RunFixture,
) -> None:
    section = "evaluations.short.prompt"
    predicted_run.write_config(**{section: {"query_max_length": 64}})
    with stage_context(predicted_run.open().evaluated_as("short"), "predict"):
        pass
    assert stale(predicted_run.open()) == []
    predicted_run.write_config(**{section: {"query_max_length": 48}})
    reason = "prompt.query_max_length was 64, the run file now has 48"
    assert reason_of(predicted_run.open(), "predict") == reason
    predicted_run.write_config()  # without the evaluation
    reason = "prompt.query_max_length was 64, the run file now has 96"
    assert reason_of(predicted_run.open(), "predict") == reason


def table_run(fixture: RunFixture, **changes: Any) -> Run:
    """Open a run of the table competition that ships, with changes of its section."""
    folder = fixture.folder / "tickets"
    tiny_table.main([str(folder)])
    sections = {"data": {"source": str(folder)}, "prompt": {"query": "{message}"}}
    fixture.write_config("table", **sections, competition={**TABLE, **changes})
    return fixture.open(name="table")


def test_metric_and_depth_of_a_table_competition_leave_the_prepared_files_current(
    predicted_run: RunFixture,
) -> None:
    run = table_run(predicted_run)
    predicted_run.run_stages("prepare", name="table")
    base = model_reference.resolve("base", run)
    scored = dag.evaluation_folder(run, base)
    for stage, path in (("mine", None), ("predict", None), ("eval", scored)):
        with stage_context(run, stage, model="base", folder=path):
            pass
    for name, value in (("k", 3), ("metric", "recall"), ("beta", 2.0), ("count", 2)):
        changed = table_run(predicted_run, **{name: value})
        assert stale(changed, stages=("prepare", "mine", "predict")) == ["predict"], name
        reason = f"competition.{name} was {getattr(run.config.competition, name)!r}, the run file "
        assert reason_of(changed, "predict").startswith(reason)
        assert StageGraph().evaluation(changed, base).reason.startswith(reason)
    changed = table_run(predicted_run, label_separator=",")
    assert reason_of(changed, "prepare").startswith("competition.label_separator was ';'")


def test_another_format_of_the_submission_makes_the_prediction_stale(
    predicted_run: RunFixture,
) -> None:
    run = table_run(predicted_run)
    predicted_run.run_stages("prepare", name="table")
    with stage_context(run, "predict", model="base"):
        pass
    run = table_run(predicted_run, submission_format="rows")
    predicted_run.run_stages("prepare", name="table")
    assert stale(run, stages=("prepare", "predict")) == ["predict"]
    reason = "competition.submission_format was 'space', the run file now has 'rows'"
    assert reason_of(run, "predict") == reason


@pytest.mark.parametrize("stage", ["eval", "predict"])
def test_an_adapter_of_a_stale_training_is_used_with_a_note(
    predicted_run: RunFixture, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted_run.run_stages(stage)
    assert "note: " not in capsys.readouterr().err
    predicted_run.write_config(training={"seed": 1})
    predicted_run.run_stages(stage)
    note = " ".join(capsys.readouterr().err.split())
    assert note.endswith(
        "note: train of round 0 is stale (training.seed was 0, the run file now has 1); this uses "
        "best as it was trained"
    )


def test_settings_to_score_under_give_no_note(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage_context(predicted_run.open("prompt.query_max_length=80"), "predict") as work:
        work.out("rows.txt").write_text("1")
    assert "note: " not in capsys.readouterr().err
