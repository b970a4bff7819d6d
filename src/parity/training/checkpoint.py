"""Checkpoints that survive kill -9: each a new folder, whole or absent, the newest kept.

Tensors are safetensors and the rest JSON; nothing is pickled.
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
    """How far training has come.

    Attributes:
        step: optimizer steps done.
        steps: optimizer steps to do in all, the time cap applied.
        capped: whether the time cap has been turned into `steps`.
        key: digest of everything the run depends on; another key is another training.
        budget: tokens in a pack; less than the run says once memory has run out.
        losses: mean loss of each step done.
        spent: what the steps done took.
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
    """Write a checkpoint for `progress.step`, then drop the older ones."""
    target = folder / f"step-{progress.step:07d}"
    if newest(folder, progress.key) != target:
        with files.replacing(target) as temporary:
            temporary.mkdir()
            save_file(adapter.trained(model), temporary / _TRAINED)
            save_file(_flat(optimizer), temporary / _OPTIMIZER)
            files.write_json(temporary / _STATE, asdict(progress))
    for other in sorted(folder.iterdir()):
        if other != target:
            files.remove(other)


def newest(folder: Path, key: str) -> Path | None:
    """Return the newest whole checkpoint made with `key`, or None."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        if files.read_json(path / _STATE)["key"] == key:
            return path
    return None


def load(path: Path, model: Any, optimizer: torch.optim.Optimizer) -> CheckpointState:
    """Restore model and optimizer from the checkpoint at `path` and return its progress."""
    adapter.restore(model, load_file(path / _TRAINED), str(path))
    flat = load_file(path / _OPTIMIZER)
    state = optimizer.state_dict()
    state["state"] = {}
    for name, tensor in flat.items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(state)
    row = files.read_json(path / _STATE)
    spent = TrainingStats(**row.get("spent", {}))  # not in checkpoints of versions before
    return CheckpointState(**{**row, "losses": tuple(row["losses"]), "spent": spent})


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state: dict[int, dict[str, torch.Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": tensor.detach().cpu().contiguous().clone()
        for index, row in sorted(state.items())
        for key, tensor in sorted(row.items())
    }
