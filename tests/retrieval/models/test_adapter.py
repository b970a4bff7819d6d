"""What was trained is what is loaded, on the base it belongs to and on no other."""

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
from parity.run.config.run_file import TrainingConfig
from parity.run.errors import BadConfig, Mismatch, StaleInput

LORA = TrainingConfig(r=4, lora_alpha=8.0)
RELOAD = """
import sys
from pathlib import Path
import models
from parity.retrieval import adapter, bases
base, folder, target = bases.describe("mistral", Path(sys.argv[1])), *map(Path, sys.argv[2:])
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


def change(folder: Path, **values: object) -> None:
    """Change values of the record."""
    path = folder / adapter.RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rewrite(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Replace the weights and have the record name them."""
    path = adapter.weights_of(folder)
    save_file(weights, path, metadata={"format": "pt"})
    change(folder, weights=digest.of_file(path))


def test_a_reloaded_adapter_gives_the_same_bytes(
    base: BaseModel, trained: Encoder, folder: Path
) -> None:
    asked = models.sequences()
    again = models.load(base, folder)
    assert again.embed(asked).tobytes() == trained.embed(asked).tobytes()
    assert again.adapter == digest.of_file(folder / "adapter_model.safetensors")
    assert not any(weight.requires_grad for weight in again.model.parameters())
    assert np.abs(again.embed(asked) - models.load(base).embed(asked)).max() > 1e-2


def test_d22_a_fresh_process_gives_the_same_bytes_and_writes_the_same_files(
    base: BaseModel, trained: Encoder, folder: Path, root: Path, tmp_path: Path
) -> None:
    path = os.pathsep.join((str(root / "src"), str(root / "tests")))
    again = tmp_path / "again"
    answer = subprocess.run(
        [sys.executable, "-c", RELOAD, str(base.folder), str(folder), str(again)],
        env={**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert bytes.fromhex(answer.stdout) == trained.embed(models.sequences()).tobytes()
    assert digest.of_tree(again) == digest.of_tree(folder)


def test_all_weights_of_a_small_encoder_come_back_too(tmp_path: Path) -> None:
    base, asked = models.write(tmp_path / "bert", "bert"), models.sequences()
    tuned = models.load(base, pooling="mean")
    models.attach(tuned, method="all")
    record = adapter.save(tuned.model, tmp_path / "adapter", base, layers=0, template="t")
    assert record.method == "all"
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter.json",
        "weights.safetensors",
    ]
    again = models.load(base, tmp_path / "adapter", pooling="mean")
    assert again.embed(asked).tobytes() == tuned.embed(asked).tobytes()
    bare = models.load(base, pooling="mean")
    assert np.abs(again.embed(asked) - bare.embed(asked)).max() > 1e-2


def test_saving_leaves_the_model_as_it_was(base: BaseModel, tmp_path: Path) -> None:
    encoder, asked = models.load(base), models.sequences()
    models.attach(encoder)
    before = encoder.embed(asked).tobytes()
    adapter.save(encoder.model, tmp_path / "adapter", base, layers=0, template="t")
    assert encoder.embed(asked).tobytes() == before
    models.encode(encoder, asked).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert any(weight.grad is not None for weight in encoder.model.parameters())


def test_the_record_names_what_it_belongs_to(
    base: BaseModel, trained: Encoder, tmp_path: Path
) -> None:
    target = tmp_path / "adapter"
    beside = {"lineage.json": {"questions": [1, 2]}}
    record = adapter.save(
        trained.model, target, base, layers=0, template="the digest", beside=beside
    )
    weights = digest.of_file(target / "adapter_model.safetensors")
    settings = digest.of_file(target / "adapter_config.json")
    assert record == adapter.AdapterRecord(
        "lora", base.digest(), 0, "the digest", weights, settings
    )
    assert adapter.read_record(target) == record
    assert json.loads((target / "lineage.json").read_text()) == {"questions": [1, 2]}
    written = json.loads((target / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "mistral"  # and no path of this machine
    assert written["target_modules"] == sorted(written["target_modules"])
    assert written["inference_mode"] is True


def test_saving_again_replaces_the_folder_whole(
    base: BaseModel, trained: Encoder, folder: Path
) -> None:
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
    with pytest.raises(StaleInput, match="no adapter there; run: invoke train"):
        models.load(base, tmp_path)


def test_d25_another_base_is_refused(base: BaseModel, folder: Path) -> None:
    change(folder, base="0" * 64)
    with pytest.raises(Mismatch, match=r"trained on another base than mistral \(digests differ\)"):
        models.load(base, folder)


def test_another_depth_is_refused(base: BaseModel, folder: Path) -> None:
    with pytest.raises(Mismatch, match="trained on 0 layers, asked to run on 1"):
        models.load(base, folder, num_layers=1)


def test_d22_an_adapter_with_no_matching_key_is_refused(base: BaseModel, folder: Path) -> None:
    weights = load_file(adapter.weights_of(folder))
    rewrite(folder, {name.replace("base_model", "other"): one for name, one in weights.items()})
    with pytest.raises(Mismatch, match="no key of the adapter matches the base"):
        models.load(base, folder)


def test_an_adapter_that_lacks_a_key_or_has_one_more_is_refused(
    base: BaseModel, folder: Path
) -> None:
    weights = load_file(adapter.weights_of(folder))
    name, one = next(iter(sorted(weights.items())))
    rewrite(folder, {**weights, "odd": one.clone()})
    with pytest.raises(Mismatch, match="1 keys do not match the base, such as odd"):
        models.load(base, folder)
    del weights[name]
    rewrite(folder, weights)
    with pytest.raises(Mismatch, match=f"1 keys do not match the base, such as {name}"):
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
    with pytest.raises(Mismatch, match="weights do not fit the base"):
        adapter.restore(other.model, load_file(adapter.weights_of(folder)), "adapter")


def test_all_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path / "bert", "bert")
    tuned = models.load(base, pooling="mean")
    models.attach(tuned, method="all")
    adapter.save(tuned.model, tmp_path / "adapter", base, layers=0, template="t")
    rewrite(tmp_path / "adapter", {"odd": torch.zeros(1)})
    with pytest.raises(Mismatch, match="weights do not fit the base"):
        models.load(base, tmp_path / "adapter", pooling="mean")


def test_a_target_that_is_no_linear_layer_is_refused(base: BaseModel) -> None:
    config = TrainingConfig(target_modules=("q_proj", "query_key_value"))
    with pytest.raises(BadConfig, match=r"no linear layer 'query_key_value'; there: \['down_proj'"):
        adapter.attach(models.load(base).model, config)


def test_training_all_weights_of_four_bits_is_refused(base: BaseModel) -> None:
    with pytest.raises(BadConfig, match=r"training\.method = 'all': weights of 4 bits cannot be"):
        adapter.attach(models.load(base, quantize="4bit").model, TrainingConfig(method="all"))


def test_only_the_named_targets_are_trained(base: BaseModel) -> None:
    config = LORA.model_copy(update={"target_modules": ("q_proj", "v_proj")})
    names = adapter.trained(adapter.attach(models.load(base).model, config))
    assert len(names) == 2 * 2 * 2
    assert all("q_proj" in name or "v_proj" in name for name in names)


def test_a_fresh_adapter_changes_nothing_and_the_same_seed_draws_the_same(base: BaseModel) -> None:
    asked, bare = models.sequences(), models.load(base)
    drawn = []
    for seed in (0, 0, 1):
        encoder = models.load(base)
        torch.manual_seed(seed)
        encoder.model = adapter.attach(encoder.model, LORA).eval()
        np.testing.assert_array_equal(encoder.embed(asked), bare.embed(asked))
        drawn.append(adapter.trained(encoder.model))
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not all(torch.equal(drawn[0][name], drawn[2][name]) for name in drawn[0])


def test_trained_tensors_come_by_name_in_order(trained: Encoder) -> None:
    names = list(adapter.trained(trained.model))
    assert names == sorted(names)
    assert len(names) == 2 * 2 * 7
    assert all("lora_" in name for name in names)


def test_restored_tensors_are_those_given(base: BaseModel, trained: Encoder) -> None:
    other = models.load(base)
    models.attach(other, seed=9)
    asked = models.sequences()
    assert other.embed(asked).tobytes() != trained.embed(asked).tobytes()
    adapter.restore(other.model, adapter.trained(trained.model), "here")
    assert other.embed(asked).tobytes() == trained.embed(asked).tobytes()
