"""Checks of a base model's folder before a library reads it, each with what to do in one line.

Libraries answer these folders with a traceback, or load them in a way that nobody asked for.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parity.retrieval.models import shape
from parity.run import files
from parity.run.errors import BadConfig, Mismatch

_ADAPTER = "adapter_config.json"
_INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"


def check_folder(name: str, folder: Path) -> None:
    """Check that a folder holds a complete base model of a kind that can be run.

    Args:
        name: `encoder.base` of the run file, for the message.
        folder: its folder.

    Raises:
        BadConfig: it is another kind of folder or model.
        Mismatch: a file is cut, missing, or a Git LFS pointer.
    """
    problem = next(_wrong_folder(folder), "")
    if problem:
        raise BadConfig(f"encoder.base = {name!r}: {problem}")
    if not (folder / "config.json").is_file():
        return  # `describe` names the missing file
    if problem := next(_damage(folder), ""):
        raise Mismatch(f"encoder.base = {name!r}: {problem}")
    if problem := next(_wrong_model(_read_config(name, folder / "config.json")), ""):
        raise BadConfig(f"encoder.base = {name!r}: {problem}")


def _wrong_folder(folder: Path) -> Iterator[str]:
    """Yield why a folder is not that of a base model."""
    has_config = (folder / "config.json").is_file()
    snapshots = sorted(path for path in folder.glob("snapshots/*") if path.is_dir())
    if not has_config and snapshots:
        yield f"this is a cache folder of the hub. Use {snapshots[-1].as_posix()}"
    if (folder / _ADAPTER).is_file() and not has_config:
        yield (
            "this is an adapter, not a base model. Set encoder.base to the model that it was "
            "trained on"
        )
    if (folder / _ADAPTER).is_file() and has_config:
        weights = sorted(path.name for path in folder.glob("adapter_model.*"))
        names = " and ".join([_ADAPTER, *weights])
        yield f"an adapter was left in this folder and would be loaded too. Remove {names}"


def _damage(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the files of a folder."""
    for path in filter(_is_pointer, sorted(folder.iterdir())):
        yield f"{path.name} is a Git LFS pointer, not the file. Run `git lfs pull` there"
    index = files.read_json(folder / _INDEX) if (folder / _INDEX).is_file() else {}
    shards = sorted(set(index.get("weight_map", {}).values()))
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        yield f"{len(missing)} of {len(shards)} shards are missing (first: {missing[0]})"
    for path in sorted(folder.glob("*.safetensors")):
        try:
            shape.read_header(path)
        except Mismatch:
            size = path.stat().st_size
            yield (
                f"{path.name} is cut: it has {size} bytes, which are not those of its header. "
                "Download it again"
            )
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        yield "it has no weights (*.safetensors)"


def _is_pointer(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(len(_POINTER)) == _POINTER


def _read_config(name: str, path: Path) -> Mapping[str, Any]:
    config = files.read_json(path)
    if not isinstance(config, dict) or "model_type" not in config:
        raise BadConfig(f"encoder.base = {name!r}: its config.json has no model_type")
    return config


def _wrong_model(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a model cannot be run as it is meant."""
    kind = config["model_type"]
    if config.get("is_encoder_decoder"):
        yield f"{kind} is an encoder-decoder. Use a model with one stack of layers"
    if any(key in config for key in ("vision_config", "text_config", "audio_config")):
        yield f"{kind} reads more than text. Save its text model alone and use that folder"
    method = (config.get("quantization_config") or {}).get("quant_method", "bitsandbytes")
    if method != "bitsandbytes":
        yield (
            f"its weights are quantized by {method}, which cannot be trained or compared. Use the "
            "unquantized model; encoder.quantize = '4bit' quantizes it on loading"
        )
    if config.get("auto_map"):
        yield (
            f"{kind} needs code of its own (auto_map in config.json), which is never run. Use a "
            "model that transformers has built in"
        )
