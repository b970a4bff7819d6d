"""The plan of this machine counts what the stages then do, and sets beside it what they took."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pipeline.run_fixture import Bench

from parity.__main__ import main
from parity.pipeline import dag, encoder_loading
from parity.pipeline.command_cores import local_plan
from parity.retrieval import tokenizer as readers
from parity.run import files
from parity.run import manifest as manifests
from parity.run.errors import StaleInput

GPU = "NVIDIA H100 80GB HBM3, 81559 MiB"


def facts(bench: Bench, stage: str) -> dict[str, Any]:
    found = manifests.read(dag.folder(bench.run(), stage))
    assert found is not None
    return found.facts


def test_what_was_counted_is_what_the_stages_compute(made: Bench) -> None:
    run = made.run()
    files.remove(run.workspace.embeddings)
    made.make("mine", "eval")
    counted = {one.name: one for one in local_plan.planned(run).lists}
    for stage in ("mine", "eval"):
        for label, noun in local_plan._LABELS.items():
            one, real = counted[f"{stage} {noun}"], facts(made, stage)["took"][label]
            assert (one.sequences, one.flat) == (real["sequences"], real["flat"])
            assert (one.packed, one.packs) == (real["tokens"], real["packs"])


def test_a_training_is_counted_batch_by_batch(made: Bench) -> None:
    run = made.run()
    one = next(one for one in local_plan.planned(run).lists if one.name == "train epoch")
    assert one.packs >= facts(made, "train")["steps"] / run.config.training.epochs
    assert one.sequences > 0
    assert one.held <= one.packed < one.flat


def test_batches_that_gradcache_runs_twice_are_planned_with_one_forward_more(made: Bench) -> None:
    run = made.run()
    one = next(one for one in local_plan.planned(run).lists if one.name == "train epoch")
    assert one.again == 0
    small = made.run("training.token_budget=256")
    texts = [[token, *range(60)] for token in range(12)]
    twice = local_plan._batch(
        readers.opened(encoder_loading.base(small), small.config.encoder), texts, 256
    )
    assert twice.packs > 1
    assert twice.again == twice.packed


def test_before_mining_the_training_is_left_out_and_the_command_named(bench: Bench) -> None:
    found = local_plan.planned(bench.make("prepare"))
    assert not [one for one in found.lists if one.kind == "train"]
    assert found.took == {}
    assert any("invoke mine --run small.toml" in note for note in found.notes)


def test_it_is_printed_in_80_columns_with_the_real_figures_beside(
    made: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.run()
    capsys.readouterr()
    told = local_plan.here(run)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert told["took"].keys() == {
        f"{stage} {noun}" for stage in ("mine", "eval") for noun in ("corpus", "queries")
    }
    steps = facts(made, "train")["steps"]
    text = " ".join(text.split())
    assert f"train took {steps} steps and " in text
    assert f"scoring included: {facts(made, 'train')['spent']['tokens']:,} tokens in " in text


def test_a_list_kept_on_disk_is_no_time_and_no_speed(made: Bench) -> None:
    run = made.make("mine", "eval")
    found = local_plan.planned(run)
    assert set(found.took.values()) == {-1.0}
    assert not [one for one in local_plan._seen(run, "") if one.where in ("mine", "eval")]


def test_speeds_come_from_this_machine_and_this_base_alone(made: Bench) -> None:
    run = made.run()
    assert {one.where for one in local_plan._seen(run, "")} == {"mine", "eval", "predict", "train"}
    assert not list(local_plan._seen(run, GPU))
    assert not list(local_plan._seen(made.run("encoder.num_layers=1"), ""))
    other = made.run("training.gradient_checkpointing=true")
    assert {one.where for one in local_plan._seen(other, "")} == {"mine", "eval", "predict"}


@pytest.mark.parametrize("speed", [None, {"gpu": "", "processes": 1, "tokens": 9_000}])
def test_stages_that_ran_the_kernel_tell_no_speed_of_this_base(made: Bench, speed: Any) -> None:
    """A rehearsal's manifest and a followed kernel's name a speed, and no encoder that had it."""
    run = made.run()
    known = manifests.read(dag.folder(run, "mine"))
    assert known is not None
    folder = run.workspace.stage("rehearse", 0)
    facts = {"speed": speed}
    manifests.write(
        folder, replace(known, stage="rehearse", config={}, facts=facts, outputs={}), []
    )
    assert {one.where for one in local_plan._seen(run, "")} == {"mine", "eval", "predict", "train"}
    files.remove(folder)


def test_mining_in_fewer_bits_tells_no_speed_of_whole_ones(made: Bench) -> None:
    run = made.run()
    folder = dag.folder(run, "mine")
    known = manifests.read(folder)
    assert known is not None
    mining = {**known.config["mining"], "quantize": "fp8"}
    manifests.write(
        folder.with_name("mine-fp8"), replace(known, config={**known.config, "mining": mining}), []
    )
    seen = list(local_plan._seen(run, ""))
    assert [one.where for one in seen].count("mine") == 2  # corpus and queries, once
    assert {
        one.where
        for one in local_plan._seen(encoder_loading.mining(made.run("mining.quantize=fp8")), "")
    } == {"mine"}
    files.remove(folder.with_name("mine-fp8"))


def test_bytes_of_a_token_are_remembered_by_device_and_base(bench: Bench) -> None:
    run = bench.run()
    local_plan.note(run, GPU, "base", 10_000.0)
    local_plan.note(run, GPU, "base", 1.0)
    local_plan.note(run, GPU, "base", 0.0)
    local_plan.note(run, GPU, "train", 20_000.0)
    assert local_plan.seen_nodes(run, GPU) == {"base": 10_000.0, "train": 20_000.0}
    assert local_plan.seen_nodes(bench.run("training.gradient_checkpointing=true"), GPU) == {
        "base": 10_000.0
    }
    assert local_plan.seen_nodes(run, "Tesla T4, 15360 MiB") == {}
    assert local_plan.seen_nodes(bench.run("encoder.quantize=4bit"), GPU) == {}


def test_a_list_that_fills_no_pack_tells_nothing_of_a_token(bench: Bench) -> None:
    run = bench.run()
    full = {"peak": 5_120_000, "tokens": 2_000, "budget": 512}
    part = {"peak": 9_999_999, "tokens": 100, "budget": 512}
    local_plan.note_lists(run, "base", {"speed": {"gpu": GPU}, "took": {"b": part}})
    assert local_plan.seen_nodes(run, GPU) == {}
    local_plan.note_lists(run, "base", {"speed": {"gpu": GPU}, "took": {"a": full, "b": part}})
    assert local_plan.seen_nodes(run, GPU) == {"base": 10_000.0}


def test_the_command_line_asks_for_this_machine_by_its_device(
    made: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["plan", "small.toml", "--device", "here", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in told["lists"]} > {"mine corpus", "train epoch"}


def test_where_no_peak_is_known_nothing_is_remembered(made: Bench) -> None:
    assert not made.run().workspace.taken.exists()


def test_without_prepared_texts_the_command_is_named(bench: Bench) -> None:
    with pytest.raises(StaleInput, match=r"run: invoke prepare --run small\.toml"):
        local_plan.planned(bench.run())
