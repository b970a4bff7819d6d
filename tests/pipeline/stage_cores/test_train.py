"""Outputs of training: epochs that are never overwritten, their lineage, and the best adapter."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture
from safetensors.torch import load_file

from parity.cli import main
from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.query import UnitId
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, dataset, epochs, evaluations
from parity.pipeline.epochs import SavedEpoch
from parity.pipeline.stage_cores.mine import mine
from parity.pipeline.stage_cores.train import train
from parity.retrieval.models import adapter as adapters
from parity.run import files
from parity.run.errors import BadConfig, Mismatch, StaleInput
from parity.run.experiment import Run


def train_folder(run: Run) -> Path:
    return dag.folder(run, "train")


def facts(run: Run) -> dict[str, Any]:
    standing = dag.StageGraph().standing(run, "train")
    assert standing.state == "done"
    assert standing.manifest is not None
    return standing.manifest.facts


def epoch(run: Run, number: int) -> SavedEpoch:
    result = epochs.read(train_folder(run), number)
    assert result is not None
    return result


def scores(run: Run, number: int) -> Scores:
    result = epoch(run, number).scores
    assert result is not None
    return result


def weights(folder: Path) -> bytes:
    return adapters.weights_path(folder).read_bytes()


def test_each_epoch_has_a_folder_a_ranking_probe_embeddings_and_scores(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    for number in (1, 2):
        assert run.workspace.epoch(0, number) == train_folder(run) / f"epoch-{number}"
        adapters.read_record(run.workspace.epoch(0, number))  # it checks the weights
        data = dataset.load(run.config, run.workspace)
        ranking = rankings.read(train_folder(run) / f"ranking-{number}.jsonl")
        assert list(ranking.query_ids) == [query.query_id for query in data.valid]
        assert ranking.positions.shape[1] == scores(run, number).k == 25
        assert epoch(run, number).step == 4 * number
    assert facts(run)["steps"] == len(facts(run)["losses"]) == 8
    assert weights(train_folder(run) / "epoch-1") != weights(train_folder(run) / "epoch-2")


def test_every_output_is_in_the_manifest(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    manifest = dag.StageGraph().standing(run, "train").manifest
    assert manifest is not None
    written = set(run_fixture.contents(train_folder(run))) - {"manifest.json", "training.json"}
    assert set(manifest.outputs) == written


def test_e29_the_resolved_config_is_stored_with_the_adapter_without_paths(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open("training.seed=0", f"data.source={predicted_run.source}")
    frozen = epochs.frozen(run.config)
    assert frozen["training"]["learning_rate"] == 1e-2
    assert frozen["scoring"]["seen_share"] == 0.25  # a default, written out
    assert frozen["data"]["source"] == ""
    assert frozen["overrides"] == ["training.seed=0"]
    for number in (1, 2):
        stored = files.read_json(train_folder(run) / f"epoch-{number}/run.json")
        assert {**stored, "overrides": []} == {**frozen, "overrides": []}


def test_b24_another_config_moves_the_old_epochs(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_fixture.contents(train_folder(predicted_run.open()))
    key = files.read_json(train_folder(predicted_run.open()) / "training.json")["key"]
    del before["manifest.json"]
    predicted_run.write_config(training={"learning_rate": 2e-2})
    capsys.readouterr()
    run = predicted_run.run_stages("train")
    aside = train_folder(run).with_name(f"train-{key[:8]}")
    assert f"another training's epochs are kept in train-{key[:8]}\n" in capsys.readouterr().out
    assert run_fixture.contents(aside) == before
    assert weights(train_folder(run) / "epoch-1") != weights(aside / "epoch-1")
    predicted_run.write_config()
    run = predicted_run.run_stages("train")
    repeated = run_fixture.contents(train_folder(run))
    del repeated["manifest.json"]
    assert repeated == before  # the first training is repeated to the byte


def test_training_with_fp8_layers_is_refused(predicted_run: RunFixture) -> None:
    with pytest.raises(BadConfig, match=r"for encoding only\. Train with none or 4bit"):
        train(predicted_run.open("encoder.quantize=fp8"))


def test_b24_training_again_keeps_finished_epochs(predicted_run: RunFixture) -> None:
    run = predicted_run.open()

    def touched() -> dict[str, int]:
        return {
            name: (train_folder(run) / name).stat().st_mtime_ns
            for name in run_fixture.contents(train_folder(run))
            if name.startswith(("epoch-", "probe-", "ranking-"))
        }

    before = touched()
    predicted_run.run_stages("train")
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
def test_training_again_restores_a_lost_or_changed_epoch(
    predicted_run: RunFixture, name: str, lost: bool
) -> None:
    run = predicted_run.open()
    before = run_fixture.contents(train_folder(run))
    path = train_folder(run) / name
    path.unlink() if lost else path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    standing = dag.StageGraph().standing(run, "train")
    assert (standing.state, standing.reason) == ("stale", f"{name} is missing or was changed")
    predicted_run.run_stages("train")
    after = run_fixture.contents(train_folder(run))
    del before["manifest.json"], after["manifest.json"]
    assert after == before
    assert dag.StageGraph().standing(run, "predict").state == "done"


def test_another_seen_share_scores_the_adapter_again_without_training(
    predicted_run: RunFixture,
) -> None:
    before = run_fixture.contents(train_folder(predicted_run.open()))
    predicted_run.write_config(scoring={"seen_share": 1.0})
    run = predicted_run.run_stages("train", "eval")
    assert run_fixture.contents(train_folder(run)) == before
    assert scores(run, 1).seen_share == 0.25
    result = evaluations.read(dag.folder(run, "eval"))["best"]
    assert result.seen_share == 1.0
    assert result.projection is not None
    assert result.seen.score is not None
    assert result.projection.value == result.seen.score.value


def test_b7_an_adapter_carries_the_questions_it_was_trained_on(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    train = frozenset(dataset.load(run.config, run.workspace).split.train)
    for folder in ("epoch-1", "epoch-2", "adapter"):
        assert Lineage.read(train_folder(run) / folder / "lineage.json").trained_on == train


@pytest.mark.parametrize(("start", "inherits"), [("parent", True), ("base", False)])
def test_b7_a_round_inherits_what_its_parent_was_trained_on(
    predicted_run: RunFixture, start: str, inherits: bool
) -> None:
    run = predicted_run.open()
    train = frozenset(dataset.load(run.config, run.workspace).split.train)
    parent = train_folder(predicted_run.open()) / "adapter"
    Lineage(train | {UnitId("424242")}).write(parent / "lineage.json")
    run_fixture.seal(train_folder(predicted_run.open()))
    predicted_run.write_config(training={"init_from": start})
    run_fixture.rewrite_config(predicted_run.open(), "train")
    run = predicted_run.run_stages("mine", "train", round_=1)
    result = Lineage.read(run.workspace.adapter(1) / "lineage.json").trained_on
    assert result == (train | {UnitId("424242")} if inherits else train)


def test_a_round_starts_from_the_weights_of_its_parent(predicted_run: RunFixture) -> None:
    predicted_run.write_config(training={"learning_rate": 1e-9, "epochs": 1})
    parent = load_file(train_folder(predicted_run.open()) / "adapter/adapter_model.safetensors")
    run_fixture.rewrite_config(predicted_run.open(), "train")
    run = predicted_run.run_stages("mine", "train", round_=1)
    child = load_file(train_folder(run) / "adapter/adapter_model.safetensors")
    assert child.keys() == parent.keys()
    for name, weight in child.items():
        assert (weight - parent[name]).abs().max() < 1e-6


def test_a_round_without_its_parent_is_refused(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare", "mine").at(1)
    mine(run, "base")
    for stage in (mine, train):
        with pytest.raises(StaleInput, match=r"^train of round 0 is missing, so small has no best"):
            stage(run)


# With this training an earlier epoch is the best by projection, but not by MAP.
TURN = {"epochs": 3, "batch_size": 4}


def test_a2_the_best_epoch_is_chosen_by_the_projection(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run.write_config(training=TURN)
    run = small_run.run_stages("prepare", "mine", "train")
    projections, maps = [], []
    for number in (1, 2, 3):
        result = scores(run, number)
        assert result.projection is not None
        assert result.all.score is not None
        projections.append(result.projection.value)
        maps.append(result.all.score.value)
    best = projections.index(max(projections)) + 1
    assert best not in (3, maps.index(max(maps)) + 1), (
        "this training does not distinguish projection and MAP"
    )
    assert facts(run)["best_epoch"] == best
    assert weights(run.workspace.adapter(0)) == weights(run.workspace.epoch(0, best))
    output = capsys.readouterr().out.splitlines()
    assert output[-1].startswith(f"epoch {best} has the best projection; against epoch 3: ")
    expected = f"epoch 2: step 16, MAP@25 {maps[1]:.4f}, projection {projections[1]:.4f}"
    assert expected in output


def test_the_first_of_two_equal_epochs_is_the_best(small_run: RunFixture) -> None:
    small_run.write_config(scoring={"seen_share": 0.0}, training={"epochs": 4})
    run = small_run.run_stages("prepare", "mine", "train")
    values = [epoch(run, number).value for number in (1, 2, 3, 4)]
    assert facts(run)["best_epoch"] == values.index(max(values)) + 1


def test_an_epoch_without_a_projection_is_compared_by_its_map(predicted_run: RunFixture) -> None:
    result = scores(predicted_run.open(), 1)
    assert result.projection is not None
    assert result.all.score is not None
    assert SavedEpoch(1, 4, result).value == result.projection.value
    without = Scores(result.metric, result.all, result.seen, result.unseen, None, result.seen_share)
    assert SavedEpoch(1, 4, without).value == result.all.score.value
    assert SavedEpoch(1, 4, without).line.endswith("projection -")
    assert [SavedEpoch(number, 4, None).value for number in (1, 2)] == [1, 2]


def test_without_a_validation_set_nothing_is_scored_and_the_last_epoch_is_chosen(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run.write_config(split={"kind": "full"}, shipping={"wheels": []})
    run = small_run.run_stages("prepare", "mine", "train")
    assert [epoch(run, number).scores for number in (1, 2)] == [None, None]
    assert facts(run)["best_epoch"] == 2
    assert weights(run.workspace.adapter(0)) == weights(run.workspace.epoch(0, 2))
    assert not list(train_folder(run).glob("ranking-*"))
    output = capsys.readouterr().out
    assert "epoch 2: step 14, saved; the split has nothing to score\n" in output
    everything = frozenset(query.unit for query in dataset.load(run.config, run.workspace).queries)
    assert Lineage.read(run.workspace.adapter(0) / "lineage.json").trained_on == everything
    small_run.run_stages("predict", "package")


def test_f32_the_content_of_each_epoch_is_printed_before_the_first_step(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run.run_stages("prepare", "mine")
    capsys.readouterr()
    run = small_run.run_stages("train")
    lines = facts(run)["course"]
    assert lines[0] == "train: 31 queries, 0 with few-shot examples, 0 cut to fit"
    assert lines[1].startswith("epoch 1: 4 batches of 31 queries and ")
    assert "a positive is shared in " in lines[2]
    assert "false negatives: 0 masked" in lines[2]
    output = " ".join(capsys.readouterr().out.split())  # a long line is folded
    assert output.startswith(
        " ".join(["trains 3,712 of 27,520 weights", *lines, "epoch 1: step 4"])
    )
    assert (facts(run)["threads"], facts(run)["processes"]) == (1, 1)
    assert facts(run)["precision"] == "torch.float32"
    assert facts(run)["token_budget"] == run.config.training.token_budget


def test_a_teacher_s_scores_are_imported_stored_and_distilled(small_run: RunFixture) -> None:
    small_run.write_config(
        mining={"strategy": "percpos"}, training={"distillation": "kl_div", "epochs": 1}
    )
    run = small_run.run_stages("prepare", "mine")
    with pytest.raises(Mismatch, match="has no teacher's scores for"):
        small_run.run_stages("train")
    exported = dag.folder(run, "mine") / "flagembedding.jsonl"
    file = small_run.folder / "scored.jsonl"
    file.write_bytes(exported.read_bytes())
    mine(run, imported=file)
    before, after = (files.read_jsonl(path) for path in (file, exported))
    assert all(row["pos_scores"] and row["neg_scores"] for row in after)
    assert after == before
    distilled = small_run.run_stages("train")
    small_run.write_config(mining={"strategy": "percpos"}, training={"epochs": 1})
    run_fixture.rewrite_config(small_run.open(), "mine")
    with_teacher = facts(distilled)["losses"]
    assert facts(small_run.run_stages("train"))["losses"] != with_teacher


def test_training_all_weights_requires_full_precision(small_run: RunFixture) -> None:
    small_run.write_config(training={"method": "all"}, encoder={"precision": "bf16"})
    small_run.run_stages("prepare", "mine")
    with pytest.raises(BadConfig, match=r"training\.method = 'all' requires encoder\.precision"):
        small_run.run_stages("train")


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
def test_each_kind_of_training_is_saved_and_repeatable(
    small_run: RunFixture, training: dict[str, Any]
) -> None:
    small_run.write_config(training={"epochs": 1, **training})
    run = small_run.run_stages("prepare", "mine", "train")
    first = weights(run.workspace.adapter(0))
    shutil.rmtree(train_folder(run))
    small_run.run_stages("train")
    assert weights(run.workspace.adapter(0)) == first
    small_run.run_stages("predict")


def test_gradient_checkpointing_gives_the_same_weights(small_run: RunFixture) -> None:
    small_run.write_config(training={"gradient_checkpointing": True})
    run = small_run.run_stages("prepare", "mine", "train")
    with_ = load_file(run.workspace.adapter(0) / "adapter_model.safetensors")
    shutil.rmtree(train_folder(run))
    small_run.write_config()
    small_run.run_stages("train")
    without = load_file(run.workspace.adapter(0) / "adapter_model.safetensors")
    for name, weight in with_.items():
        assert (weight - without[name]).abs().max() < 1e-6


@pytest.mark.parametrize(
    "sets",
    [
        ["training.target_modules=['nothing']"],
        ["training.seed=1", "training.init_from=epoch-1"],
        ["training.seed=1", "training.init_from=nowhere"],
        ["encoder.quantize=fp8"],
        ["training.seed=1", "encoder.device=cuda"],
    ],
    ids=str,
)
def test_a_refused_training_destroys_nothing(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch, sets: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = run_fixture.contents(predicted_run.open().workspace.root)
    assert main(["train", "small.toml", *(f"--set={setting}" for setting in sets)]) == 2
    assert run_fixture.contents(predicted_run.open().workspace.root) == before
    assert dag.StageGraph().standing(predicted_run.open(), "train").state == "done"
