"""What `doctor` asks before anything is shipped: the adapter against its base, and room on disk.

Each check returns a few words, or raises the error that shipping would meet later.
"""

import shutil
from pathlib import Path
from typing import Any

from parity.retrieval.models import shape
from parity.retrieval.models.shape import Tensor
from parity.run import digest, files
from parity.run.errors import Mismatch, StaleInput

# Named by retrieval/models/adapter.py, which loads torch.
RECORD = "adapter.json"
_LORA, _SETTINGS, _FULL = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "weights.safetensors",
)
_KEYS = {"method", "base", "layers", "weights", "settings"}
_DTYPES = ("F32", "F16", "BF16")


def adapter(folder: Path, base: str, layers: int) -> str:
    """Check an adapter against the base it is to run on; return what it is.

    Args:
        folder: holds adapter.json and the weights.
        base: digest of the base's files.
        layers: layers kept of the base, 0 for all.

    Raises:
        StaleInput: there is no adapter, or one of another version.
        Mismatch: it is of another base or depth, its files are not those it names, or its weights
            cannot be read or are not of its rank.
    """
    record = _record(folder / RECORD, base, layers)
    held = folder / (_LORA if record["method"] == "lora" else _FULL)
    for named, wanted in ((held, record["weights"]), (folder / _SETTINGS, record["settings"])):
        if wanted and (not named.is_file() or digest.of_file(named) != wanted):
            raise Mismatch(f"adapter: {named.name} is not the file that {RECORD} names")
    tensors = shape.header(held)
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if odd := sorted(dtypes - set(_DTYPES)):
        raise Mismatch(f"adapter: weights of type {odd[0]}; want one of {', '.join(_DTYPES)}")
    if record["method"] == "lora":
        rank = _rank(tensors, files.read_json(folder / _SETTINGS))
        return f"LoRA of rank {rank}, {'/'.join(sorted(dtypes))}, {len(tensors)} tensors"
    return f"all weights, {'/'.join(sorted(dtypes))}, {len(tensors)} tensors"


def _record(path: Path, base: str, layers: int) -> dict[str, Any]:
    if not path.is_file():
        raise StaleInput("no adapter there yet; run: invoke train")
    record = files.read_json(path)
    if not isinstance(record, dict) or not record.keys() >= _KEYS:
        raise StaleInput("adapter: made by another version; run: invoke train")
    if record["base"] != base:
        raise Mismatch(
            f"adapter: trained on a base of digest {record['base'][:12]}, this one is {base[:12]}; "
            "run: invoke train"
        )
    if record["layers"] != layers:
        raise Mismatch(
            f"adapter: trained on {record['layers']} layers, the run keeps {layers} (0: all); "
            "run: invoke train"
        )
    return record


def _rank(tensors: dict[str, Tensor], settings: dict[str, Any]) -> int:
    """Return the rank, which every pair of matrices must have."""
    rank = int(settings["r"])
    sides = {".lora_A.": 0, ".lora_B.": 1}
    for name, one in tensors.items():
        side = next((side for mark, side in sides.items() if mark in name), None)
        if side is not None and one.shape[side] != rank:
            raise Mismatch(f"adapter: {name} is {one.shape}, and {_SETTINGS} says rank {rank}")
    if not any(".lora_A." in name for name in tensors):
        raise Mismatch(f"adapter: {_LORA} holds no LoRA weights")
    return rank


def free(folder: Path) -> int:
    """Return the free bytes where `folder` lies, or will lie."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def disk(what: str, there: int, needed: int) -> str:
    """Check that there is room; return how much.

    Args:
        what: which folder, and how to choose another.
        there: free bytes.
        needed: bytes that will be wanted.

    Raises:
        Mismatch: there is less.
    """
    if there < needed:
        raise Mismatch(
            f"{what}: {there / 1e9:.1f} GB free, {needed / 1e9:.1f} GB wanted; free some, or "
            "choose another place"
        )
    return f"{there / 1e9:.1f} GB free"
