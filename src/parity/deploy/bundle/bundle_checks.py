"""Checks before shipping: the adapter against its base, and free disk space.

Each check returns a short description, or raises the error that shipping would hit later.
"""

import shutil
from pathlib import Path
from typing import Any

from parity.retrieval.models import shape
from parity.retrieval.models.shape import TensorHeader
from parity.run import digest, files
from parity.run.errors import Mismatch, StaleInput

# The names of retrieval/models/adapter.py, which imports torch.
RECORD = "adapter.json"
_LORA, _SETTINGS, _FULL = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "weights.safetensors",
)
_KEYS = {"method", "base", "layers", "weights", "settings"}
_DTYPES = ("F32", "F16", "BF16")


def check_adapter(folder: Path, base: str, layers: int) -> str:
    """Check an adapter against its base; return a description.

    Args:
        folder: folder of adapter.json and the weights.
        base: digest of the base's files.
        layers: layers that the run keeps of the base, 0 for all.

    Raises:
        StaleInput: the adapter is missing, or another version wrote it.
        Mismatch: base, number of layers, files, dtype or rank do not match.
    """
    record = _read_record(folder / RECORD, base, layers)
    weights = folder / (_LORA if record["method"] == "lora" else _FULL)
    for path, sha256 in ((weights, record["weights"]), (folder / _SETTINGS, record["settings"])):
        if sha256 and (not path.is_file() or digest.of_file(path) != sha256):
            raise Mismatch(f"{path.name} of the adapter is not the file that {RECORD} names")
    tensors = shape.read_header(weights)
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if unsupported := sorted(dtypes - set(_DTYPES)):
        raise Mismatch(
            f"adapter has weights of type {unsupported[0]}. Use one of {', '.join(_DTYPES)}"
        )
    if record["method"] == "lora":
        rank = _check_rank(tensors, files.read_json(folder / _SETTINGS))
        return f"LoRA of rank {rank}, {'/'.join(sorted(dtypes))}, {len(tensors)} tensors"
    return f"all weights, {'/'.join(sorted(dtypes))}, {len(tensors)} tensors"


def _read_record(path: Path, base: str, layers: int) -> dict[str, Any]:
    if not path.is_file():
        raise StaleInput(f"adapter is missing: no {RECORD}", fix=("train",))
    record = files.read_json(path)
    if not isinstance(record, dict) or not record.keys() >= _KEYS:
        raise StaleInput(f"{RECORD} was written by another version", fix=("train",))
    if record["base"] != base:
        raise Mismatch(
            f"adapter was trained on a base of digest {record['base'][:12]}, "
            f"but the run's base has {base[:12]}",
            fix=("train",),
        )
    if record["layers"] != layers:
        raise Mismatch(
            f"adapter was trained on {record['layers']} layers, "
            f"but the run keeps {layers} (0: all)",
            fix=("train",),
        )
    return record


def _check_rank(tensors: dict[str, TensorHeader], settings: dict[str, Any]) -> int:
    """Return the rank after comparing it with each pair of matrices."""
    rank = int(settings["r"])
    rank_axes = {".lora_A.": 0, ".lora_B.": 1}
    for name, tensor in tensors.items():
        axis = next((axis for part, axis in rank_axes.items() if part in name), None)
        if axis is not None and tensor.shape[axis] != rank:
            raise Mismatch(
                f"adapter's {name} has shape {tensor.shape}, but {_SETTINGS} has rank {rank}"
            )
    if not any(".lora_A." in name for name in tensors):
        raise Mismatch(f"{_LORA} does not contain LoRA weights")
    return rank


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which may not exist yet."""
    parent = folder.resolve()
    while not parent.exists():
        parent = parent.parent
    return shutil.disk_usage(parent).free


def check_disk(name: str, available: int, needed: int) -> str:
    """Check that the disk has enough space; return how much is free.

    Args:
        name: folder, and the setting that chooses another.
        available: free bytes.
        needed: bytes that shipping writes.

    Raises:
        Mismatch: less is free.
    """
    if available < needed:
        raise Mismatch(
            f"{name} has {available / 1e9:.1f} GB free and needs {needed / 1e9:.1f} GB. "
            "Free some, or choose another folder"
        )
    return f"{available / 1e9:.1f} GB free"
