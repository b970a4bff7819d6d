"""Checkpoints that survive kill -9: each is a new folder, complete or absent; the newest stays.

Tensors are safetensors files and the state is JSON; there is no pickle.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from parity.retrieval.models import adapter
from parity.run import files
from parity.training.stats import TrainingStats

_STATE, _TRAINED, _OPTIMIZER = "state.json", "trained.safetensors", "optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """Progress of a training.

    Attributes:
        step: number of optimizer steps done.
        steps: total number of optimizer steps, after the cap on minutes.
        capped: whether the cap on minutes has been converted to `steps`.
        key: digest of everything that the training depends on.
        budget: largest number of tokens in a pack, after halving if memory ran out.
        losses: mean loss of each step done.
        spent: cost of the steps done.
    """

    step: int
    steps: int
    capped: bool
    key: str
    budget: int
    losses: tuple[float, ...] = field(default=())
    spent: TrainingStats = field(default=TrainingStats())


def save(
    folder: Path, progress: CheckpointState, model: Any, optimizer: torch.optim.Optimizer
) -> None:
    """Write the checkpoint of `progress.step`, then delete all others."""
    target = folder / f"step-{progress.step:07d}"
    if newest(folder, progress.key) != target:
        with files.replacing(target) as temporary:
            temporary.mkdir()
            save_file(adapter.trained_weights(model), temporary / _TRAINED)
            save_file(_optimizer_tensors(optimizer), temporary / _OPTIMIZER)
            files.write_json(temporary / _STATE, asdict(progress))
    for path in sorted(folder.iterdir()):
        if path != target:
            files.remove(path)


def newest(folder: Path, key: str) -> Path | None:
    """Return the newest complete checkpoint of `key`, or None."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        if files.read_json(path / _STATE)["key"] == key:
            return path
    return None


def load(path: Path, model: Any, optimizer: torch.optim.Optimizer) -> CheckpointState:
    """Restore model and optimizer from the checkpoint at `path` and return its state.

    Raises:
        Mismatch: the weights do not fit the model.
    """
    adapter.restore(model, load_file(path / _TRAINED), str(path))
    tensors = load_file(path / _OPTIMIZER)
    state = optimizer.state_dict()
    state["state"] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(state)
    values = files.read_json(path / _STATE)
    spent = TrainingStats(**values.get("spent", {}))  # missing in checkpoints of older versions
    return CheckpointState(**{**values, "losses": tuple(values["losses"]), "spent": spent})


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state: dict[int, dict[str, torch.Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": tensor.detach().cpu().contiguous().clone()
        for index, row in sorted(state.items())
        for key, tensor in sorted(row.items())
    }
