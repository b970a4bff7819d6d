"""What weights are made of, read from the headers of their safetensors; none is loaded."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.run import files
from parity.run.errors import BadConfig, Mismatch

BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1, "BOOL": 1}
"""Bytes of one value, by the format's name of its type."""

_LENGTH = 8  # bytes at the start that say how long the header is
_LONGEST = 100_000_000  # bytes of a header; the format's own limit
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks)\.(\d+)\.")
_HEADS = ("lm_head.", "cls.", "score.")  # of a model for another task; an encoder loads none


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        dtype: the format's name of its type, such as `F16`.
        shape: its dimensions.
        size: bytes in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a base costs memory and time, for the layers that are kept.

    Attributes:
        linear: values in the layers' matrices, which can be quantized.
        other: values in all else: embeddings, norms, biases.
        inputs: sum of the matrices' columns.
        outputs: sum of the matrices' rows.
        largest: values in the largest matrix.
        layers: how many.
        width: of a hidden state.
        inner: of the layers' wide part.
        heads: attention heads of a layer.
        attention: width of all of them together.
        windowed: whether a layer looks back on a window only.
        capped: whether attention scores are capped, so that each is written to memory.
        packed: whether the files hold 4-bit weights already.
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


def header(path: Path) -> dict[str, Tensor]:
    """Return name → tensor of a safetensors file, in the file's order.

    Source: safetensors, README, "Format".

    Raises:
        Mismatch: it is no safetensors file, or one that was cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(_LENGTH), "little")
        if not 2 <= length <= min(_LONGEST, size - _LENGTH):
            raise Mismatch(f"{path}: no safetensors file (its header would not fit into it)")
        text = handle.read(length)
    try:
        found = {name: _tensor(one) for name, one in json.loads(text).items() if name[0] != "_"}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Mismatch(f"{path}: no safetensors file (its header cannot be read)") from error
    held = size - _LENGTH - length
    if sum(one.size for one in found.values()) != held:
        raise Mismatch(f"{path}: {held} bytes of weights are not those its header names; cut short")
    return found


def _tensor(entry: dict[str, Any]) -> Tensor:
    start, stop = entry["data_offsets"]
    shape = tuple(int(one) for one in entry["shape"])
    found = Tensor(str(entry["dtype"]), shape, int(stop) - int(start))
    if found.dtype in BYTES and math.prod(shape) * BYTES[found.dtype] != found.size:
        raise ValueError(f"shape {shape} of {found.dtype} does not take {found.size} bytes")
    return found


def shape(folder: Path, layers: int = 0) -> ModelShape:
    """Return the shape of the base in `folder`.

    Args:
        folder: holds config.json and *.safetensors.
        layers: keep only the first n; 0 keeps all.

    Raises:
        BadConfig: it holds no safetensors, or its config.json does not say how large layers are.
        Mismatch: a file of them cannot be read.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise BadConfig(
            f"{folder.name}: no *.safetensors there, and other weights cannot be counted without "
            "loading them; save the base once with save_pretrained"
        )
    config = _config(folder)
    kept = layers or int(config["num_hidden_layers"])
    found = {name: one for path in paths for name, one in header(path).items()}
    tensors = {name: one for name, one in found.items() if _loaded(name, kept)}
    matrices = {name: one for name, one in tensors.items() if _is_matrix(name, one)}
    values = {name: _values(one) for name, one in matrices.items()}
    sides = list(_sides(matrices))
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or config["hidden_size"] // heads)
    others = (one for name, one in tensors.items() if name not in matrices and not _state(name))
    return ModelShape(
        linear=sum(values.values()),
        other=sum(math.prod(one.shape) for one in others),
        inputs=sum(columns for _, columns in sides),
        outputs=sum(rows for rows, _ in sides),
        largest=max(values.values(), default=0),
        layers=kept,
        width=int(config["hidden_size"]),
        inner=int(config.get("intermediate_size") or 4 * config["hidden_size"]),
        heads=heads,
        attention=heads * head,
        windowed=bool(config.get("sliding_window")) and config.get("use_sliding_window", True),
        capped=bool(config.get("attn_logit_softcapping")),
        packed=any(matrix.dtype == "U8" for matrix in matrices.values()),
        stored=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
    )


def _config(folder: Path) -> dict[str, Any]:
    found = files.read_json(folder / "config.json")
    config = {**found, **found.get("text_config", {})}
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
        if not isinstance(config.get(key), int):
            raise BadConfig(f"{folder.name}/config.json: no {key}; a plan cannot tell its size")
    return config


def _loaded(name: str, layers: int) -> bool:
    found = _LAYER.search(name)
    return not name.startswith(_HEADS) and (found is None or int(found[1]) < layers)


def _is_matrix(name: str, tensor: Tensor) -> bool:
    return bool(_LAYER.search(name)) and len(tensor.shape) > 1 and not _state(name)


def _state(name: str) -> bool:
    """Return whether a tensor only says how 4-bit weights are to be read."""
    return ".weight." in name


def _values(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * (2 if tensor.dtype == "U8" else 1)  # two to a byte


def _sides(matrices: dict[str, Tensor]) -> Iterator[tuple[int, int]]:
    """Yield rows and columns; of 4-bit weights, which lie flat, those of a square."""
    for matrix in matrices.values():
        if matrix.dtype == "U8":
            side = math.isqrt(_values(matrix))
            yield side, side
        else:
            yield math.prod(matrix.shape[:-1]), matrix.shape[-1]
