"""Bytes that a token takes of a GPU's memory, logged for all runs by base and training settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity.deploy.planning import memory_log
from parity.deploy.planning.local_plan import Kind
from parity.pipeline import encoder_loading
from parity.run.config.encoder import EncoderConfig
from parity.run.config.run_file import Config
from parity.run.config.training import TrainingConfig

_SPEED_KEYS = ("base", "num_layers", "precision", "quantize", "attention")
"""Encoder settings that change the speed: only equal ones are compared."""


def log_memory(path: Path, config: Config, gpu: str, kind: Kind, bytes_per_token: float) -> None:
    """Write the bytes that a token took on a GPU to the log of all runs.

    Args:
        path: log of all runs.
        config: its base and training are part of the key.
        gpu: as in the encoder's `speed`.
        kind: work that ran.
        bytes_per_token: measured bytes; 0, which is not logged, when the peak is unknown.
    """
    name = _log_names(config.training)[kind]
    memory_log.log_bytes_per_token(path, _log_key(config.encoder, gpu), name, bytes_per_token)


def log_memory_of_lists(path: Path, config: Config, kind: Kind, facts: dict[str, Any]) -> None:
    """Write the bytes that a token of a stage's lists took to the log of all runs.

    Args:
        path: log of all runs.
        config: its base is part of the key.
        kind: work that ran.
        facts: of the stage: `speed` and `took`, from its encoder.
    """
    bytes_per_token = memory_log.peak_per_token(facts["took"].values())
    log_memory(path, config, facts["speed"]["gpu"], kind, bytes_per_token)


def logged_bytes_per_token(path: Path, config: Config, gpu: str) -> dict[str, float]:
    """Return kind → logged bytes of a token of this run's base on this GPU."""
    logged = memory_log.read_bytes_per_token(path, _log_key(config.encoder, gpu))
    names = _log_names(config.training)
    return {kind: logged[name] for kind, name in names.items() if name in logged}


def _log_names(training: TrainingConfig) -> dict[Kind, str]:
    """Return kind → its name in the log; that of training includes its memory settings."""
    settings = training_settings(training.model_dump())
    return {"base": "base", "adapter": "adapter", "train": " ".join(["train", *settings])}


def training_settings(training: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings that change memory and speed of a training step."""
    checkpointing = "checkpointed" if training.get("gradient_checkpointing") else "kept"
    return (str(training.get("method")), str(training.get("r")), checkpointing)


def _log_key(encoder: EncoderConfig, gpu: str) -> str:
    settings = speed_settings(encoder.model_dump(mode="json"))
    return " ".join([gpu.split(";")[0], *settings])


def speed_settings(encoder: Mapping[str, Any]) -> list[str]:
    """Return the encoder settings that change the speed, the base without its folders."""
    base, *settings = (str(encoder.get(key)) for key in _SPEED_KEYS)
    return [encoder_loading.portable_name(base), *settings]
