"""Which stages a changed file makes stale: raw files, outputs, base models, adapters, bundles."""

import re
import shutil
from pathlib import Path

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture
from pipeline.stage_states import ROUND, reason_of, refused, stale, states

from parity.competition.eedi.kaggle_files import TEST, TRAIN
from parity.pipeline import dag
from parity.pipeline.dag import folder
from parity.pipeline.stage import stage_context
from parity.run import files
from parity.run.experiment import Run

ENCODING = ROUND[1:]
"""Stages that load a model."""


def own_source(fixture: RunFixture) -> Path:
    """Copy the competition's files, and name the copy in the run file."""
    source = fixture.folder / "elsewhere"
    shutil.copytree(fixture.source, source)
    fixture.write_config(data={"source": str(source)})
    return source


def own_base(fixture: RunFixture) -> Path:
    """Copy the base model, as if the finished stages had used the copy."""
    base = fixture.folder / "base"
    shutil.copytree(fixture.base, base)
    fixture.write_config(encoder={"base": str(base)})
    for stage in ENCODING:
        run_fixture.rewrite_config(fixture.open(), stage)
    return base


def append_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


# Files


def test_a_changed_raw_file_makes_all_stale(predicted_run: RunFixture) -> None:
    source = own_source(predicted_run)
    rows = run_fixture.read_rows(source / TRAIN)
    run_fixture.write_rows(source / TRAIN, rows[:-1])
    run = predicted_run.open()
    assert stale(run) == list(ROUND)
    assert reason_of(run, "prepare") == "train.csv has changed since"
    message = refused(run, "eval")
    assert message == (
        "prepare is stale (train.csv has changed since). Run: prepare --run small.toml"
    )
    (source / TRAIN).unlink()
    assert reason_of(run, "prepare") == "train.csv has changed since"


def test_a_file_that_no_stage_reads_may_change(predicted_run: RunFixture) -> None:
    source = own_source(predicted_run)
    (source / "solution.csv").unlink()
    (source / "notes.txt").touch()
    assert stale(predicted_run.open()) == []


def test_another_test_set_leaves_mining_training_and_scores_current(
    predicted_run: RunFixture,
) -> None:
    source = own_source(predicted_run)
    rows = run_fixture.read_rows(source / TEST)
    changed = [{**rows[0], "QuestionText": "Another question?"}, *rows[1:]]
    run_fixture.write_rows(source / TEST, changed)
    run = predicted_run.open()
    assert stale(run) == list(ROUND)
    predicted_run.run_stages("prepare")
    assert stale(run) == ["predict"]
    assert reason_of(run, "predict") == "test_queries.jsonl of prepare has changed since"


def test_a_changed_label_makes_stale_every_stage_that_reads_labels(
    predicted_run: RunFixture,
) -> None:
    source = own_source(predicted_run)
    rows = run_fixture.read_rows(source / TRAIN)
    cells = [(row, f"Misconception{answer}Id") for row in rows for answer in "ABCD"]
    labeled = [(row, cell) for row, cell in cells if row[cell]]
    row, cell = labeled[0]
    row[cell] = next(other[name] for other, name in labeled if other[name] != row[cell])
    run_fixture.write_rows(source / TRAIN, rows)
    run = predicted_run.open()
    assert stale(run) == list(ROUND)
    assert reason_of(run, "prepare") == "train.csv has changed since"
    predicted_run.run_stages("prepare")
    assert stale(run) == list(ENCODING)
    for stage in ("eval", "predict"):
        assert reason_of(run, stage) == "qrels.jsonl of prepare has changed since"
    for stage in ("mine", "train"):
        assert re.fullmatch(
            r"(examples|qrels)\.jsonl of prepare has changed since", reason_of(run, stage)
        )


@pytest.mark.parametrize(
    ("stage", "name", "reading"),
    [
        ("prepare", "examples.jsonl", ENCODING),
        ("prepare", "splits/random-s0-v0.4.json", ENCODING),
        ("mine", "negatives.jsonl", ("train",)),
        ("train", "epoch-1/adapter_model.safetensors", ()),
        ("train", "adapter/lineage.json", ("eval", "predict")),
        ("eval", "scores.json", ()),
        ("predict", "submission.csv", ()),
    ],
)
def test_a_changed_or_lost_output_makes_its_stage_stale_and_those_that_read_it(
    predicted_run: RunFixture, stage: str, name: str, reading: tuple[str, ...]
) -> None:
    run = predicted_run.open()
    path = folder(run, stage) / name
    append_byte(path)
    assert stale(run) == [stage, *reading]
    problem = f"{name} is missing or was changed"
    assert reason_of(run, stage) == problem
    path.unlink()
    assert stale(run) == [stage, *reading]
    label = dag.label_of(stage, run)
    for other in reading:
        assert refused(run, other) == f"{label} is stale ({problem}). Run: {stage} --run small.toml"


def test_another_file_in_the_folder_changes_nothing(predicted_run: RunFixture) -> None:
    (folder(predicted_run.open(), "train") / "note.txt").touch()
    assert stale(predicted_run.open()) == []


def test_other_negatives_make_the_training_stale_and_not_its_scores(
    predicted_run: RunFixture,
) -> None:
    predicted_run.write_config(mining={"seed": 1})
    run = predicted_run.run_stages("mine")
    assert stale(run) == ["train"]
    assert reason_of(run, "train") == "negatives.jsonl of mine of round 0 has changed since"


def test_an_input_written_again_with_the_same_content_is_the_same(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.run_stages("prepare", "mine")
    assert stale(run) == []


# Models


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_changed_base_model_makes_stale_every_stage_that_loaded_it(
    predicted_run: RunFixture, name: str
) -> None:
    base = own_base(predicted_run)
    run = predicted_run.open()
    (base / "README.md").write_text("no part of the model")
    assert stale(run) == []
    append_byte(base / name)
    assert stale(run) == list(ENCODING)
    for stage in ("mine", "eval", "predict"):
        assert reason_of(run, stage) == "the base model has changed since"
    assert reason_of(run, "train") == "mine of round 0 is stale"


def test_a_base_model_that_is_missing_here_does_not_make_its_stages_stale(
    predicted_run: RunFixture,
) -> None:
    base = own_base(predicted_run)
    files.remove(base / "config.json")
    assert stale(predicted_run.open()) == []


def test_a_changed_adapter_makes_stale_the_stages_that_loaded_it(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    adapter = run.workspace.adapter(0)
    append_byte(adapter / "adapter_model.safetensors")
    assert stale(run) == ["train", "eval", "predict"]
    expected = (
        "train of round 0 is stale (adapter/adapter_model.safetensors is missing or was changed)"
    )
    for stage in ("eval", "predict"):
        assert reason_of(run, stage) == expected
        assert refused(run, stage) == f"{expected}. Run: train --run small.toml"
    run_fixture.seal(folder(run, "train"))
    assert stale(run) == ["eval", "predict"]
    assert reason_of(run, "eval") == "model round-0/best has changed since"


def test_a_stage_depends_on_the_model_that_it_was_loading(predicted_run: RunFixture) -> None:
    run = predicted_run.open(round_=1)
    loading = ((run, "mine"), (run.at(0), "predict"))
    for at_round, stage in loading:
        with stage_context(at_round, stage, model="round-0/epoch-1"):
            pass
    train = folder(run.at(0), "train")
    for name in ("epoch-2", "adapter"):
        append_byte(train / name / "adapter_config.json")
    assert [reason_of(*item) for item in loading] == ["", ""]
    append_byte(train / "epoch-1" / "adapter_config.json")
    problem = "epoch-1/adapter_config.json is missing or was changed"
    assert [reason_of(*item) for item in loading] == [f"train of round 0 is stale ({problem})"] * 2


# Bundles


def packaged(fixture: RunFixture) -> Run:
    run_fixture.pretend(fixture.open(), "package")
    run = fixture.open()
    assert states(run, stages=("train", "package")) == {"train": "done", "package": "done"}
    return run


def test_a_bundle_depends_on_locks_and_on_how_the_kernel_runs(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = packaged(predicted_run)
    for override in ('encoder.parallelism="model"', 'shipping.wheels=["faiss-cpu"]'):
        changed = predicted_run.open(override)
        assert states(changed, stages=("train", "package")) == {"train": "done", "package": "stale"}
    monkeypatch.setattr("parity.pipeline.changes.locks", lambda _: {"image.lock": "another"})
    assert reason_of(run, "package") == "image.lock has changed since"


def test_a_bundle_is_stale_when_its_model_has_another_score(predicted_run: RunFixture) -> None:
    run = packaged(predicted_run)
    scored = folder(run, "eval")
    predicted_run.run_stages("eval")
    assert stale(run, stages=("package",)) == []  # the same score
    append_byte(scored / "scores.json")
    assert reason_of(run, "package") == "the evaluation of best is stale"
    run_fixture.seal(scored)
    assert reason_of(run, "package") == "the evaluation of best has changed since"
    files.remove(scored)
    assert reason_of(run, "package") == "the evaluation of best is missing"
