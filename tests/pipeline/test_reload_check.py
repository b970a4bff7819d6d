"""The stage fails unless the saved adapter equals the trained one and changes the embeddings."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pipeline.run_fixture import RunFixture
from safetensors.torch import load_file, save_file

from parity.pipeline import dag, reload_check
from parity.retrieval.models import adapter as adapters
from parity.run import digest, files
from parity.run.errors import Mismatch
from parity.run.experiment import Run

FP32 = "torch.float32"


def train_folder(run: Run) -> Path:
    return dag.folder(run, "train")


def rewrite(folder: Path, change: dict[str, float]) -> None:
    """Scale the weights whose names contain a key, and update the adapter's record."""
    path = adapters.weights_path(folder)
    weights = load_file(path)
    for name, weight in weights.items():
        for part, factor in change.items():
            if part in name:
                weights[name] = weight * factor
    save_file(weights, path, metadata={"format": "pt"})
    record = {**files.read_json(folder / "adapter.json"), "weights": digest.of_file(path)}
    files.write_json(folder / "adapter.json", record)


def test_a_saved_adapter_embeds_the_probe_as_in_memory(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = predicted_run.open()
    result = reload_check.check_reload(run, train_folder(run), [1, 2], FP32)
    assert result == {"epoch-1": 0.0, "epoch-2": 0.0}
    manifest = dag.StageGraph().standing(run, "train").manifest
    assert manifest is not None
    assert manifest.facts["round_trip"] == result
    assert "adapters reloaded in a new process give the probe embeddings of training" in (
        capsys.readouterr().out
    )
    assert not list(train_folder(run).glob(".reloaded*"))


def test_the_adapter_of_another_epoch_fails(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    shutil.rmtree(train_folder(run) / "epoch-1")
    shutil.copytree(train_folder(run) / "epoch-2", train_folder(run) / "epoch-1")
    with pytest.raises(
        Mismatch,
        match=r"epoch 1: the probe embeddings .* so the saved adapter is not the trained one",
    ):
        reload_check.check_reload(run, train_folder(run), [1, 2], FP32)


@pytest.mark.parametrize("part", ["lora_A", "lora_B", "layers.1.mlp.down_proj.lora_B"])
def test_weights_changed_after_saving_fail(predicted_run: RunFixture, part: str) -> None:
    run = predicted_run.open()
    rewrite(train_folder(run) / "epoch-2", {part: 1.01})
    with pytest.raises(Mismatch, match=r"epoch 2: .* differ from those in memory by "):
        reload_check.check_reload(run, train_folder(run), [1, 2], FP32)


def test_changed_weights_with_an_old_record_fail(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    path = train_folder(run) / "epoch-1/adapter_model.safetensors"
    shutil.copy(train_folder(run) / "epoch-2/adapter_model.safetensors", path)
    with pytest.raises(Mismatch, match=r"cannot be loaded in a new process: .* not the weights"):
        reload_check.check_reload(run, train_folder(run), [1, 2], FP32)


def test_d22_an_adapter_that_changes_nothing_fails(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    rewrite(train_folder(run) / "epoch-2", {"lora_B": 0.0})
    path = train_folder(run) / "reloaded.npz"
    reload_check.reload(run, path)
    with np.load(path) as vectors:
        np.testing.assert_array_equal(vectors["base"], vectors["epoch-2"])
        np.save(train_folder(run) / "probe-2.npy", vectors["base"])  # as in memory
    with pytest.raises(Mismatch, match=r"epoch 2: .* with the adapter are those of the base model"):
        reload_check.check_reload(run, train_folder(run), [1, 2], FP32)


@pytest.mark.parametrize("method", ["lora", "all"])
def test_d22_a_training_that_changes_nothing_fails_its_stage(
    small_run: RunFixture, method: str
) -> None:
    small_run.write_config(training={"learning_rate": 1e-30, "epochs": 1, "method": method})
    small_run.run_stages("prepare", "mine")
    with pytest.raises(Mismatch, match=r"epoch 1: .* the adapter was not trained or not loaded"):
        small_run.run_stages("train")
    run = small_run.open()
    assert dag.StageGraph().standing(run, "train").state == "missing"
    assert not run.workspace.adapter(0).exists()


def test_half_precision_may_differ_by_rounding_only(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    memory = np.load(train_folder(run) / "probe-1.npy")
    noise = np.float32(1e-2) * np.sign(memory)
    np.save(train_folder(run) / "probe-1.npy", memory + noise)
    with pytest.raises(Mismatch, match=r"memory by 0\.01 "):
        reload_check.check_reload(run, train_folder(run), [1, 2], FP32)
    np.save(train_folder(run) / "probe-1.npy", memory + 3 * noise)
    with pytest.raises(Mismatch, match=r"memory by 0\.03 "):
        reload_check.check_reload(run, train_folder(run), [1, 2], "torch.bfloat16")


def test_each_epoch_and_the_base_model_are_reloaded(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    path = predicted_run.folder / "reloaded.npz"
    reload_check.reload(run, path)
    with np.load(path) as vectors:
        assert sorted(vectors.files) == ["base", "epoch-1", "epoch-2"]
        for number in (1, 2):
            memory = np.load(train_folder(run) / f"probe-{number}.npy")
            assert vectors[f"epoch-{number}"].tobytes() == memory.tobytes()
        assert vectors["base"].shape == memory.shape
