"""A base's shape is read from headers, and is that of the model transformers would load."""

from pathlib import Path

import models
import pytest
import torch
from deploy.bundle import sparse_checkpoints
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from parity.retrieval.models import shape
from parity.run.errors import BadConfig, Mismatch


@pytest.mark.parametrize("family", ["mistral", "llama", "qwen3", "gemma2", "bert"])
def test_values_are_counted_as_in_the_loaded_model(family: str, tmp_path: Path) -> None:
    base = models.write(tmp_path, family)
    model = AutoModel.from_pretrained(str(base.folder), dtype=torch.float32)
    found = shape.shape(tmp_path)
    layers = [
        one
        for name, one in model.named_modules()
        if isinstance(one, torch.nn.Linear) and "layer" in name
    ]
    assert found.linear == sum(layer.weight.numel() for layer in layers)
    assert found.inputs == sum(layer.in_features for layer in layers)
    assert found.outputs == sum(layer.out_features for layer in layers)
    assert found.largest == max(layer.weight.numel() for layer in layers)
    assert found.linear + found.other == sum(parameter.numel() for parameter in model.parameters())
    assert (found.layers, found.width, found.inner) == (2, 32, 48)
    assert (found.heads, found.attention) == (4, 32)
    assert found.windowed == (family in models.SLIDING)
    assert found.capped == (family == "gemma2")


@pytest.mark.parametrize(("dtype", "wide"), [(torch.float32, 4), (torch.float16, 2)])
def test_a_file_has_the_bytes_of_its_values(dtype: torch.dtype, wide: int, tmp_path: Path) -> None:
    models.write(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    save_file({name: one.to(dtype) for name, one in load_file(path).items()}, path)
    found = shape.shape(tmp_path)
    assert wide * (found.linear + found.other) == sum(
        one.size for one in shape.header(path).values()
    )


def test_layers_that_are_cut_off_and_heads_for_other_tasks_do_not_count(tmp_path: Path) -> None:
    folder = sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.MISTRAL_7B)
    whole, cut = shape.shape(folder), shape.shape(folder, layers=8)
    assert (cut.linear * 4, cut.inputs * 4, cut.layers) == (whole.linear, whole.inputs, 8)
    embeddings = sparse_checkpoints.VOCABULARY * 4096
    assert whole.other == embeddings + 65 * 4096
    assert whole.stored > 2 * (whole.linear + whole.other + embeddings)


def test_shards_count_as_one(tmp_path: Path) -> None:
    folder = sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.MISTRAL_7B)
    before = shape.shape(folder)
    tensors = shape.header(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    plain = {name: (one.dtype, one.shape) for name, one in tensors.items()}
    first = dict(list(plain.items())[:99])
    sparse_checkpoints.save(folder / "model-1.safetensors", first)
    rest = {name: one for name, one in plain.items() if name not in first}
    sparse_checkpoints.save(folder / "model-2.safetensors", rest)
    after = shape.shape(folder)
    assert (after.linear, after.other) == (before.linear, before.other)


def test_weights_that_lie_in_four_bits_count_two_values_a_byte(tmp_path: Path) -> None:
    folder = sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.MISTRAL_7B)
    tensors = {
        "layers.0.mlp.up_proj.weight": ("U8", (4096 * 4096 // 2, 1)),
        "layers.0.mlp.up_proj.weight.absmax": ("U8", (4096 * 4096 // 64,)),
        "layers.0.mlp.up_proj.weight.quant_map": ("F32", (16,)),
        "norm.weight": ("F16", (4096,)),
    }
    sparse_checkpoints.save(folder / "model.safetensors", tensors)
    found = shape.shape(folder)
    assert (found.linear, found.other, found.packed) == (4096 * 4096, 4096, True)
    assert (found.inputs, found.outputs) == (4096, 4096)


def test_a_window_that_the_config_switches_off_is_none(tmp_path: Path) -> None:
    for switch, windowed in ((False, False), (True, True)):
        folder = tmp_path / str(switch)
        sparse_checkpoints.write(
            folder, sparse_checkpoints.MISTRAL_7B, sliding_window=4096, use_sliding_window=switch
        )
        assert shape.shape(folder).windowed == windowed


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    models.write(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(Mismatch, match=r"model\.safetensors"):
            shape.header(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[1, 2]",
        b"{nonsense",
        b'{"a": {"dtype": "F16"}}',
        b'{"a": 3}',
        b'{"a": {"dtype": "F16", "shape": [3], "data_offsets": [0, 4]}}',
        b"\xff\xfe",
    ],
)
def test_a_header_that_cannot_be_read_is_refused(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(Mismatch, match="cannot be read"):
        shape.header(path)


def test_a_base_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(BadConfig, match="save_pretrained"):
        shape.shape(tmp_path)


def test_a_config_that_does_not_tell_its_size_is_refused(tmp_path: Path) -> None:
    folder = sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.MISTRAL_7B)
    (folder / "config.json").write_text('{"n_embd": 768}')
    with pytest.raises(BadConfig, match="no hidden_size"):
        shape.shape(folder)
