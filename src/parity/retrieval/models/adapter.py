"""Adapters: trained weights as a PEFT folder, or all weights of a small encoder.

`adapter.json` holds the digest of the base model, so the adapter loads on no other one.
"""

import re
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
from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig, Mismatch, StaleInput

RECORD = "adapter.json"
_LORA_WEIGHTS, _LORA_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_FULL_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class AdapterRecord:
    """Contents of `adapter.json`.

    Attributes:
        method: `lora` or `all`.
        base: digest of the base model's files.
        layers: number of layers of the base model in use; 0 means all.
        template: digest of the prompt templates and lengths in training.
        weights: sha256 of the weights file.
        settings: sha256 of PEFT's `adapter_config.json`, whose alpha scales every weight; empty for
            the method `all`.
    """

    method: Literal["lora", "all"]
    base: str
    layers: int
    template: str
    weights: str
    settings: str

    def digest(self) -> str:
        """Return the digest of weights and settings: alpha scales every weight."""
        return digest.of_value([self.weights, self.settings])


def attach(model: Any, config: TrainingConfig) -> Any:
    """Return `model` with trainable weights: new LoRA layers, or all weights.

    LoRA weights are drawn from torch's global generator; seed it first.

    Args:
        model: base model with frozen weights.
        config: method and LoRA settings.

    Raises:
        BadConfig: a target module does not exist, or the method is `all` on 4-bit weights.

    Source: LoRA, Hu et al. 2021, arXiv 2106.09685.
    """
    if config.method == "all":
        if getattr(model, "is_quantized", False):
            raise BadConfig("training.method = 'all': 4-bit weights cannot be trained. Use 'lora'")
        return model.requires_grad_(True)
    linear = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    if unknown := sorted(set(config.target_modules) - linear):
        raise BadConfig(
            f"training.target_modules: no linear layer {unknown[0]!r}. Use some of {sorted(linear)}"
        )
    experts = expert_weights(model)
    if unknown := sorted(set(config.target_parameters) - set(experts)):
        raise BadConfig(
            f"training.target_parameters: no weight {unknown[0]!r} outside linear layers. Use some "
            f"of {experts}"
        )
    return get_peft_model(
        model,
        LoraConfig(
            task_type="FEATURE_EXTRACTION",
            r=config.r,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # peft only divides it
            lora_dropout=config.lora_dropout,
            target_modules=sorted(config.target_modules or linear),
            target_parameters=sorted(config.target_parameters) or None,
            bias="none",
        ),
    )


def expert_weights(model: Any) -> list[str]:
    """Return the names of stacked weights that are not linear layers, without their layer's number.

    Mixtures of experts hold the matrices of all experts in one tensor.
    """
    names = {
        re.sub(r"^.*?layers\.\d+\.", "", name)
        for name, weight in model.named_parameters()
        if weight.dim() == 3
    }
    return sorted(names)


def describe_untrained(model: Any, config: TrainingConfig) -> list[str]:
    """Return a line for each kind of weight that training leaves out, which a user may expect.

    Args:
        model: base model without adapter.
        config: method and LoRA settings.
    """
    lines = []
    left_out = sorted(set(expert_weights(model)) - set(config.target_parameters))
    if config.method == "lora" and left_out:
        lines.append(
            f"LoRA leaves out the experts ({', '.join(left_out)}); training.target_parameters "
            "trains them"
        )
    dropout = getattr(model.config, "attention_dropout", 0.0) or 0.0
    if dropout:
        lines.append(
            f"attention_dropout = {dropout:g} of the base model is not applied in training"
        )
    return lines


def save(
    model: Any,
    folder: Path,
    base: BaseModel,
    *,
    layers: int,
    template: str,
    extra_files: Mapping[str, Any] | None = None,
) -> AdapterRecord:
    """Write the trained weights of `model` and their record into `folder`; return the record.

    Args:
        model: model returned by `attach`.
        folder: folder of the adapter; replaced if it exists.
        base: base model of `model`.
        layers: number of layers of the base model in use; 0 means all.
        template: digest of the prompt templates and lengths.
        extra_files: file name → JSON value, written into the same folder.
    """
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        if isinstance(model, PeftModel):
            method: Literal["lora", "all"] = "lora"
            weights = temporary / _LORA_WEIGHTS
            save_file(trained_weights(model), weights, metadata={"format": "pt"})
            peft_config: Any = model.peft_config["default"]
            peft_config.inference_mode = True
            # Our record holds the digest of the base model; a path would depend on the machine.
            peft_config.base_model_name_or_path = base.name
            # PEFT stores a set, whose order depends on the hash seed.
            peft_config.target_modules = sorted(peft_config.target_modules)
            peft_config.target_parameters = sorted(peft_config.target_parameters or ()) or None
            peft_config.save_pretrained(str(temporary))
            peft_config.inference_mode = False
        else:
            method, weights = "all", temporary / _FULL_WEIGHTS
            save_file(trained_weights(model), weights, metadata={"format": "pt"})
        record = AdapterRecord(
            method, base.digest(), layers, template, digest.of_file(weights), _settings(temporary)
        )
        files.write_json(temporary / RECORD, asdict(record))
        for name, value in (extra_files or {}).items():
            files.write_json(temporary / name, value)
    return record


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return name → trained tensor of `model` on the CPU, sorted by name."""
    if isinstance(model, PeftModel):
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
    else:
        state = model.state_dict()
    return {name: state[name].detach().cpu().contiguous() for name in sorted(state)}


def restore(model: Any, state: dict[str, torch.Tensor], origin: str) -> None:
    """Load trained tensors into a model returned by `attach`.

    Args:
        model: model returned by `attach`.
        state: name → tensor, from `trained_weights`.
        origin: path of the tensors, for messages.

    Raises:
        Mismatch: names or shapes of the tensors differ from those of the model.
    """
    if not isinstance(model, PeftModel):
        model.load_state_dict(state, strict=True)
        return
    # PEFT's setter imports, with several processes, a module missing from the image's transformers.
    parameters = {name.replace(".default.", "."): tensor for name, tensor in _lora(model).items()}
    if not parameters.keys() & state.keys():
        raise Mismatch(f"{origin}: no key of the adapter matches the base model")
    if unmatched := sorted(parameters.keys() ^ state.keys()):
        raise Mismatch(
            f"{origin}: {len(unmatched)} keys do not match the base model, such as {unmatched[0]}"
        )
    with torch.no_grad():
        for name, tensor in parameters.items():
            if tensor.shape != state[name].shape:
                shape = tuple(state[name].shape)
                raise Mismatch(f"{origin}: weights do not fit the base model ({name} is {shape})")
            tensor.copy_(state[name])


def _lora(model: Any) -> dict[str, torch.Tensor]:
    """Return name in `model` → LoRA parameter."""
    return {name: tensor for name, tensor in model.named_parameters() if ".lora_" in name}


def read_record(folder: Path) -> AdapterRecord:
    """Return the verified record of the adapter in `folder`.

    Raises:
        StaleInput: there is no adapter, or its record has another format.
        Mismatch: the sha256 of the weights or settings differs from the record.
    """
    if not (folder / RECORD).is_file():
        raise StaleInput(f"no adapter in {folder}", fix=("train",))
    values = files.read_json(folder / RECORD)
    if not isinstance(values, dict) or values.keys() != set(AdapterRecord.__dataclass_fields__):
        raise StaleInput(f"the adapter in {folder} is from another version", fix=("train",))
    record = AdapterRecord(**values)
    if digest.of_file(weights_path(folder)) != record.weights:
        raise Mismatch(f"{weights_path(folder)}: not the weights that {RECORD} names")
    if _settings(folder) != record.settings:
        raise Mismatch(f"{folder / _LORA_SETTINGS}: not the settings that {RECORD} names")
    return record


def _settings(folder: Path) -> str:
    path = folder / _LORA_SETTINGS
    return digest.of_file(path) if path.is_file() else ""


def weights_path(folder: Path) -> Path:
    """Return the path of an adapter's weights file."""
    lora = folder / _LORA_WEIGHTS
    return lora if lora.is_file() else folder / _FULL_WEIGHTS


def load(model: Any, folder: Path, base: BaseModel, *, layers: int) -> tuple[Any, AdapterRecord]:
    """Return `model` with the adapter in `folder` applied and frozen, and its record.

    Args:
        model: base model without adapter.
        folder: folder of the adapter.
        base: base model of `model`.
        layers: number of layers in use; 0 means all.

    Raises:
        StaleInput: there is no adapter, or its record has another format.
        Mismatch: the adapter belongs to another base model or depth, or its keys do not match.
    """
    record = read_record(folder)
    if record.base != base.digest():
        raise Mismatch(f"{folder}: trained on another base than {base.name} (digests differ)")
    if record.layers != layers:
        raise Mismatch(f"{folder}: trained on {record.layers} layers, but the run uses {layers}")
    if record.method == "lora":
        config = LoraConfig.from_pretrained(str(folder))
        config.base_model_name_or_path = None  # PEFT warns if the path has changed
        model = get_peft_model(model, config)
    state = load_file(weights_path(folder))
    try:
        restore(model, state, str(folder))
    except RuntimeError as error:
        raise Mismatch(f"{folder}: weights do not fit the base model ({error})") from error
    return model.requires_grad_(False), record
