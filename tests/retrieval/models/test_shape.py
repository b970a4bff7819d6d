"""The shape of a base model, read from headers, is that of the loaded model."""

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
def test_value_counts_match_the_loaded_model(family: str, tmp_path: Path) -> None:
    base = models.write(tmp_path, family)
    model = AutoModel.from_pretrained(str(base.folder), dtype=torch.float32)
    result = shape.read_shape(tmp_path)
    layers = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "layer" in name
    ]
    assert result.linear == sum(layer.weight.numel() for layer in layers)
    assert result.inputs == sum(layer.in_features for layer in layers)
    assert result.outputs == sum(layer.out_features for layer in layers)
    assert result.largest == max(layer.weight.numel() for layer in layers)
    assert result.linear + result.other == sum(
        parameter.numel() for parameter in model.parameters()
    )
    assert (result.layers, result.width, result.inner) == (2, 32, 48)
    assert (result.heads, result.attention) == (4, 32)
    assert result.windowed == (family in models.SLIDING)
    assert result.capped == (family == "gemma2")


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.float16, 2)])
def test_a_file_has_the_bytes_of_its_values(dtype: torch.dtype, size: int, tmp_path: Path) -> None:
    models.write(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    result = shape.read_shape(tmp_path)
    assert size * (result.linear + result.other) == sum(
        tensor.size for tensor in shape.read_header(path).values()
    )


def test_unused_layers_and_task_heads_are_not_counted(tmp_path: Path) -> None:
    folder = sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.MISTRAL_7B)
    full, first_layers = shape.read_shape(folder), shape.read_shape(folder, layers=8)
    assert (first_layers.linear * 4, first_layers.inputs * 4, first_layers.layers) == (
        full.linear,
        full.inputs,
        8,
    )
    embeddings = sparse_checkpoints.VOCABULARY * 4096
    assert full.other == embeddings + 65 * 4096
    assert full.stored > 2 * (full.linear + full.other + embeddings)


def test_shards_are_counted_together(tmp_path: Path) -> None:
    folder = sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.MISTRAL_7B)
    before = shape.read_shape(folder)
    tensors = shape.read_header(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    plain = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    first = dict(list(plain.items())[:99])
    sparse_checkpoints.save(folder / "model-1.safetensors", first)
    second = {name: tensor for name, tensor in plain.items() if name not in first}
    sparse_checkpoints.save(folder / "model-2.safetensors", second)
    after = shape.read_shape(folder)
    assert (after.linear, after.other) == (before.linear, before.other)


def test_4_bit_weights_count_two_values_for_each_byte(tmp_path: Path) -> None:
    folder = sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.MISTRAL_7B)
    tensors = {
        "layers.0.mlp.up_proj.weight": ("U8", (4096 * 4096 // 2, 1)),
        "layers.0.mlp.up_proj.weight.absmax": ("U8", (4096 * 4096 // 64,)),
        "layers.0.mlp.up_proj.weight.quant_map": ("F32", (16,)),
        "norm.weight": ("F16", (4096,)),
    }
    sparse_checkpoints.save(folder / "model.safetensors", tensors)
    result = shape.read_shape(folder)
    assert (result.linear, result.other, result.packed) == (4096 * 4096, 4096, True)
    assert (result.inputs, result.outputs) == (4096, 4096)


def test_a_window_disabled_in_the_config_is_ignored(tmp_path: Path) -> None:
    for switch, windowed in ((False, False), (True, True)):
        folder = tmp_path / str(switch)
        sparse_checkpoints.write(
            folder, sparse_checkpoints.MISTRAL_7B, sliding_window=4096, use_sliding_window=switch
        )
        assert shape.read_shape(folder).windowed == windowed


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    models.write(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    for length in (0, 4, 8, 100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(Mismatch, match=r"model\.safetensors"):
            shape.read_header(path)


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
        shape.read_header(path)


def test_a_base_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(BadConfig, match="save_pretrained"):
        shape.read_shape(tmp_path)


def test_a_config_without_sizes_is_refused(tmp_path: Path) -> None:
    folder = sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.MISTRAL_7B)
    (folder / "config.json").write_text('{"n_embd": 768}')
    with pytest.raises(BadConfig, match="no hidden_size"):
        shape.read_shape(folder)
