"""What was saved is what was trained, and changes something: else the stage fails."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pipeline.run_fixture import Bench
from safetensors.torch import load_file, save_file

from parity.pipeline import dag, reload_check
from parity.retrieval.models import adapter as adapters
from parity.run import digest, files
from parity.run.errors import Mismatch
from parity.run.experiment import Run

FP32 = "torch.float32"


def place(run: Run) -> Path:
    return dag.folder(run, "train")


def rewrite(folder: Path, change: dict[str, float]) -> None:
    """Scale the weights whose names hold a key, and record the new file as the adapter's own."""
    path = adapters.weights_of(folder)
    weights = load_file(path)
    for name, weight in weights.items():
        for part, factor in change.items():
            if part in name:
                weights[name] = weight * factor
    save_file(weights, path, metadata={"format": "pt"})
    record = {**files.read_json(folder / "adapter.json"), "weights": digest.of_file(path)}
    files.write_json(folder / "adapter.json", record)


def test_a_saved_adapter_embeds_the_probe_as_in_memory(
    made: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.run()
    found = reload_check.check_reload(run, place(run), [1, 2], FP32)
    assert found == {"epoch-1": 0.0, "epoch-2": 0.0}
    manifest = dag.StageGraph().standing(run, "train").manifest
    assert manifest is not None
    assert manifest.facts["round_trip"] == found
    assert "adapters reloaded in a fresh process embed the probe as in memory" in (
        capsys.readouterr().out
    )
    assert not list(place(run).glob(".reloaded*"))


def test_another_adapter_in_the_folder_fails(made: Bench) -> None:
    run = made.run()
    shutil.rmtree(place(run) / "epoch-1")
    shutil.copytree(place(run) / "epoch-2", place(run) / "epoch-1")
    with pytest.raises(Mismatch, match=r"epoch 1: the probe embeddings .* not what was trained"):
        reload_check.check_reload(run, place(run), [1, 2], FP32)


@pytest.mark.parametrize("part", ["lora_A", "lora_B", "layers.1.mlp.down_proj.lora_B"])
def test_weights_changed_after_saving_fail(made: Bench, part: str) -> None:
    run = made.run()
    rewrite(place(run) / "epoch-2", {part: 1.01})
    with pytest.raises(Mismatch, match=r"epoch 2: .* differ from those in memory by "):
        reload_check.check_reload(run, place(run), [1, 2], FP32)


def test_weights_changed_without_their_record_fail_too(made: Bench) -> None:
    run = made.run()
    path = place(run) / "epoch-1/adapter_model.safetensors"
    shutil.copy(place(run) / "epoch-2/adapter_model.safetensors", path)
    with pytest.raises(Mismatch, match=r"cannot be loaded in a fresh process: .* not the weights"):
        reload_check.check_reload(run, place(run), [1, 2], FP32)


def test_d22_an_adapter_that_changes_nothing_fails(made: Bench) -> None:
    run = made.run()
    rewrite(place(run) / "epoch-2", {"lora_B": 0.0})
    bare = place(run) / "bare.npz"
    reload_check.reload(run, bare)
    with np.load(bare) as found:
        np.testing.assert_array_equal(found["base"], found["epoch-2"])
        np.save(place(run) / "probe-2.npy", found["base"])  # memory was no better
    with pytest.raises(Mismatch, match=r"epoch 2: with the adapter .* those of the bare base"):
        reload_check.check_reload(run, place(run), [1, 2], FP32)


@pytest.mark.parametrize("method", ["lora", "all"])
def test_d22_a_training_that_changes_nothing_fails_its_stage(bench: Bench, method: str) -> None:
    bench.write(training={"learning_rate": 1e-30, "epochs": 1, "method": method})
    bench.make("prepare", "mine")
    with pytest.raises(Mismatch, match=r"epoch 1: .* nothing was trained, or nothing was loaded"):
        bench.make("train")
    run = bench.run()
    assert dag.StageGraph().standing(run, "train").state == "missing"
    assert not run.workspace.adapter(0).exists()


def test_half_precision_may_differ_by_its_own_steps_and_no_more(made: Bench) -> None:
    run = made.run()
    memory = np.load(place(run) / "probe-1.npy")
    noise = np.float32(1e-2) * np.sign(memory)
    np.save(place(run) / "probe-1.npy", memory + noise)
    with pytest.raises(Mismatch, match=r"memory by 0\.01 "):
        reload_check.check_reload(run, place(run), [1, 2], FP32)
    np.save(place(run) / "probe-1.npy", memory + 3 * noise)
    with pytest.raises(Mismatch, match=r"memory by 0\.03 "):
        reload_check.check_reload(run, place(run), [1, 2], "torch.bfloat16")


def test_what_is_reloaded_is_each_epoch_and_the_bare_base(made: Bench) -> None:
    run = made.run()
    target = made.folder / "found.npz"
    reload_check.reload(run, target)
    with np.load(target) as found:
        assert sorted(found.files) == ["base", "epoch-1", "epoch-2"]
        for number in (1, 2):
            memory = np.load(place(run) / f"probe-{number}.npy")
            assert found[f"epoch-{number}"].tobytes() == memory.tobytes()
        assert found["base"].shape == memory.shape
