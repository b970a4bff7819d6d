"""Folders that libraries answer with a traceback get one line that says what to do."""

import json
import os
from pathlib import Path
from typing import Any

import models
import pytest
from safetensors.torch import load_file, save_file

from parity.retrieval.encoder import Encoder
from parity.retrieval.models import base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig, BadData, Mismatch, ParityError

Change = dict[str, Any]


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return models.write(tmp_path / "base", "llama")


def resolve(folder: Path) -> BaseModel:
    return base_model.resolve(str(folder), "", folder.parent / "cache")


def refused(folder: Path) -> str:
    """Return the one line with which a folder is refused."""
    with pytest.raises(ParityError) as error:
        resolve(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_complete_folder_is_accepted(base: BaseModel) -> None:
    assert resolve(base.folder).digest() == base.digest()


def test_a_cache_folder_of_the_hub_names_its_snapshot(base: BaseModel, tmp_path: Path) -> None:
    root = tmp_path / "models--org--name"
    snapshot = root / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    base.folder.rename(snapshot)
    assert f"Use {snapshot.as_posix()}" in refused(root)
    assert resolve(snapshot).digest() == base.digest()


def test_an_adapter_is_not_a_base_model(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    assert "this is an adapter, not a base model" in refused(folder)


def test_an_adapter_left_in_a_merged_folder_is_named(base: BaseModel) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (base.folder / name).write_text("{}")
    expected = "Remove adapter_config.json and adapter_model.safetensors"
    assert expected in refused(base.folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_named(base: BaseModel, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (base.folder / name).write_text(pointer)
    assert f"{name} is a Git LFS pointer" in refused(base.folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_cut_weights_are_refused_with_their_size(base: BaseModel, share: float) -> None:
    path = base.folder / "model.safetensors"
    size = path.stat().st_size
    os.truncate(path, int(size * share))
    assert "model.safetensors" in (line := refused(base.folder))
    assert f"{int(size * share)} bytes" in line
    assert "Download it again" in line


def test_weights_with_bytes_after_their_end_are_refused(base: BaseModel) -> None:
    path = base.folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"0")
    assert "model.safetensors is cut: it has" in refused(base.folder)


def test_missing_shards_are_counted(base: BaseModel) -> None:
    weights = load_file(base.folder / "model.safetensors")
    names = [f"model-{number}-of-3.safetensors" for number in (1, 2, 3)]
    keys = sorted(weights)
    index = {key: names[number % 3] for number, key in enumerate(keys)}
    for name in names[1:2]:
        part = {key: weights[key] for key in keys if index[key] == name}
        save_file(part, base.folder / name, metadata={"format": "pt"})
    (base.folder / "model.safetensors").unlink()
    path = base.folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    assert f"2 of 3 shards are missing (first: {names[0]})" in refused(base.folder)


def test_a_folder_without_weights_is_refused(base: BaseModel) -> None:
    (base.folder / "model.safetensors").unlink()
    assert "it has no weights" in refused(base.folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"is_encoder_decoder": True, "model_type": "t5"}, "t5 is an encoder-decoder"),
        ({"vision_config": {}, "model_type": "gemma3"}, "gemma3 reads more than text"),
        ({"text_config": {}, "model_type": "mistral3"}, "mistral3 reads more than text"),
        ({"quantization_config": {"quant_method": "gptq"}}, "its weights are quantized by gptq"),
        ({"quantization_config": {"quant_method": "awq"}}, "its weights are quantized by awq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "its weights are quantized by fp8"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "needs code of its own"),
    ],
)
def test_a_model_that_cannot_be_run_as_meant_is_refused(
    base: BaseModel, change: Change, expected: str
) -> None:
    path = base.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert expected in refused(base.folder)


@pytest.mark.parametrize("text", ["", "{", "\ufeff{}", "[]", "{}", "null"])
def test_a_cut_or_foreign_config_is_refused(base: BaseModel, text: str) -> None:
    (base.folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises((BadConfig, BadData)) as error:
        resolve(base.folder)
    assert "config.json" in str(error.value)


def test_an_unknown_model_type_is_one_line_of_the_library(base: BaseModel) -> None:
    path = base.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llama99"}))
    with pytest.raises(BadConfig, match=r"transformers \S+ cannot load its config\.json") as error:
        Encoder(resolve(base.folder), EncoderConfig(precision="fp32", device="cpu"))
    assert "\n" not in str(error.value)


def test_a_broken_tokenizer_is_one_line(base: BaseModel) -> None:
    path = base.folder / "tokenizer.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(BadConfig, match=r"tokenizer\.json cannot be read"):
        Encoder(resolve(base.folder), EncoderConfig(precision="fp32", device="cpu"))


def test_a_hub_model_that_cannot_be_downloaded_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadConfig, match=r"at 0123456789ab cannot be downloaded \(.*gated"):
        base_model.resolve("org/name", "0123456789abcdef", tmp_path)


def test_a_damaged_record_is_a_mismatch(base: BaseModel) -> None:
    base_model.write_record(base, base.folder)
    assert resolve(base.folder).digest() == base.digest()
    path = base.folder / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(Mismatch, match=r"tokenizer\.json differs from its base\.json"):
        resolve(base.folder)
