"""What a training leaves: epochs that are never overwritten, their lineage, the best one chosen."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench
from safetensors.torch import load_file

from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, dataset, epochs
from parity.pipeline.epochs import SavedEpoch
from parity.pipeline.stage_cores.mine import mine
from parity.pipeline.stage_cores.train import train
from parity.retrieval.models import adapter as adapters
from parity.run import files
from parity.run.errors import BadConfig, Mismatch, StaleInput
from parity.run.experiment import Run


def place(run: Run) -> Path:
    return dag.folder(run, "train")


def facts(run: Run) -> dict[str, Any]:
    found = dag.StageGraph().standing(run, "train")
    assert found.state == "done"
    assert found.manifest is not None
    return found.manifest.facts


def epoch(run: Run, number: int) -> SavedEpoch:
    found = epochs.read(place(run), number)
    assert found is not None
    return found


def scores(run: Run, number: int) -> Scores:
    found = epoch(run, number).scores
    assert found is not None
    return found


def weights(folder: Path) -> bytes:
    return adapters.weights_of(folder).read_bytes()


def test_each_epoch_has_a_folder_a_ranking_probe_embeddings_and_scores(made: Bench) -> None:
    run = made.run()
    for number in (1, 2):
        assert run.workspace.epoch(0, number) == place(run) / f"epoch-{number}"
        adapters.read_record(run.workspace.epoch(0, number))  # its weights are those recorded
        known = dataset.load(run)
        ranking = rankings.read(place(run) / f"ranking-{number}.jsonl")
        assert list(ranking.query_ids) == [query.query_id for query in known.valid]
        assert ranking.ids.shape[1] == scores(run, number).k == 25
        assert epoch(run, number).step == 4 * number
    assert facts(run)["steps"] == len(facts(run)["losses"]) == 8
    assert weights(place(run) / "epoch-1") != weights(place(run) / "epoch-2")


def test_everything_a_later_stage_reads_is_in_the_manifest(made: Bench) -> None:
    run = made.run()
    found = dag.StageGraph().standing(run, "train").manifest
    assert found is not None
    written = set(benches.contents(place(run))) - {"manifest.json", "training.json"}
    assert set(found.outputs) == written


def test_e29_the_resolved_config_lies_beside_the_adapter_without_any_path(made: Bench) -> None:
    run = made.run("training.seed=0", f"data.source={made.source}")
    frozen = epochs.frozen(run.config)
    assert frozen["training"]["learning_rate"] == 1e-2
    assert frozen["scoring"]["seen_share"] == 0.25  # a default, written out
    assert frozen["data"]["source"] == ""
    assert frozen["overrides"] == ["training.seed=0"]
    for number in (1, 2):
        lying = files.read_json(place(run) / f"epoch-{number}/run.json")
        assert {**lying, "overrides": []} == {**frozen, "overrides": []}


def test_b24_another_config_sets_the_old_epochs_aside(
    made: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    before = benches.contents(place(made.run()))
    key = files.read_json(place(made.run()) / "training.json")["key"]
    del before["manifest.json"]
    made.write(training={"learning_rate": 2e-2})
    capsys.readouterr()
    run = made.make("train")
    aside = place(run).with_name(f"train-{key[:8]}")
    assert f"another training's epochs are kept in train-{key[:8]}\n" in capsys.readouterr().out
    assert benches.contents(aside) == before
    assert weights(place(run) / "epoch-1") != weights(aside / "epoch-1")
    made.write()
    run = made.make("train")
    again = benches.contents(place(run))
    del again["manifest.json"]
    assert again == before  # the first training once more, to the byte


def test_nothing_is_learnt_through_rounded_layers(made: Bench) -> None:
    with pytest.raises(BadConfig, match="for encoding alone: train with none or 4bit"):
        train(made.run("encoder.quantize=fp8"))


def test_b24_training_again_leaves_the_epochs_that_are_there(made: Bench) -> None:
    run = made.run()

    def touched() -> dict[str, int]:
        return {
            name: (place(run) / name).stat().st_mtime_ns
            for name in benches.contents(place(run))
            if name.startswith(("epoch-", "probe-", "ranking-"))
        }

    before = touched()
    made.make("train")
    assert touched() == before
    assert dag.StageGraph().standing(run, "predict").state == "done"


@pytest.mark.parametrize(
    "name",
    [
        "epoch-1/adapter_model.safetensors",
        "epoch-2/lineage.json",
        "epoch-2.json",
        "probe-1.npy",
        "ranking-2.jsonl",
    ],
)
@pytest.mark.parametrize("lost", [True, False], ids=["lost", "changed"])
def test_training_again_mends_an_epoch_that_was_lost_or_changed(
    made: Bench, name: str, lost: bool
) -> None:
    run = made.run()
    before = benches.contents(place(run))
    path = place(run) / name
    path.unlink() if lost else path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    with pytest.raises(StaleInput, match="run: invoke train --run "):
        dag.StageGraph().require(run, "predict")
    made.make("train")
    after = benches.contents(place(run))
    del before["manifest.json"], after["manifest.json"]
    assert after == before
    assert dag.StageGraph().standing(run, "predict").state == "done"


def test_scores_told_another_way_are_scored_and_chosen_by_that_way(made: Bench) -> None:
    made.write(scoring={"seen_share": 1.0})
    run = made.make("train")
    for number in (1, 2):
        found = scores(run, number)
        assert found.seen_share == 1.0
        assert found.projection is not None
        assert found.seen.map is not None
        assert found.projection.value == found.seen.map.value
    made.make("eval")


def test_b7_an_adapter_carries_the_questions_it_was_trained_on(made: Bench) -> None:
    run = made.run()
    train = frozenset(dataset.load(run).split.train)
    for folder in ("epoch-1", "epoch-2", "adapter"):
        assert Lineage.read(place(run) / folder / "lineage.json").trained_on == train


@pytest.mark.parametrize(("start", "inherits"), [("parent", True), ("base", False)])
def test_b7_a_round_inherits_what_its_parent_was_trained_on(
    made: Bench, start: str, inherits: bool
) -> None:
    train = frozenset(dataset.load(made.run()).split.train)
    parent = place(made.run()) / "adapter"
    Lineage(train | {424242}).write(parent / "lineage.json")
    benches.seal(place(made.run()))
    made.write(training={"init_from": start})
    benches.rewrite_config(made.run(), "train")
    run = made.make("mine", "train", round_=1)
    found = Lineage.read(run.workspace.adapter(1) / "lineage.json").trained_on
    assert found == (train | {424242} if inherits else train)


def test_a_round_goes_on_from_the_weights_of_its_parent(made: Bench) -> None:
    made.write(training={"learning_rate": 1e-9, "epochs": 1})
    parent = load_file(place(made.run()) / "adapter/adapter_model.safetensors")
    benches.rewrite_config(made.run(), "train")
    run = made.make("mine", "train", round_=1)
    child = load_file(place(run) / "adapter/adapter_model.safetensors")
    assert child.keys() == parent.keys()
    for name, weight in child.items():
        assert (weight - parent[name]).abs().max() < 1e-6


def test_a_round_without_its_parent_refuses(bench: Bench) -> None:
    bench.make("prepare", "mine")
    with pytest.raises(StaleInput, match=r"train of round 0 has not been made"):
        bench.make("train", round_=1)


# A seed under which the first of three epochs is the best by projection, and not by MAP.
TURN = {"epochs": 3, "batch_size": 4}


def test_a2_the_best_epoch_is_chosen_by_the_projection(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write(training=TURN)
    run = bench.make("prepare", "mine", "train")
    projections, maps = [], []
    for number in (1, 2, 3):
        found = scores(run, number)
        assert found.projection is not None
        assert found.all.map is not None
        projections.append(found.projection.value)
        maps.append(found.all.map.value)
    best = projections.index(max(projections)) + 1
    assert best not in (3, maps.index(max(maps)) + 1), "a case that tells nothing"
    assert facts(run)["best_epoch"] == best
    assert weights(run.workspace.adapter(0)) == weights(run.workspace.epoch(0, best))
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith(f"epoch {best} has the best projection; against epoch 3: ")
    told = f"epoch 2: step 16, MAP@25 {maps[1]:.4f}, projection {projections[1]:.4f}"
    assert told in said


def test_of_two_equal_epochs_the_first_is_taken(bench: Bench) -> None:
    bench.write(scoring={"seen_share": 0.0}, training={"epochs": 4})
    run = bench.make("prepare", "mine", "train")
    values = [epoch(run, number).value for number in (1, 2, 3, 4)]
    assert facts(run)["best_epoch"] == values.index(max(values)) + 1


def test_an_epoch_without_a_projection_is_judged_by_its_map(made: Bench) -> None:
    found = scores(made.run(), 1)
    assert found.projection is not None
    assert found.all.map is not None
    assert SavedEpoch(1, 4, found).value == found.projection.value
    without = Scores(found.k, found.all, found.seen, found.unseen, None, found.seen_share)
    assert SavedEpoch(1, 4, without).value == found.all.map.value
    assert SavedEpoch(1, 4, without).line.endswith("projection -")
    assert [SavedEpoch(number, 4, None).value for number in (1, 2)] == [1, 2]


def test_where_nothing_is_held_out_nothing_is_scored_and_the_last_epoch_is_taken(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write(split={"kind": "full"})
    run = bench.make("prepare", "mine", "train")
    assert [epoch(run, number).scores for number in (1, 2)] == [None, None]
    assert facts(run)["best_epoch"] == 2
    assert weights(run.workspace.adapter(0)) == weights(run.workspace.epoch(0, 2))
    assert not list(place(run).glob("ranking-*"))
    said = capsys.readouterr().out
    assert "epoch 2: step 14, saved; the split has nothing to score\n" in said
    everything = frozenset(query.question_id for query in dataset.load(run).queries)
    assert Lineage.read(run.workspace.adapter(0) / "lineage.json").trained_on == everything
    bench.make("predict", "package")


def test_f32_what_each_epoch_is_made_of_is_told_before_the_first_step(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.make("prepare", "mine")
    capsys.readouterr()
    run = bench.make("train")
    told = facts(run)["course"]
    assert told[0] == "train: 31 queries, 0 with few-shot examples, 0 cut to fit"
    assert told[1].startswith("epoch 1: 4 batches of 31 queries and ")
    assert "a positive is shared in " in told[2]
    assert "false negatives: 0 masked" in told[2]
    said = " ".join(capsys.readouterr().out.split())  # a long line is folded
    assert said.startswith(" ".join(["trains 3,712 of 27,520 weights", *told, "epoch 1: step 4"]))
    assert (facts(run)["threads"], facts(run)["processes"]) == (1, 1)
    assert facts(run)["precision"] == "torch.float32"
    assert facts(run)["token_budget"] == run.config.training.token_budget


def test_a_teacher_s_scores_are_imported_kept_and_learnt(bench: Bench) -> None:
    bench.write(mining={"strategy": "percpos"}, training={"distillation": "kl_div", "epochs": 1})
    run = bench.make("prepare", "mine")
    with pytest.raises(Mismatch, match="has no teacher's scores for"):
        bench.make("train")
    exported = dag.folder(run, "mine") / "flagembedding.jsonl"
    file = bench.folder / "taught.jsonl"
    file.write_bytes(exported.read_bytes())
    mine(run, file)
    before, after = (files.read_jsonl(path) for path in (file, exported))
    assert all(row["pos_scores"] and row["neg_scores"] for row in after)
    assert after == before
    taught = bench.make("train")
    bench.write(mining={"strategy": "percpos"}, training={"epochs": 1})
    benches.rewrite_config(bench.run(), "mine")
    with_teacher = facts(taught)["losses"]
    assert facts(bench.make("train"))["losses"] != with_teacher


def test_all_weights_want_full_precision(bench: Bench) -> None:
    bench.write(training={"method": "all"}, encoder={"precision": "bf16"})
    bench.make("prepare", "mine")
    with pytest.raises(BadConfig, match=r"training\.method = 'all' wants encoder\.precision"):
        bench.make("train")


@pytest.mark.parametrize(
    "training",
    [
        {"method": "all", "learning_rate": 1e-3},
        {"target_modules": ["q_proj", "v_proj"]},
        {"gradient_checkpointing": True, "lora_dropout": 0.1},
        {"loss": "flagembedding", "gradient_accumulation_steps": 2, "batch_size": 4},
        {"passages": "distinct", "group_by": "question", "batch_size": 3},
    ],
    ids=str,
)
def test_each_way_of_training_survives_its_round_trip_and_is_repeatable(
    bench: Bench, training: dict[str, Any]
) -> None:
    bench.write(training={"epochs": 1, **training})
    run = bench.make("prepare", "mine", "train")
    first = weights(run.workspace.adapter(0))
    shutil.rmtree(place(run))
    bench.make("train")
    assert weights(run.workspace.adapter(0)) == first
    bench.make("predict")


def test_gradient_checkpointing_gives_the_bytes_of_training_without(bench: Bench) -> None:
    bench.write(training={"gradient_checkpointing": True})
    run = bench.make("prepare", "mine", "train")
    with_ = load_file(run.workspace.adapter(0) / "adapter_model.safetensors")
    shutil.rmtree(place(run))
    bench.write()
    bench.make("train")
    without = load_file(run.workspace.adapter(0) / "adapter_model.safetensors")
    for name, weight in with_.items():
        assert (weight - without[name]).abs().max() < 1e-6
