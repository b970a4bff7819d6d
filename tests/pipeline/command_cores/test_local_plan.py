"""The local plan counts what the stages compute, and shows their real durations."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.deploy.planning.local_plan import MeasuredSpeed, TextList
from parity.pipeline import dag, encoder_loading
from parity.pipeline.command_cores import local_plan
from parity.pipeline.stage_cores import evaluate
from parity.retrieval import tokenizer as readers
from parity.run import files
from parity.run import manifest as manifests
from parity.run.config import stage_settings
from parity.run.errors import StaleInput
from parity.run.experiment import Run

GPU = "NVIDIA H100 80GB HBM3, 81559 MiB"


def facts(small_run: RunFixture, stage: str) -> dict[str, Any]:
    manifest = manifests.read(dag.folder(small_run.open(), stage))
    assert manifest is not None
    return manifest.facts


def measurements(run: Run, gpus: str) -> Iterator[MeasuredSpeed]:
    return local_plan._measurements(run.workspace, run.config, gpus)


def train_epoch(run: Run) -> TextList:
    lists = local_plan.build_local_plan(run).lists
    return next(item for item in lists if item.name == "train epoch")


def test_counts_equal_what_the_stages_compute(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    files.remove(run.workspace.embeddings)
    predicted_run.run_stages("mine", "eval")
    counted = {item.name: item for item in local_plan.build_local_plan(run).lists}
    for stage in ("mine", "eval"):
        for label, texts in local_plan._LABELS.items():
            planned, real = counted[f"{stage} {texts}"], facts(predicted_run, stage)["took"][label]
            assert (planned.sequences, planned.tokens) == (
                real["sequences"],
                real["tokens_without_sharing"],
            )
            assert (planned.packed_tokens, planned.packs) == (real["tokens"], real["packs"])


def test_a_training_is_counted_batch_by_batch(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    epoch = train_epoch(run)
    assert epoch.packs >= facts(predicted_run, "train")["steps"] / run.config.training.epochs
    assert epoch.sequences > 0
    assert epoch.peak_tokens <= epoch.packed_tokens < epoch.tokens


def test_mining_without_examples_is_counted_without_them(predicted_run: RunFixture) -> None:
    def planned_tokens(run: Run) -> dict[str, int]:
        return {item.name: item.tokens for item in local_plan.build_local_plan(run).lists}

    plain = planned_tokens(predicted_run.open())
    examples = {"examples": "question", "example_count": 1, "query_max_length": 256}
    predicted_run.write_config(prompt=examples)
    shown = planned_tokens(predicted_run.open())
    mined_without = planned_tokens(predicted_run.open("mining.examples=none"))
    assert shown["mine queries"] > plain["mine queries"]
    assert mined_without == {**shown, "mine queries": plain["mine queries"]}


def test_gradcache_batches_are_planned_with_one_more_forward(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    epoch = train_epoch(run)
    assert epoch.recomputed_tokens == 0
    small = predicted_run.open("training.token_budget=256")
    texts = [[token, *range(60)] for token in range(12)]
    base = encoder_loading.load_base(small.config.encoder, small.workspace)
    twice = local_plan._batch_list(readers.load_tokenizer(base, small.config.encoder), texts, 256)
    assert twice.packs > 1
    assert twice.recomputed_tokens == twice.packed_tokens


def test_before_mining_the_plan_prints_the_command_to_mine(
    small_run: RunFixture,
) -> None:
    plan = local_plan.build_local_plan(small_run.run_stages("prepare"))
    assert not [item for item in plan.lists if item.kind == "train"]
    assert plan.actual_seconds == {}
    assert any("mine --run small.toml" in note for note in plan.notes)


def test_the_table_has_at_most_80_columns_and_real_durations(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = predicted_run.open()
    capsys.readouterr()
    result = local_plan.print_local_plan(run)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert result["actual_seconds"].keys() == {
        f"{stage} {texts}" for stage in ("mine", "eval") for texts in ("corpus", "queries")
    }
    steps = facts(predicted_run, "train")["steps"]
    text = " ".join(text.split())
    assert f"train took {steps} steps and " in text
    assert (
        f"scoring included: {facts(predicted_run, 'train')['spent']['tokens']:,} tokens in " in text
    )


def test_a_cached_list_has_neither_time_nor_speed(predicted_run: RunFixture) -> None:
    run = predicted_run.run_stages("mine", "eval")
    plan = local_plan.build_local_plan(run)
    assert set(plan.actual_seconds.values()) == {-1.0}
    assert not [item for item in measurements(run, "") if item.source in ("mine", "eval")]


def test_speeds_come_only_from_this_machine_and_this_base(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    assert {item.source for item in measurements(run, "")} == {
        "mine",
        "eval",
        "predict",
        "train",
    }
    assert not list(measurements(run, GPU))
    assert not list(measurements(predicted_run.open("encoder.num_layers=1"), ""))
    other = predicted_run.open("training.gradient_checkpointing=true")
    assert {item.source for item in measurements(other, "")} == {
        "mine",
        "eval",
        "predict",
    }


@pytest.mark.parametrize("speed", [None, {"gpu": "", "processes": 1, "tokens": 9_000}])
def test_stages_that_ran_the_kernel_do_not_give_a_speed(
    predicted_run: RunFixture, speed: Any
) -> None:
    """The manifests of rehearse and follow have a speed without the encoder that ran."""
    run = predicted_run.open()
    manifest = manifests.read(dag.folder(run, "mine"))
    assert manifest is not None
    folder = run.workspace.stage("rehearse", 0)
    facts = {"speed": speed}
    manifests.write(
        folder, replace(manifest, stage="rehearse", config={}, facts=facts, outputs={}), []
    )
    assert {item.source for item in measurements(run, "")} == {
        "mine",
        "eval",
        "predict",
        "train",
    }
    files.remove(folder)


def test_quantized_mining_does_not_give_the_speed_of_full_precision(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    folder = dag.folder(run, "mine")
    manifest = manifests.read(folder)
    assert manifest is not None
    quantized = predicted_run.open("mining.quantize=fp8")
    config = dag.config_of(quantized, "mine")
    manifests.write(folder.with_name("mine-fp8"), replace(manifest, config=config), [])
    sources = [item.source for item in measurements(run, "")]
    assert sources.count("mine") == 2  # corpus and queries, once
    in_fp8 = replace(quantized, config=stage_settings.mining_config(quantized.config))
    assert {item.source for item in measurements(in_fp8, "")} == {"mine"}


def test_the_speed_of_the_base_model_is_not_that_of_an_adapter(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    kinds = {"mine": {"base"}, "eval": {"adapter"}, "predict": {"adapter"}, "train": {"train"}}

    def measured_kinds() -> dict[str, set[str]]:
        kinds_by_stage: dict[str, set[str]] = {}
        for item in measurements(run, ""):
            kinds_by_stage.setdefault(item.source, set()).add(item.kind)
        return kinds_by_stage

    assert measured_kinds() == kinds
    files.remove(run.workspace.embeddings)
    evaluate.evaluate(run, "base")
    assert measured_kinds() == {**kinds, "eval": {"adapter", "base"}}


def test_the_command_line_plans_this_machine_with_device_here(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["plan", "small.toml", "--device", "here", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {item["name"] for item in result["lists"]} > {"mine corpus", "train epoch"}


def test_without_prepared_texts_the_fix_is_prepare(small_run: RunFixture) -> None:
    with pytest.raises(StaleInput) as error:
        local_plan.build_local_plan(small_run.open())
    assert error.value.fix == small_run.open().command_words("prepare")
