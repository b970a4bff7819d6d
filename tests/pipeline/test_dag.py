"""Done, stale or missing: what makes a stage's work differ from run file and inputs."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.pipeline import dag, registry
from parity.pipeline.dag import StageGraph, folder
from parity.pipeline.stage import stage_context
from parity.pipeline.stage_cores import follow, publish, push, reconcile, submit
from parity.run import ledger
from parity.run.errors import StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence, Kind

STAGES = registry.stage_names()
ROUND = ("prepare", "mine", "train", "eval", "predict")
"""Stages that `predicted_run` has finished."""
THERE: dict[str, Callable[[Run], object]] = {
    "publish": publish.publish,
    "push": push.push,
    "follow": follow.follow,
    "submit": submit.submit,
}
"""Stages that need Kaggle."""
BY_HAND = {**THERE, "reconcile": reconcile.reconcile_run}
"""Stages that `RunFixture.run_stages` does not know."""


def states(run: Run, *, stages: tuple[str, ...] = ROUND) -> dict[str, str]:
    graph = StageGraph()
    return {stage: graph.standing(run, stage).state for stage in stages}


def stale(run: Run) -> list[str]:
    result = states(run)
    assert set(result.values()) <= {"done", "stale"}
    return [stage for stage, state in result.items() if state == "stale"]


def reason_of(run: Run, stage: str) -> str:
    return StageGraph().standing(run, stage).reason


def refused(run: Run, stage: str) -> str:
    """Return the error of a stage with the words of the command that fixes it."""
    with pytest.raises(StaleInput) as error:
        StageGraph().require(run, stage)
    return f"{error.value}. Run: {' '.join(error.value.fix)}"


def test_the_stages_are_in_the_order_in_which_they_run(small_run: RunFixture) -> None:
    run = small_run.open(round_=1)
    for position, stage in enumerate(STAGES):
        names = [name for name, needed in dag.needs(run, stage) if needed.round == 1]
        assert set(names) <= set(STAGES[:position])


def test_the_way_to_kaggle_comes_last_and_each_step_needs_the_one_before(
    small_run: RunFixture,
) -> None:
    run = small_run.open()
    assert STAGES[-6:] == ("rehearse", *THERE, "reconcile")
    for before, stage in pairwise(STAGES[-6:-1]):
        assert [name for name, _ in dag.needs(run, stage)] == ["package", before]


def test_before_anything_is_made_everything_is_missing(small_run: RunFixture) -> None:
    assert set(states(small_run.open(), stages=STAGES).values()) == {"missing"}


def test_what_was_made_is_done_and_what_was_not_is_missing(predicted_run: RunFixture) -> None:
    result = states(predicted_run.open(), stages=STAGES)
    assert result == dict.fromkeys(STAGES, "missing") | dict.fromkeys(ROUND, "done")


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"split": {"seed": 1}}, "prepare"),
        ({"data": {"competition": "other"}}, "prepare"),
        ({"prompt": {"query": "{question}"}}, "mine"),
        ({"encoder": {"num_layers": 1}}, "mine"),
        ({"mining": {"seed": 1}}, "mine"),
        ({"training": {"seed": 1}}, "train"),
        ({"training": {"target_modules": ["q_proj"]}}, "train"),
        ({"scoring": {"seen_share": 0.5}}, "train"),
    ],
    ids=str,
)
def test_a_changed_run_file_makes_stale_what_depends_on_it_and_all_after(
    predicted_run: RunFixture, change: dict[str, dict[str, Any]], first: str
) -> None:
    predicted_run.write_config(**change)
    run = predicted_run.open()
    assert stale(run) == list(ROUND[ROUND.index(first) :])
    ((section, values),) = change.items()
    ((key, value),) = values.items()
    assert re.fullmatch(rf"{section}\.{key} was .*, the run file now has .*", reason_of(run, first))
    assert repr(value) in reason_of(run, first)


def test_an_override_changes_the_run(predicted_run: RunFixture) -> None:
    run = predicted_run.open("training.r=8")
    assert stale(run) == ["train", "eval", "predict"]
    assert reason_of(run, "train") == "training.r was 4, the run file now has 8"
    assert refused(run, "predict") == (
        "train of round 0 is stale (training.r was 4, the run file now has 8). "
        "Run: train --run small.toml --set=training.r=8"
    )


def test_a_key_set_to_its_value_changes_nothing(predicted_run: RunFixture) -> None:
    assert stale(predicted_run.open("training.r=4", "scoring.seed=0")) == []


def test_paths_and_devices_do_not_make_a_stage_stale(predicted_run: RunFixture) -> None:
    elsewhere = predicted_run.folder / "elsewhere"
    shutil.copytree(predicted_run.source, elsewhere)
    predicted_run.write_config(
        data={"source": str(elsewhere)},
        encoder={"device": "auto", "token_budget": 64, "parallelism": "model"},
        training={"tracker": "tensorboard"},
    )
    assert stale(predicted_run.open()) == []


def test_a_changed_raw_file_makes_all_stale(predicted_run: RunFixture) -> None:
    elsewhere = predicted_run.folder / "elsewhere"
    shutil.copytree(predicted_run.source, elsewhere)
    rows = run_fixture.read_rows(elsewhere / "train.csv")
    run_fixture.write_rows(elsewhere / "train.csv", rows[:-1])
    run = predicted_run.open(f"data.source={elsewhere}")
    assert stale(run) == list(ROUND)
    assert reason_of(run, "prepare") == "train.csv has changed since"
    message = refused(run, "eval")
    assert message.startswith("prepare is stale (train.csv has changed since). Run: ")
    assert message.endswith(f"Run: prepare --run small.toml --set=data.source={elsewhere}")
    (elsewhere / "train.csv").unlink()
    assert reason_of(run, "prepare") == "train.csv has changed since"


def test_a_file_that_no_stage_reads_may_change(predicted_run: RunFixture) -> None:
    elsewhere = predicted_run.folder / "elsewhere"
    shutil.copytree(predicted_run.source, elsewhere)
    (elsewhere / "solution.csv").unlink()
    (elsewhere / "notes.txt").touch()
    assert stale(predicted_run.open(f"data.source={elsewhere}")) == []


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("prepare", "examples.jsonl"),
        ("prepare", "splits/random-s0-v0.4.json"),
        ("mine", "negatives.jsonl"),
        ("train", "epoch-1/adapter_model.safetensors"),
        ("train", "adapter/lineage.json"),
        ("eval", "scores.json"),
        ("predict", "submission.csv"),
    ],
)
def test_a_changed_or_lost_output_makes_its_stage_stale_and_those_that_read_it(
    predicted_run: RunFixture, stage: str, name: str
) -> None:
    run = predicted_run.open()
    path = folder(run, stage) / name
    reading = [stage]
    for other in ROUND:
        if set(reading) & {needed for needed, _ in dag.needs(run, other)}:
            reading.append(other)
    path.write_bytes(path.read_bytes() + b" ")
    assert stale(run) == reading
    assert reason_of(run, stage) == f"{name} is missing or was changed"
    path.unlink()
    assert stale(run) == reading
    label = dag.label_of(stage, run)
    for other in reading[1:]:
        assert reason_of(run, other).endswith(" is stale")
        assert refused(run, other) == (
            f"{label} is stale ({name} is missing or was changed). Run: {stage} --run small.toml"
        )


def test_another_file_in_the_folder_changes_nothing(predicted_run: RunFixture) -> None:
    (folder(predicted_run.open(), "train") / "note.txt").touch()
    assert stale(predicted_run.open()) == []


def test_an_input_with_new_content_is_noticed(predicted_run: RunFixture) -> None:
    predicted_run.write_config(mining={"seed": 1})
    run = predicted_run.run_stages("mine")
    assert stale(run) == ["train", "eval", "predict"]
    assert reason_of(run, "train") == "mine of round 0 has changed since"
    assert refused(run, "eval") == (
        "train of round 0 is stale (mine of round 0 has changed since). Run: train --run small.toml"
    )


def test_an_input_written_again_with_the_same_content_is_the_same(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.run_stages("prepare", "mine")
    assert stale(run) == []


def test_the_command_of_an_error_fixes_it(predicted_run: RunFixture) -> None:
    predicted_run.write_config(split={"seed": 1}, mining={"seed": 1}, training={"epochs": 1})
    run = predicted_run.open()
    for _ in STAGES:
        try:
            StageGraph().require(run, "package")
        except StaleInput as refusal:
            predicted_run.run_stages(refusal.fix[0])
    assert stale(run) == ["predict"]  # package does not read it


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_stage_whose_inputs_are_missing_refuses_and_writes_nothing(
    small_run: RunFixture, stage: str
) -> None:
    with pytest.raises(StaleInput, match=r"^prepare is missing$") as error:
        BY_HAND[stage](small_run.open()) if stage in BY_HAND else small_run.run_stages(stage)
    assert error.value.fix == ("prepare", "--run", "small.toml")
    assert error.value.exit_code == 4
    assert not small_run.data.exists()


def test_the_first_stage_that_is_missing_is_the_one_named(small_run: RunFixture) -> None:
    small_run.run_stages("prepare")
    for stage in STAGES[2:]:
        message = refused(small_run.open(), stage)
        assert message == "mine of round 0 is missing. Run: mine --run small.toml"


def test_the_way_to_kaggle_stops_at_the_first_step_that_was_not_taken(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    for before, stage in pairwise(("package", "rehearse", *THERE)):
        for later in STAGES[STAGES.index(stage) : -1]:
            message = f"{before} of round 0 is missing. Run: {before} --run small.toml"
            assert refused(run, later) == message
        run_fixture.pretend(run, before)
        assert set(StageGraph().require(run, stage)) >= {
            "package of round 0",
            f"{before} of round 0",
        }


def test_another_bundle_makes_every_step_after_it_stale(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    after = ("rehearse", *THERE, "reconcile")
    run_fixture.pretend(run, "package", *after)
    assert set(states(run, stages=STAGES).values()) == {"done"}
    with stage_context(run, "package", inputs=dag.locks(run)) as work:
        work.out("weights").write_text("others")
    assert states(run, stages=after) == dict.fromkeys(after, "stale")
    assert reason_of(run, "rehearse") == "package of round 0 has changed since"
    assert refused(run, "submit").endswith("Run: rehearse --run small.toml")


def test_a_bundle_is_of_the_locks_and_of_how_the_kernel_is_to_run(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = predicted_run.open()
    run_fixture.pretend(run, "package")
    assert states(run, stages=("train", "package")) == {"train": "done", "package": "done"}
    spread = predicted_run.open('encoder.parallelism="model"')
    assert states(spread, stages=("train", "package")) == {"train": "done", "package": "stale"}
    wheels = predicted_run.open('shipping.wheels=["faiss-cpu"]')
    assert states(wheels, stages=("train", "package")) == {"train": "done", "package": "stale"}
    monkeypatch.setattr(dag, "locks", lambda _: {"image.lock": "another"})
    assert reason_of(run, "package") == "image.lock has changed since"


@pytest.mark.parametrize("stage", THERE)
def test_a_step_on_kaggle_depends_on_no_section_of_the_run_file(
    predicted_run: RunFixture, stage: str
) -> None:
    run = predicted_run.open()
    run_fixture.pretend(run, "package", "rehearse", *THERE)
    other = predicted_run.open(
        "shipping.hours=5.0", "shipping.owner=ann", "training.tracker=tensorboard"
    )
    assert StageGraph().standing(other, stage).state == "done"
    assert dag.config_of(other, stage) == {"overrides": list(other.config.overrides)}


def test_a_further_round_needs_the_adapter_of_the_one_before(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare", "mine")
    message = refused(run.at(1), "mine")
    assert message == "train of round 0 is missing. Run: train --run small.toml"
    message = refused(run.at(2), "mine")
    assert message == "train of round 0 is missing. Run: train --run small.toml"


def test_a_round_stands_on_its_own_and_is_named(predicted_run: RunFixture) -> None:
    run = predicted_run.open(round_=1)
    assert states(run) == {"prepare": "done"} | dict.fromkeys(ROUND[1:], "missing")
    assert refused(run, "train") == (
        "mine of round 1 is missing. Run: mine --run small.toml --round 1"
    )
    predicted_run.run_stages("mine", round_=1)
    assert states(run)["mine"] == "done"
    predicted_run.write_config(training={"seed": 1})
    run = predicted_run.open(round_=1)
    assert reason_of(run, "mine") == "train of round 0 is stale"
    assert refused(run, "train").endswith("Run: train --run small.toml")


def test_rounds_are_counted_from_what_was_begun(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    assert dag.rounds(run) == 1
    predicted_run.run_stages("mine", round_=1)
    assert dag.rounds(run) == 2
    assert dag.rounds(run.at(1)) == 2


def test_each_round_goes_to_kaggle_by_itself(predicted_run: RunFixture) -> None:
    after = (*THERE, "reconcile")
    run_fixture.pretend(predicted_run.open(), "package", "rehearse", *after)
    predicted_run.run_stages("mine", round_=1)
    run = predicted_run.open(round_=1)
    assert states(run, stages=after) == dict.fromkeys(after, "missing")
    assert refused(run, "publish").endswith("Run: train --run small.toml --round 1")


def test_where_nothing_is_held_out_a_bundle_needs_no_score(small_run: RunFixture) -> None:
    small_run.write_config("whole", split={"kind": "full"})
    needed = {
        name: [stage for stage, _ in dag.needs(small_run.open(name=name), "package")]
        for name in ("small", "whole")
    }
    assert needed == {"small": ["prepare", "train", "eval"], "whole": ["prepare", "train"]}
    compared = [stage for stage, _ in dag.needs(small_run.open(name="whole"), "reconcile")]
    assert compared == ["rehearse", "follow"]


def record(kind: Kind, label: str = "test", adapter: str = "a") -> Evidence:
    return Evidence("small", 0, label, kind, "clean", {"adapter": adapter}, {})


def test_what_is_compared_is_the_newest_of_each_step_on_the_way(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    path = run.workspace.ledger

    def compared() -> list[str]:
        return list(StageGraph().compared(run))

    ledger.append(path, record("cv", "base"))
    assert compared() == ["cv"]
    assert StageGraph().compared(run)["cv"].label == "best"
    ledger.append(path, record("rehearsal"))
    ledger.append(path, record("image"))
    ledger.append(path, record("kernel"))
    assert compared() == ["cv", "rehearsal", "image"]  # a kernel that nobody followed
    run_fixture.pretend(run, "package", "rehearse", *THERE)
    assert compared() == ["cv", "rehearsal", "image", "kernel"]
    ledger.append(path, record("rehearsal", adapter="b"))
    ledger.append(path, replace(record("public"), round=1))
    assert compared() == ["cv", "rehearsal", "kernel"]
    assert StageGraph().compared(run)["rehearsal"].layers["adapter"] == "b"


def test_a_comparison_is_stale_when_further_evidence_has_come(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    run_fixture.pretend(run, "package", "rehearse", *THERE, "reconcile")
    assert StageGraph().standing(run, "reconcile").state == "done"
    ledger.append(run.workspace.ledger, record("public"))
    assert reason_of(run, "reconcile") == "there is newer evidence of public"
    run_fixture.pretend(run, "reconcile")
    assert StageGraph().standing(run, "reconcile").state == "done"


def test_a_stage_that_fails_leaves_no_manifest(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    with pytest.raises(ZeroDivisionError), stage_context(run, "mine") as work:
        work.facts["share"] = len(work.outputs) / 0
    assert states(run)["mine"] == "missing"


def test_a_stage_says_what_it_read_and_wrote(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    with stage_context(run, "predict", inputs={"raw": "abc"}) as work:
        work.out("rows.txt").write_text("1")
        work.facts["rows"] = 1
    manifest = StageGraph().standing(run, "predict").manifest
    assert manifest is not None
    upstream = {name: StageGraph().standing(run, name).manifest for name in ("prepare", "train")}
    assert manifest.inputs == {
        "raw": "abc",
        **{dag.label_of(name, run): item.digest() for name, item in upstream.items() if item},
    }
    assert list(manifest.outputs) == ["rows.txt"]
    assert manifest.facts == {"rows": 1}
    assert set(manifest.config) == {"prompt", "encoder", "overrides"}
    assert manifest.environment["packages"]["torch"]
    assert manifest.seconds >= 0


def test_of_several_processes_one_writes_the_manifest(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    before = run_fixture.digests(folder(run, "mine"))
    with stage_context(run, "mine", main=False):
        assert run_fixture.digests(folder(run, "mine")) == before
    assert run_fixture.digests(folder(run, "mine")) == before
