"""Adapters are loaded as they were trained, and only on their base model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter
from parity.retrieval.models.base_model import BaseModel
from parity.run import digest
from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig, Mismatch, StaleInput

LORA = TrainingConfig(r=4, lora_alpha=8.0)
RELOAD = """
import sys
from pathlib import Path
import models
from parity.retrieval.models import adapter, base_model
base, folder, target = base_model.describe("mistral", Path(sys.argv[1])), *map(Path, sys.argv[2:])
encoder = models.load(base, folder)
models.sequences()
print(encoder.embed(models.sequences()).tobytes().hex())
adapter.save(encoder.model, target, base, layers=0, template="t")
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "mistral", "mistral")


@pytest.fixture(scope="module")
def trained(base: BaseModel) -> Encoder:
    encoder = models.load(base)
    models.attach(encoder)
    return encoder


@pytest.fixture
def folder(tmp_path: Path, base: BaseModel, trained: Encoder) -> Path:
    target = tmp_path / "adapter"
    adapter.save(trained.model, target, base, layers=0, template="t")
    return target


def change_record(folder: Path, **values: object) -> None:
    """Update values of the record."""
    path = folder / adapter.RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def replace_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Replace the weights and update their digest in the record."""
    path = adapter.weights_path(folder)
    save_file(weights, path, metadata={"format": "pt"})
    change_record(folder, weights=digest.of_file(path))


def test_a_reloaded_adapter_gives_the_same_bytes(
    base: BaseModel, trained: Encoder, folder: Path
) -> None:
    sequences = models.sequences()
    reloaded = models.load(base, folder)
    assert reloaded.embed(sequences).tobytes() == trained.embed(sequences).tobytes()
    names = ("adapter_model.safetensors", "adapter_config.json")
    assert reloaded.adapter == digest.of_value([digest.of_file(folder / name) for name in names])
    assert not any(weight.requires_grad for weight in reloaded.model.parameters())
    assert np.abs(reloaded.embed(sequences) - models.load(base).embed(sequences)).max() > 1e-2


def test_d22_a_fresh_process_gives_the_same_bytes_and_writes_the_same_files(
    base: BaseModel, trained: Encoder, folder: Path, root: Path, tmp_path: Path
) -> None:
    path = os.pathsep.join((str(root / "src"), str(root / "tests")))
    target = tmp_path / "again"
    process = subprocess.run(
        [sys.executable, "-c", RELOAD, str(base.folder), str(folder), str(target)],
        env={**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert bytes.fromhex(process.stdout) == trained.embed(models.sequences()).tobytes()
    assert digest.of_tree(target) == digest.of_tree(folder)


def test_all_weights_of_a_small_encoder_are_reloaded(tmp_path: Path) -> None:
    base, sequences = models.write(tmp_path / "bert", "bert"), models.sequences()
    tuned = models.load(base, pooling="mean")
    models.attach(tuned, method="all")
    record = adapter.save(tuned.model, tmp_path / "adapter", base, layers=0, template="t")
    assert record.method == "all"
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter.json",
        "weights.safetensors",
    ]
    reloaded = models.load(base, tmp_path / "adapter", pooling="mean")
    assert reloaded.embed(sequences).tobytes() == tuned.embed(sequences).tobytes()
    base_encoder = models.load(base, pooling="mean")
    assert np.abs(reloaded.embed(sequences) - base_encoder.embed(sequences)).max() > 1e-2


def test_saving_does_not_change_the_model(base: BaseModel, tmp_path: Path) -> None:
    encoder, sequences = models.load(base), models.sequences()
    models.attach(encoder)
    before = encoder.embed(sequences).tobytes()
    adapter.save(encoder.model, tmp_path / "adapter", base, layers=0, template="t")
    assert encoder.embed(sequences).tobytes() == before
    models.encode(encoder, sequences).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert any(weight.grad is not None for weight in encoder.model.parameters())


def test_the_record_names_what_it_belongs_to(
    base: BaseModel, trained: Encoder, tmp_path: Path
) -> None:
    target = tmp_path / "adapter"
    extra_files = {"lineage.json": {"questions": [1, 2]}}
    record = adapter.save(
        trained.model, target, base, layers=0, template="the digest", extra_files=extra_files
    )
    weights = digest.of_file(target / "adapter_model.safetensors")
    settings = digest.of_file(target / "adapter_config.json")
    assert record == adapter.AdapterRecord(
        "lora", base.digest(), 0, "the digest", weights, settings
    )
    assert adapter.read_record(target) == record
    assert json.loads((target / "lineage.json").read_text()) == {"questions": [1, 2]}
    written = json.loads((target / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "mistral"  # not a path of this machine
    assert written["target_modules"] == sorted(written["target_modules"])
    assert written["inference_mode"] is True


def test_saving_again_replaces_the_folder(base: BaseModel, trained: Encoder, folder: Path) -> None:
    (folder / "left.over").write_text("")
    adapter.save(trained.model, folder, base, layers=0, template="t")
    assert not (folder / "left.over").exists()


def test_a_changed_byte_is_refused(base: BaseModel, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Mismatch, match=r"not the weights that adapter\.json names"):
        models.load(base, folder)


def test_a_folder_without_an_adapter_names_the_command(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(StaleInput, match="no adapter in") as error:
        models.load(base, tmp_path)
    assert error.value.fix == ("train",)


def test_d25_another_base_is_refused(base: BaseModel, folder: Path) -> None:
    change_record(folder, base="0" * 64)
    with pytest.raises(Mismatch, match=r"trained on another base than mistral \(digests differ\)"):
        models.load(base, folder)


def test_another_depth_is_refused(base: BaseModel, folder: Path) -> None:
    with pytest.raises(Mismatch, match="trained on 0 layers, but the run uses 1"):
        models.load(base, folder, num_layers=1)


def test_d22_an_adapter_with_no_matching_key_is_refused(base: BaseModel, folder: Path) -> None:
    weights = load_file(adapter.weights_path(folder))
    replace_weights(
        folder, {name.replace("base_model", "other"): tensor for name, tensor in weights.items()}
    )
    with pytest.raises(Mismatch, match="no key of the adapter matches the base model"):
        models.load(base, folder)


def test_an_adapter_with_a_missing_or_extra_key_is_refused(base: BaseModel, folder: Path) -> None:
    weights = load_file(adapter.weights_path(folder))
    name, tensor = next(iter(sorted(weights.items())))
    replace_weights(folder, {**weights, "odd": tensor.clone()})
    with pytest.raises(Mismatch, match="1 keys do not match the base model, such as odd"):
        models.load(base, folder)
    del weights[name]
    replace_weights(folder, weights)
    with pytest.raises(Mismatch, match=f"1 keys do not match the base model, such as {name}"):
        models.load(base, folder)


@pytest.mark.parametrize("change", [{"r": 2}, {"lora_alpha": 1.0}])
def test_changed_settings_are_refused(
    base: BaseModel, folder: Path, change: dict[str, float]
) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Mismatch, match=r"adapter_config\.json: not the settings"):
        models.load(base, folder)


def test_an_adapter_of_another_rank_does_not_fit(base: BaseModel, folder: Path) -> None:
    other = models.load(base)
    models.attach(other, r=2)
    with pytest.raises(Mismatch, match="weights do not fit the base model"):
        adapter.restore(other.model, load_file(adapter.weights_path(folder)), "adapter")


def test_all_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path / "bert", "bert")
    tuned = models.load(base, pooling="mean")
    models.attach(tuned, method="all")
    adapter.save(tuned.model, tmp_path / "adapter", base, layers=0, template="t")
    replace_weights(tmp_path / "adapter", {"odd": torch.zeros(1)})
    with pytest.raises(Mismatch, match="weights do not fit the base model"):
        models.load(base, tmp_path / "adapter", pooling="mean")


def test_a_target_that_is_not_a_linear_layer_is_refused(base: BaseModel) -> None:
    config = TrainingConfig(target_modules=("q_proj", "query_key_value"))
    with pytest.raises(
        BadConfig, match=r"no linear layer 'query_key_value'. Use some of \['down_proj'"
    ):
        adapter.attach(models.load(base).model, config)


def test_training_all_4_bit_weights_is_refused(base: BaseModel) -> None:
    with pytest.raises(BadConfig, match=r"training\.method = 'all': 4-bit weights cannot be"):
        adapter.attach(models.load(base, quantize="4bit").model, TrainingConfig(method="all"))


def test_only_the_named_targets_are_trained(base: BaseModel) -> None:
    config = LORA.model_copy(update={"target_modules": ("q_proj", "v_proj")})
    names = adapter.trained_weights(adapter.attach(models.load(base).model, config))
    assert len(names) == 2 * 2 * 2
    assert all("q_proj" in name or "v_proj" in name for name in names)


def test_a_new_adapter_changes_nothing_and_depends_on_the_seed(base: BaseModel) -> None:
    sequences, base_encoder = models.sequences(), models.load(base)
    weights = []
    for seed in (0, 0, 1):
        encoder = models.load(base)
        torch.manual_seed(seed)
        encoder.model = adapter.attach(encoder.model, LORA).eval()
        np.testing.assert_array_equal(encoder.embed(sequences), base_encoder.embed(sequences))
        weights.append(adapter.trained_weights(encoder.model))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_trained_tensors_are_sorted_by_name(trained: Encoder) -> None:
    names = list(adapter.trained_weights(trained.model))
    assert names == sorted(names)
    assert len(names) == 2 * 2 * 7
    assert all("lora_" in name for name in names)


def test_restored_weights_give_the_same_embeddings(base: BaseModel, trained: Encoder) -> None:
    other = models.load(base)
    models.attach(other, seed=9)
    sequences = models.sequences()
    assert other.embed(sequences).tobytes() != trained.embed(sequences).tobytes()
    adapter.restore(other.model, adapter.trained_weights(trained.model), "here")
    assert other.embed(sequences).tobytes() == trained.embed(sequences).tobytes()
