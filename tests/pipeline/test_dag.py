"""Order and needs of the stages, what each refuses to start without, and what it records."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture
from pipeline.stage_states import ROUND, reason_of, refused, stale, states

from parity.pipeline import changes, dag, model_reference, registry
from parity.pipeline.dag import StageGraph, folder
from parity.pipeline.stage import stage_context
from parity.pipeline.stage_cores import follow, predict, publish, push, reconcile, submit
from parity.retrieval.models import base_model
from parity.run import ledger
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence, Kind
from parity.run.manifest import Manifest

STAGES = registry.stage_names()
THERE: dict[str, Callable[[Run], object]] = {
    "publish": publish.publish,
    "push": push.push,
    "follow": follow.follow,
    "submit": submit.submit,
}
"""Stages that need Kaggle."""
BY_HAND = {**THERE, "reconcile": reconcile.reconcile_run}
"""Stages that `RunFixture.run_stages` does not know."""


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


def test_the_command_of_an_error_fixes_it(predicted_run: RunFixture) -> None:
    predicted_run.write_config(split={"seed": 1}, mining={"seed": 1}, training={"epochs": 1})
    run, fixes = predicted_run.open(), []
    while True:
        try:
            StageGraph().require(run, "train")
            break
        except StaleInput as refusal:
            fixes.append(refusal.fix[0])
            assert len(fixes) == len(set(fixes))
            predicted_run.run_stages(fixes[-1])
    assert fixes == ["prepare", "mine"]
    assert stale(run) == ["train", "eval", "predict"]


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
    with stage_context(run, "package", inputs=changes.locks(run)) as work:
        work.out("weights").write_text("others")
    assert states(run, stages=after) == dict.fromkeys(after, "stale")
    assert reason_of(run, "rehearse") == "package of round 0 has changed since"
    assert refused(run, "submit").endswith("Run: rehearse --run small.toml")


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


@pytest.mark.parametrize(
    ("stage", "round_", "init_from", "expected"),
    [
        ("prepare", 0, "parent", ""),
        ("mine", 0, "parent", "base"),
        ("mine", 1, "parent", "round-0/best"),
        ("mine", 1, "base", "round-0/best"),
        ("train", 0, "parent", "base"),
        ("train", 2, "parent", "round-1/best"),
        ("train", 1, "base", "base"),
        ("train", 1, "round-0/epoch-1", "round-0/epoch-1"),
        ("eval", 1, "parent", "best"),
        ("predict", 1, "base", "best"),
        ("rehearse", 0, "parent", ""),
    ],
)
def test_a_stage_loads_the_model_of_its_declaration(
    small_run: RunFixture, stage: str, round_: int, init_from: str, expected: str
) -> None:
    small_run.write_config(training={"init_from": init_from})
    assert dag.default_model(small_run.open(round_=round_), stage) == expected


def test_a_model_that_is_missing_names_the_first_stage_to_run(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare")
    first = "mine of round 0 is missing. Run: mine --run small.toml"
    for stage in ("eval", "predict", "package"):
        assert refused(run, stage) == first
        assert refused(run, stage, "last") == (
            "train of round 0 is missing, so small has no last there (models: base). "
            "Run: train --run small.toml"
        )
    small_run.run_stages("mine")
    assert refused(run, "eval") == (
        "train of round 0 is missing, so small has no best there (models: base). "
        "Run: train --run small.toml"
    )
    base = StageGraph().model(run, "eval", "base")
    assert base is not None
    assert base.folder is None
    assert StageGraph().model(run, "rehearse") is None


def test_a_further_round_needs_the_adapter_of_the_one_before(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare", "mine")
    for round_ in (1, 2):
        message = refused(run.at(round_), "mine")
        assert message.startswith("train of round 0 is missing, so small has no best there ")
        assert message.endswith("Run: train --run small.toml")


def test_a_round_stands_on_its_own_and_is_named(predicted_run: RunFixture) -> None:
    run = predicted_run.open(round_=1)
    assert states(run) == {"prepare": "done"} | dict.fromkeys(ROUND[1:], "missing")
    assert refused(run, "train") == (
        "mine of round 1 is missing. Run: mine --run small.toml --round 1"
    )
    predicted_run.run_stages("mine", round_=1)
    assert states(run)["mine"] == "done"
    predicted_run.write_config(training={"seed": 1, "epochs": 1})
    run = predicted_run.open(round_=1)
    assert states(run.at(0))["train"] == "stale"
    assert states(run)["mine"] == "done"  # its adapter is still there
    predicted_run.run_stages("train")
    assert reason_of(run, "mine") == "model round-0/best has changed since"
    assert refused(run, "train") == (
        "mine of round 1 is stale (model round-0/best has changed since). "
        "Run: mine --run small.toml --round 1"
    )


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


def test_without_a_validation_set_nothing_waits_for_a_score(small_run: RunFixture) -> None:
    small_run.write_config("whole", split={"kind": "full"})
    runs = [small_run.open(name=name) for name in ("small", "whole")]
    assert [dag.applies(run, "eval") for run in runs] == [True, False]
    needed = [[stage for stage, _ in dag.needs(run, "reconcile")] for run in runs]
    assert needed == [["rehearse"], ["rehearse", "follow"]]


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


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"label": "base", "scored_round": 0}, (0, "base")),
        ({"label": "best", "scored_round": 0}, (0, "best")),
        ({"label": "best@cut", "scored_round": 1}, (1, "best@cut")),
        ({}, (1, "best")),
    ],
)
def test_the_cv_that_is_compared_is_that_of_the_model_in_the_bundle(
    small_run: RunFixture, facts: dict[str, Any], expected: tuple[int, str]
) -> None:
    run = small_run.open(round_=1)
    if facts:
        path = folder(run, "package")
        path.mkdir(parents=True)
        manifests.write(path, Manifest("package", {}, {}, {}, facts), [])
    for name in ("base", "best", "best@cut"):
        for round_ in (0, 1):
            ledger.append(run.workspace.ledger, replace(record("cv", name), round=round_))
    (cv,) = StageGraph().compared(run).values()
    assert (cv.round, cv.label) == expected


def test_a_comparison_is_stale_when_further_evidence_has_come(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    run_fixture.pretend(run, "package", "rehearse", *THERE, "reconcile")
    assert StageGraph().standing(run, "reconcile").state == "done"
    ledger.append(run.workspace.ledger, record("public"))
    assert reason_of(run, "reconcile") == "there is newer evidence of public"
    run_fixture.pretend(run, "reconcile")
    assert StageGraph().standing(run, "reconcile").state == "done"


class Planted(Exception):
    """A failure that a test plants in a stage."""


def fail(run: Run, *, begins: bool, output: str = "") -> None:
    """Mine until a failure: before anything is written, at the start of writing, or after it."""
    with stage_context(run, "mine") as work:
        work.facts["share"] = 0.5
        if begins:
            work.begin()
        if output:
            work.out(output).write_text("")
        raise Planted


def test_a_stage_that_fails_before_its_first_output_leaves_the_earlier_result(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    before = run_fixture.digests(folder(run, "mine"))
    with pytest.raises(Planted):
        fail(run, begins=False)
    assert run_fixture.digests(folder(run, "mine")) == before
    assert stale(run) == []


@pytest.mark.parametrize(("begins", "output"), [(True, ""), (False, "negatives.jsonl")])
def test_a_stage_that_fails_after_its_first_output_leaves_no_manifest(
    predicted_run: RunFixture, begins: bool, output: str
) -> None:
    run = predicted_run.open()
    with pytest.raises(Planted):
        fail(run, begins=begins, output=output)
    assert states(run) == dict.fromkeys(ROUND, "done") | {"mine": "missing", "train": "stale"}
    assert reason_of(run, "train") == "mine of round 0 is missing"


def test_a_stage_that_is_refused_leaves_the_earlier_result(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    before = run_fixture.digests(run.workspace.root)
    predicted_run.write_config(mining={"seed": 1})
    with pytest.raises(StaleInput, match=r"^mine of round 0 is stale"):
        predicted_run.run_stages("train")
    with pytest.raises(BadConfig, match=r"^small has no epoch-9 of round 0"):
        predict.predict(predicted_run.open(), "epoch-9")
    assert run_fixture.digests(run.workspace.root) == before


def test_a_stage_records_what_it_read_wrote_and_used(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    with stage_context(run, "predict", inputs={"raw": "abc"}) as work:
        work.out("rows.txt").write_text("1")
        work.facts["rows"] = 1
    manifest = StageGraph().standing(run, "predict").manifest
    prepared = StageGraph().standing(run, "prepare").manifest
    assert manifest is not None
    assert prepared is not None
    names = ("queries.jsonl", "qrels.jsonl", "corpus.jsonl", "test_queries.jsonl")
    model = model_reference.resolve("best", run)
    base = base_model.resolve(run.config.encoder.base, "", run.workspace.bases)
    assert manifest.inputs == {
        "raw": "abc",
        "model": model.digest,
        "base": base.digest(),
        **{f"{name} of prepare": prepared.outputs[name] for name in names},
    }
    assert list(manifest.outputs) == ["rows.txt"]
    assert manifest.facts == {"rows": 1, "model": "round-0/best", "evaluation": ""}
    assert set(manifest.config) == {"competition", "split", "prompt", "encoder", "overrides"}
    assert manifest.environment["packages"]["torch"]
    assert manifest.seconds >= 0


@pytest.mark.parametrize(
    ("stage", "files"),
    [
        (
            "mine",
            {
                *("queries.jsonl of prepare", "qrels.jsonl of prepare", "corpus.jsonl of prepare"),
                *("examples.jsonl of prepare", "splits/random-s0-v0.4.json of prepare"),
            },
        ),
        (
            "eval",
            {
                *("queries.jsonl of prepare", "qrels.jsonl of prepare", "corpus.jsonl of prepare"),
                "probe.jsonl of prepare",
            },
        ),
    ],
)
def test_a_stage_records_the_files_that_it_reads_and_no_others(
    predicted_run: RunFixture, stage: str, files: set[str]
) -> None:
    manifest = StageGraph().standing(predicted_run.open(), stage).manifest
    assert manifest is not None
    assert set(manifest.inputs) == {*files, "model", "base"}


def test_of_several_processes_one_writes_the_manifest(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    before = run_fixture.digests(folder(run, "mine"))
    with stage_context(run, "mine", main=False):
        assert run_fixture.digests(folder(run, "mine")) == before
    assert run_fixture.digests(folder(run, "mine")) == before
