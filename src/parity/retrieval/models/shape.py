"""Shape of a base model, read from the headers of its safetensors files without the weights."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.run import files
from parity.run.errors import BadConfig, Mismatch

VALUE_BYTES = {
    "F64": 8,
    "I64": 8,
    "F32": 4,
    "I32": 4,
    "F16": 2,
    "BF16": 2,
    "U8": 1,
    "I8": 1,
    "BOOL": 1,
}
"""Safetensors dtype → bytes of one value."""

_LENGTH_BYTES = 8  # bytes at the start of a file that hold the length of the header
_MAX_HEADER = 100_000_000  # bytes of a header; limit of the format
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks)\.(\d+)\.")
_HEADS = ("lm_head.", "cls.", "score.")  # weights of task heads; an encoder does not load them


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """Header entry of one tensor.

    Attributes:
        dtype: safetensors dtype, such as `F16`.
        shape: dimensions.
        size: bytes in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a base model that determine its memory and time, for the layers in use.

    Attributes:
        linear: values in the matrices of the layers, which can be quantized.
        other: values in all other weights: embeddings, norms, biases.
        inputs: sum of the columns of the matrices.
        outputs: sum of the rows of the matrices.
        largest: values in the largest matrix.
        layers: number of layers.
        width: width of a hidden state.
        inner: inner width of the MLP.
        heads: attention heads of a layer.
        attention: width of all attention heads of a layer.
        windowed: whether a layer has a sliding window.
        capped: whether attention scores are capped, so that all scores are stored in memory.
        packed: whether the files hold 4-bit weights.
        stored: bytes of the files.
    """

    linear: int
    other: int
    inputs: int
    outputs: int
    largest: int
    layers: int
    width: int
    inner: int
    heads: int
    attention: int
    windowed: bool = False
    capped: bool = False
    packed: bool = False
    stored: int = 0


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Return name → header entry of a safetensors file, in the order of the file.

    Source: safetensors, README, "Format".

    Raises:
        Mismatch: the file has another format or is truncated.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(_LENGTH_BYTES), "little")
        if not 2 <= length <= min(_MAX_HEADER, size - _LENGTH_BYTES):
            raise Mismatch(
                f"{path} is not a safetensors file: its header cannot have {length} bytes"
            )
        text = handle.read(length)
    try:
        tensors = {
            name: _tensor(tensor) for name, tensor in json.loads(text).items() if name[0] != "_"
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Mismatch(f"{path} is not a safetensors file: its header cannot be read") from error
    size_of_data = size - _LENGTH_BYTES - length
    if sum(tensor.size for tensor in tensors.values()) != size_of_data:
        raise Mismatch(
            f"{path} is truncated: its header does not match {size_of_data} bytes of weights"
        )
    return tensors


def _tensor(entry: dict[str, Any]) -> TensorHeader:
    start, stop = entry["data_offsets"]
    shape = tuple(int(side) for side in entry["shape"])
    tensor = TensorHeader(str(entry["dtype"]), shape, int(stop) - int(start))
    if tensor.dtype in VALUE_BYTES and math.prod(shape) * VALUE_BYTES[tensor.dtype] != tensor.size:
        raise ValueError(f"shape {shape} of {tensor.dtype} does not take {tensor.size} bytes")
    return tensor


def read_shape(folder: Path, layers: int = 0) -> ModelShape:
    """Return the shape of the base model in `folder`.

    Args:
        folder: folder with config.json and *.safetensors.
        layers: number of first layers in use; 0 means all.

    Raises:
        BadConfig: the folder has no safetensors, or its config.json has no layer sizes.
        Mismatch: a safetensors file cannot be read.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise BadConfig(
            f"no *.safetensors in {folder.name}; other weights cannot be counted without loading "
            "them. Save the model with save_pretrained"
        )
    config = _config(folder)
    layer_count = layers or int(config["num_hidden_layers"])
    stored = {name: tensor for path in paths for name, tensor in read_header(path).items()}
    tensors = {name: tensor for name, tensor in stored.items() if _is_loaded(name, layer_count)}
    matrices = {name: tensor for name, tensor in tensors.items() if _is_matrix(name, tensor)}
    values = {name: _values(tensor) for name, tensor in matrices.items()}
    sides = list(_sides(matrices))
    heads = int(config["num_attention_heads"])
    head_width = int(config.get("head_dim") or config["hidden_size"] // heads)
    other_tensors = (
        tensor
        for name, tensor in tensors.items()
        if name not in matrices and not _is_quantization_state(name)
    )
    return ModelShape(
        linear=sum(values.values()),
        other=sum(math.prod(tensor.shape) for tensor in other_tensors),
        inputs=sum(columns for _, columns in sides),
        outputs=sum(rows for rows, _ in sides),
        largest=max(values.values(), default=0),
        layers=layer_count,
        width=int(config["hidden_size"]),
        inner=int(config.get("intermediate_size") or 4 * config["hidden_size"]),
        heads=heads,
        attention=heads * head_width,
        windowed=bool(config.get("sliding_window")) and config.get("use_sliding_window", True),
        capped=bool(config.get("attn_logit_softcapping")),
        packed=any(matrix.dtype == "U8" for matrix in matrices.values()),
        stored=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
    )


def _config(folder: Path) -> dict[str, Any]:
    values = files.read_json(folder / "config.json")
    config = {**values, **values.get("text_config", {})}
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
        if not isinstance(config.get(key), int):
            raise BadConfig(f"no {key} in {folder.name}/config.json, so the size is unknown")
    return config


def _is_loaded(name: str, layers: int) -> bool:
    match = _LAYER.search(name)
    return not name.startswith(_HEADS) and (match is None or int(match[1]) < layers)


def _is_matrix(name: str, tensor: TensorHeader) -> bool:
    return bool(_LAYER.search(name)) and len(tensor.shape) > 1 and not _is_quantization_state(name)


def _is_quantization_state(name: str) -> bool:
    """Return whether a tensor is quantization state of 4-bit weights."""
    return ".weight." in name


def _values(tensor: TensorHeader) -> int:
    return math.prod(tensor.shape) * (2 if tensor.dtype == "U8" else 1)  # two values in a byte


def _sides(matrices: dict[str, TensorHeader]) -> Iterator[tuple[int, int]]:
    """Yield rows and columns of each matrix; 4-bit weights are stored flat and count as square."""
    for matrix in matrices.values():
        if matrix.dtype == "U8":
            side = math.isqrt(_values(matrix))
            yield side, side
        else:
            yield math.prod(matrix.shape[:-1]), matrix.shape[-1]
