"""Done, stale or missing: what makes a stage's work no longer what run file and inputs say."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.pipeline import dag
from parity.pipeline.dag import STAGES, StageGraph, folder
from parity.pipeline.stage import stage_context
from parity.pipeline.stage_cores import follow, publish, push, reconcile, submit
from parity.run import ledger
from parity.run.errors import ParityError, StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence, Kind

ROUND = ("prepare", "mine", "train", "eval", "predict")
"""What `made` has done."""
THERE: dict[str, Callable[[Run], object]] = {
    "publish": publish.publish,
    "push": push.push,
    "follow": follow.follow,
    "submit": submit.submit,
}
"""Stages that need Kaggle."""
BY_HAND = {**THERE, "reconcile": reconcile.latest}
"""Stages that the bench does not make."""


def states(run: Run, *, stages: tuple[str, ...] = ROUND) -> dict[str, str]:
    survey = StageGraph()
    return {stage: survey.standing(run, stage).state for stage in stages}


def stale(run: Run) -> list[str]:
    found = states(run)
    assert set(found.values()) <= {"done", "stale"}
    return [stage for stage, state in found.items() if state == "stale"]


def why(run: Run, stage: str) -> str:
    return StageGraph().standing(run, stage).why


def refused(run: Run, stage: str) -> str:
    with pytest.raises(StaleInput) as caught:
        StageGraph().require(run, stage)
    return str(caught.value)


def test_the_stages_stand_in_the_order_in_which_they_are_made(bench: Bench) -> None:
    run = bench.run(round_=1)
    for place, stage in enumerate(STAGES):
        own = [name for name, where in dag.needs(run, stage) if where.round == 1]
        assert set(own) <= set(STAGES[:place])


def test_the_way_to_kaggle_comes_last_and_each_step_needs_the_one_before(bench: Bench) -> None:
    run = bench.run()
    assert STAGES[-6:] == ("rehearse", *THERE, "reconcile")
    for before, stage in pairwise(STAGES[-6:-1]):
        assert [name for name, _ in dag.needs(run, stage)] == ["package", before]


def test_before_anything_is_made_everything_is_missing(bench: Bench) -> None:
    assert set(states(bench.run(), stages=STAGES).values()) == {"missing"}


def test_what_was_made_is_done_and_what_was_not_is_missing(made: Bench) -> None:
    found = states(made.run(), stages=STAGES)
    assert found == dict.fromkeys(STAGES, "missing") | dict.fromkeys(ROUND, "done")


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
    made: Bench, change: dict[str, dict[str, Any]], first: str
) -> None:
    made.write(**change)
    run = made.run()
    assert stale(run) == list(ROUND[ROUND.index(first) :])
    ((section, values),) = change.items()
    ((key, value),) = values.items()
    assert re.fullmatch(rf"{section}\.{key} was .*, the run now says .*", why(run, first))
    assert repr(value) in why(run, first)


def test_an_override_is_a_change_of_the_run(made: Bench) -> None:
    run = made.run("training.r=8")
    assert stale(run) == ["train", "eval", "predict"]
    assert why(run, "train") == "training.r was 4, the run now says 8"
    assert refused(run, "predict") == (
        "train of round 0 is stale (training.r was 4, the run now says 8); "
        "run: invoke train --run small.toml --set=training.r=8"
    )


def test_a_key_given_the_value_that_it_has_is_no_change(made: Bench) -> None:
    assert stale(made.run("training.r=4", "scoring.seed=0")) == []


def test_where_a_run_reads_and_computes_is_no_part_of_what_it_is(made: Bench) -> None:
    elsewhere = made.folder / "elsewhere"
    shutil.copytree(made.source, elsewhere)
    made.write(
        data={"source": str(elsewhere)},
        encoder={"device": "auto", "token_budget": 64, "spread": "model"},
        training={"tracker": "tensorboard"},
    )
    assert stale(made.run()) == []


def test_a_changed_raw_file_makes_all_stale(made: Bench) -> None:
    elsewhere = made.folder / "elsewhere"
    shutil.copytree(made.source, elsewhere)
    rows = benches.read_rows(elsewhere / "train.csv")
    benches.write_rows(elsewhere / "train.csv", rows[:-1])
    run = made.run(f"data.source={elsewhere}")
    assert stale(run) == list(ROUND)
    assert why(run, "prepare") == "train.csv is not the file it was made from"
    told = refused(run, "eval")
    assert told.startswith("prepare is stale (train.csv is not the file it was made from); run: ")
    assert told.endswith(f"invoke prepare --run small.toml --set=data.source={elsewhere}")
    (elsewhere / "train.csv").unlink()
    assert why(run, "prepare") == "train.csv is not the file it was made from"


def test_a_file_that_no_stage_reads_may_change(made: Bench) -> None:
    elsewhere = made.folder / "elsewhere"
    shutil.copytree(made.source, elsewhere)
    (elsewhere / "solution.csv").unlink()
    (elsewhere / "notes.txt").touch()
    assert stale(made.run(f"data.source={elsewhere}")) == []


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
    made: Bench, stage: str, name: str
) -> None:
    run = made.run()
    path = folder(run, stage) / name
    reading = [stage]
    for other in ROUND:
        if set(reading) & {needed for needed, _ in dag.needs(run, other)}:
            reading.append(other)
    path.write_bytes(path.read_bytes() + b" ")
    assert stale(run) == reading
    assert why(run, stage) == f"{name} is missing or was changed"
    path.unlink()
    assert stale(run) == reading
    label = dag.label_of(stage, run)
    for other in reading[1:]:
        assert why(run, other).endswith(" is stale")
        assert refused(run, other) == (
            f"{label} is stale ({name} is missing or was changed); "
            f"run: invoke {stage} --run small.toml"
        )


def test_a_file_beside_the_outputs_changes_nothing(made: Bench) -> None:
    (folder(made.run(), "train") / "note.txt").touch()
    assert stale(made.run()) == []


def test_an_input_made_anew_with_other_content_is_noticed(made: Bench) -> None:
    made.write(mining={"seed": 1})
    run = made.make("mine")
    assert stale(run) == ["train", "eval", "predict"]
    assert why(run, "train") == "mine of round 0 was made anew since"
    assert refused(run, "eval") == (
        "train of round 0 is stale (mine of round 0 was made anew since); "
        "run: invoke train --run small.toml"
    )


def test_an_input_made_anew_with_the_same_content_is_the_same(made: Bench) -> None:
    run = made.make("prepare", "mine")
    assert stale(run) == []


def test_the_command_that_a_refusal_names_mends_it(made: Bench) -> None:
    made.write(split={"seed": 1}, mining={"seed": 1}, training={"epochs": 1})
    run = made.run()
    for _ in STAGES:
        try:
            StageGraph().require(run, "package")
        except StaleInput as refusal:
            stage = re.search(r"run: invoke (\w+) --run small\.toml$", str(refusal))
            assert stage is not None
            made.make(stage[1])
    assert stale(run) == ["predict"]  # package does not read it


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_stage_whose_inputs_are_missing_refuses_and_writes_nothing(
    bench: Bench, stage: str
) -> None:
    with pytest.raises(StaleInput) as caught:
        BY_HAND[stage](bench.run()) if stage in BY_HAND else bench.make(stage)
    assert str(caught.value) == "prepare has not been made; run: invoke prepare --run small.toml"
    assert caught.value.exit_code == 4
    assert not bench.data.exists()


def test_the_first_stage_that_is_missing_is_the_one_named(bench: Bench) -> None:
    bench.make("prepare")
    for stage in STAGES[2:]:
        told = refused(bench.run(), stage)
        assert told == "mine of round 0 has not been made; run: invoke mine --run small.toml"


def test_the_way_to_kaggle_stops_at_the_first_step_that_was_not_taken(made: Bench) -> None:
    run = made.run()
    for before, stage in pairwise(("package", "rehearse", *THERE)):
        for later in STAGES[STAGES.index(stage) : -1]:
            told = f"{before} of round 0 has not been made; run: invoke {before} --run small.toml"
            assert refused(run, later) == told
        benches.pretend(run, before)
        assert set(StageGraph().require(run, stage)) >= {
            "package of round 0",
            f"{before} of round 0",
        }


def test_another_bundle_makes_every_step_after_it_stale(made: Bench) -> None:
    run = made.run()
    after = ("rehearse", *THERE, "reconcile")
    benches.pretend(run, "package", *after)
    assert set(states(run, stages=STAGES).values()) == {"done"}
    with stage_context(run, "package", inputs=dag.locks(run)) as work:
        work.out("weights").write_text("others")
    assert states(run, stages=after) == dict.fromkeys(after, "stale")
    assert why(run, "rehearse") == "package of round 0 was made anew since"
    assert refused(run, "submit").endswith("run: invoke rehearse --run small.toml")


def test_a_bundle_is_of_the_locks_and_of_how_the_kernel_is_to_run(
    made: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made.run()
    benches.pretend(run, "package")
    assert states(run, stages=("train", "package")) == {"train": "done", "package": "done"}
    spread = made.run('encoder.parallelism="model"')
    assert states(spread, stages=("train", "package")) == {"train": "done", "package": "stale"}
    more = made.run('shipping.wheels=["faiss-cpu"]')
    assert states(more, stages=("train", "package")) == {"train": "done", "package": "stale"}
    monkeypatch.setattr(dag, "locks", lambda _: {"image.lock": "another"})
    assert why(run, "package") == "image.lock was made anew since"


@pytest.mark.parametrize("stage", THERE)
def test_a_step_on_kaggle_depends_on_no_section_of_the_run_file(made: Bench, stage: str) -> None:
    run = made.run()
    benches.pretend(run, "package", "rehearse", *THERE)
    other = made.run("shipping.hours=5.0", "shipping.owner=ann", "training.tracker=tensorboard")
    assert StageGraph().standing(other, stage).state == "done"
    assert dag.config_of(other, stage) == {"overrides": list(other.config.overrides)}


def test_a_further_round_needs_the_adapter_of_the_one_before(bench: Bench) -> None:
    run = bench.make("prepare", "mine")
    told = refused(run.at(1), "mine")
    assert told == "train of round 0 has not been made; run: invoke train --run small.toml"
    told = refused(run.at(2), "mine")
    assert told == "train of round 0 has not been made; run: invoke train --run small.toml"


def test_a_round_stands_on_its_own_and_is_named(made: Bench) -> None:
    run = made.run(round_=1)
    assert states(run) == {"prepare": "done"} | dict.fromkeys(ROUND[1:], "missing")
    assert refused(run, "train") == (
        "mine of round 1 has not been made; run: invoke mine --run small.toml --round 1"
    )
    made.make("mine", round_=1)
    assert states(run)["mine"] == "done"
    made.write(training={"seed": 1})
    run = made.run(round_=1)
    assert why(run, "mine") == "train of round 0 is stale"
    assert refused(run, "train").endswith("run: invoke train --run small.toml")


def test_rounds_are_counted_from_what_was_begun(made: Bench) -> None:
    run = made.run()
    assert dag.rounds(run) == 1
    made.make("mine", round_=1)
    assert dag.rounds(run) == 2
    assert dag.rounds(run.at(1)) == 2


def test_each_round_goes_to_kaggle_by_itself(made: Bench) -> None:
    after = (*THERE, "reconcile")
    benches.pretend(made.run(), "package", "rehearse", *after)
    made.make("mine", round_=1)
    run = made.run(round_=1)
    assert states(run, stages=after) == dict.fromkeys(after, "missing")
    assert refused(run, "publish").endswith("run: invoke train --run small.toml --round 1")


def test_where_nothing_is_held_out_a_bundle_needs_no_score(bench: Bench) -> None:
    bench.write("whole", split={"kind": "full"})
    needed = {
        name: [stage for stage, _ in dag.needs(bench.run(name=name), "package")]
        for name in ("small", "whole")
    }
    assert needed == {"small": ["prepare", "train", "eval"], "whole": ["prepare", "train"]}
    compared = [stage for stage, _ in dag.needs(bench.run(name="whole"), "reconcile")]
    assert compared == ["rehearse", "follow"]


def record(kind: Kind, label: str = "test", adapter: str = "a") -> Evidence:
    return Evidence("small", 0, label, kind, "clean", {"adapter": adapter}, {})


def test_what_is_compared_is_the_newest_of_each_step_on_the_way(made: Bench) -> None:
    run = made.run()
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
    benches.pretend(run, "package", "rehearse", *THERE)
    assert compared() == ["cv", "rehearsal", "image", "kernel"]
    ledger.append(path, record("rehearsal", adapter="b"))
    ledger.append(path, replace(record("public"), round=1))
    assert compared() == ["cv", "rehearsal", "kernel"]
    assert StageGraph().compared(run)["rehearsal"].layers["adapter"] == "b"


def test_a_comparison_is_stale_when_further_evidence_has_come(made: Bench) -> None:
    run = made.run()
    benches.pretend(run, "package", "rehearse", *THERE, "reconcile")
    assert StageGraph().standing(run, "reconcile").state == "done"
    ledger.append(run.workspace.ledger, record("public"))
    assert why(run, "reconcile") == "evidence of public has come since"
    benches.pretend(run, "reconcile")
    assert StageGraph().standing(run, "reconcile").state == "done"


def test_a_stage_that_fails_leaves_no_manifest(made: Bench) -> None:
    run = made.run()
    with pytest.raises(ZeroDivisionError), stage_context(run, "mine") as work:
        work.facts["share"] = len(work.outputs) / 0
    assert states(run)["mine"] == "missing"


def test_a_stage_says_what_it_read_and_wrote(made: Bench) -> None:
    run = made.run()
    with stage_context(run, "predict", inputs={"raw": "abc"}) as work:
        work.out("one.txt").write_text("1")
        work.facts["rows"] = 1
    found = StageGraph().standing(run, "predict").manifest
    assert found is not None
    upstream = {name: StageGraph().standing(run, name).manifest for name in ("prepare", "train")}
    assert found.inputs == {
        "raw": "abc",
        **{dag.label_of(name, run): one.digest() for name, one in upstream.items() if one},
    }
    assert list(found.outputs) == ["one.txt"]
    assert found.facts == {"rows": 1}
    assert set(found.config) == {"prompt", "encoder", "overrides"}
    assert found.environment["packages"]["torch"]
    assert found.seconds >= 0


def test_of_several_processes_one_writes_the_manifest(made: Bench) -> None:
    run = made.run()
    before = benches.digests(folder(run, "mine"))
    with stage_context(run, "mine", main=False):
        assert benches.digests(folder(run, "mine")) == before
    assert benches.digests(folder(run, "mine")) == before


def test_a_command_can_be_pasted_into_a_shell(bench: Bench) -> None:
    shutil.copy("small.toml", "a run.toml")
    run = bench.run("prompt.query={question} {wrong}", name="a run", round_=2)
    assert run.command("train", "--flag") == (
        "invoke train --run 'a run.toml' '--set=prompt.query={question} {wrong}' --round 2 --flag"
    )
    assert run.command("prepare").endswith("{wrong}'")


def test_a_round_below_zero_is_refused(bench: Bench) -> None:
    with pytest.raises(ParityError, match="round -1 does not exist"):
        bench.run(round_=-1)


def test_runs_lie_under_data_unless_another_folder_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.run().workspace.root == bench.data / "runs" / "small"
    for unset in ("", None):
        monkeypatch.delenv("PARITY_DATA") if unset is None else monkeypatch.setenv(
            "PARITY_DATA", ""
        )
        assert bench.run().workspace.root == Path("data/runs/small")
