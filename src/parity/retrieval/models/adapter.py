"""What training changed, on disk: a PEFT folder, or all weights of a small encoder.

`adapter.json` names the base it belongs to by digest, so that it can be loaded on nothing else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from parity.retrieval.models.base_model import BaseModel
from parity.run import digest, files
from parity.run.config.run_file import TrainingConfig
from parity.run.errors import BadConfig, Mismatch, StaleInput

RECORD = "adapter.json"
_LORA_WEIGHTS, _LORA_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_FULL_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class AdapterRecord:
    """What `adapter.json` holds.

    Attributes:
        method: `lora` or `all`.
        base: digest of the base's files.
        layers: layers kept of the base, 0 for all.
        template: digest of prompt templates and lengths it was trained with.
        weights: sha256 of the weights file.
        settings: sha256 of PEFT's `adapter_config.json`, whose alpha scales every weight; empty
            where there is none.
    """

    method: Literal["lora", "all"]
    base: str
    layers: int
    template: str
    weights: str
    settings: str


def attach(model: Any, config: TrainingConfig) -> Any:
    """Return `model` with trainable weights as `config` wants: fresh LoRA layers, or all its own.

    Randomness comes from torch's global generator; seed it first.

    Raises:
        BadConfig: a named target is no linear layer of the model, or all of 4 bits are wanted.
    """
    if config.method == "all":
        if getattr(model, "is_quantized", False):
            raise BadConfig(
                "training.method = 'all': weights of 4 bits cannot be trained; use lora"
            )
        return model.requires_grad_(True)
    linear = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    if unknown := sorted(set(config.target_modules) - linear):
        raise BadConfig(
            f"training.target_modules: no linear layer {unknown[0]!r}; there: {sorted(linear)}"
        )
    return get_peft_model(
        model,
        LoraConfig(
            task_type="FEATURE_EXTRACTION",
            r=config.r,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # peft divides it only
            lora_dropout=config.lora_dropout,
            target_modules=sorted(config.target_modules or linear),
            bias="none",
        ),
    )


def save(
    model: Any,
    folder: Path,
    base: BaseModel,
    *,
    layers: int,
    template: str,
    beside: Mapping[str, Any] | None = None,
) -> AdapterRecord:
    """Write the trained weights of `model` and their record into a new `folder`.

    Args:
        model: as `attach` made it.
        folder: replaced whole.
        base: what `model` started from.
        layers: layers kept of the base, 0 for all.
        template: digest of prompt templates and lengths.
        beside: file name → JSON value, written into the same folder.
    """
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        if isinstance(model, PeftModel):
            method: Literal["lora", "all"] = "lora"
            weights = temporary / _LORA_WEIGHTS
            save_file(trained(model), weights, metadata={"format": "pt"})
            peft_config: Any = model.peft_config["default"]
            peft_config.inference_mode = True
            # The base is named by digest in our record; a path would tie it to one machine.
            peft_config.base_model_name_or_path = base.name
            # PEFT keeps a set, and would write it in the order of the hash seed.
            peft_config.target_modules = sorted(peft_config.target_modules)
            peft_config.save_pretrained(str(temporary))
            peft_config.inference_mode = False
        else:
            method, weights = "all", temporary / _FULL_WEIGHTS
            save_file(trained(model), weights, metadata={"format": "pt"})
        record = AdapterRecord(
            method, base.digest(), layers, template, digest.of_file(weights), _settings(temporary)
        )
        files.write_json(temporary / RECORD, asdict(record))
        for name, value in (beside or {}).items():
            files.write_json(temporary / name, value)
    return record


def trained(model: Any) -> dict[str, torch.Tensor]:
    """Return the trained tensors of `model` on the CPU, by name, in ascending order."""
    if isinstance(model, PeftModel):
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
    else:
        state = model.state_dict()
    return {name: state[name].detach().cpu().contiguous() for name in sorted(state)}


def restore(model: Any, state: dict[str, torch.Tensor], origin: str) -> None:
    """Load trained tensors into a model that `attach` prepared.

    Raises:
        Mismatch: a tensor has no place in the model, or the model wants one that is not there.
    """
    if not isinstance(model, PeftModel):
        model.load_state_dict(state, strict=True)
        return
    # Not by PEFT's own setter: with several processes it asks for a module that the image's
    # transformers does not have.
    own = {name.replace(".default.", "."): tensor for name, tensor in _lora(model).items()}
    if not own.keys() & state.keys():
        raise Mismatch(f"{origin}: no key of the adapter matches the base; it would change nothing")
    if odd := sorted(own.keys() ^ state.keys()):
        raise Mismatch(f"{origin}: {len(odd)} keys do not match the base, such as {odd[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                shape = tuple(state[name].shape)
                raise Mismatch(f"{origin}: weights do not fit the base ({name} is {shape})")
            tensor.copy_(state[name])


def _lora(model: Any) -> dict[str, torch.Tensor]:
    """Return the adapter's own parameters, by their names in `model`."""
    return {name: tensor for name, tensor in model.named_parameters() if ".lora_" in name}


def read_record(folder: Path) -> AdapterRecord:
    """Return the record of the adapter in `folder`.

    Raises:
        StaleInput: there is none.
        Mismatch: the weights file is not the one recorded.
    """
    if not (folder / RECORD).is_file():
        raise StaleInput(f"{folder}: no adapter there; run: invoke train")
    written = files.read_json(folder / RECORD)
    if not isinstance(written, dict) or written.keys() != set(AdapterRecord.__dataclass_fields__):
        raise StaleInput(f"{folder}: an adapter of another version; run: invoke train")
    record = AdapterRecord(**written)
    if digest.of_file(weights_of(folder)) != record.weights:
        raise Mismatch(f"{weights_of(folder)}: not the weights that {RECORD} names")
    if _settings(folder) != record.settings:
        raise Mismatch(f"{folder / _LORA_SETTINGS}: not the settings that {RECORD} names")
    return record


def _settings(folder: Path) -> str:
    path = folder / _LORA_SETTINGS
    return digest.of_file(path) if path.is_file() else ""


def weights_of(folder: Path) -> Path:
    """Return the file that holds an adapter's weights."""
    lora = folder / _LORA_WEIGHTS
    return lora if lora.is_file() else folder / _FULL_WEIGHTS


def load(model: Any, folder: Path, base: BaseModel, *, layers: int) -> tuple[Any, AdapterRecord]:
    """Return `model` with the adapter in `folder` applied, frozen.

    Raises:
        Mismatch: the adapter belongs to another base or depth, or its keys do not match.
    """
    record = read_record(folder)
    if record.base != base.digest():
        raise Mismatch(f"{folder}: trained on another base than {base.name} (digests differ)")
    if record.layers != layers:
        raise Mismatch(f"{folder}: trained on {record.layers} layers, asked to run on {layers}")
    if record.method == "lora":
        config = LoraConfig.from_pretrained(str(folder))
        config.base_model_name_or_path = None  # PEFT warns where the base lies elsewhere now
        model = get_peft_model(model, config)
    state = load_file(weights_of(folder))
    try:
        restore(model, state, str(folder))
    except RuntimeError as error:
        raise Mismatch(f"{folder}: weights do not fit the base ({error})") from error
    return model.requires_grad_(False), record
