"""A run resumed from a checkpoint ends with the bytes of an uninterrupted one."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaModel

from parity.retrieval.models import adapter
from parity.run import files
from parity.run.config.training import TrainingConfig
from parity.run.errors import BadData, Mismatch
from parity.training import checkpoint
from parity.training.checkpoint import CheckpointState
from parity.training.stats import TrainingStats

START = CheckpointState(step=0, steps=9, capped=True, key="key", budget=64, losses=())


class Small(torch.nn.Module):
    """Two layers, one of them in bfloat16, with integer and boolean buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)  # counts its batches in an int64
        self.second = torch.nn.Linear(4, 2, dtype=torch.bfloat16)
        self.register_buffer("kept", torch.tensor([True, False]))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.first(inputs)).relu()  # (b, 4)
        out: torch.Tensor = self.second(hidden.to(torch.bfloat16)).float()  # (b, 2)
        return out


def build_small(seed: int) -> Any:
    torch.manual_seed(seed)
    return Small()


def build_lora(seed: int) -> Any:
    """Return a model with the same base for every seed and its own adapter."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        vocab_size=16,
    )
    base = LlamaModel(shape)
    torch.manual_seed(seed)
    return adapter.attach(base, TrainingConfig(r=2, target_modules=("q_proj", "v_proj")))


def optimizer_of(model: Any, *, amsgrad: bool = False) -> torch.optim.AdamW:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.AdamW(weights, lr=0.05, weight_decay=0.1, foreach=False, amsgrad=amsgrad)


def loss_of(model: Any, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    if isinstance(model, Small):
        out = model.forward(torch.randn(5, 3, generator=generator))  # (5, 2)
    else:
        tokens = torch.randint(16, (2, 6), generator=generator)
        out = model(input_ids=tokens).last_hidden_state[..., 0]  # (2, 6)
    return out.square().mean()


def train(
    model: Any, optimizer: torch.optim.Optimizer, state: CheckpointState, count: int
) -> CheckpointState:
    for step in range(state.step, state.step + count):
        loss = loss_of(model, step)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state = replace(state, step=step + 1, losses=(*state.losses, loss.item()))
    return state


def save_trained(folder: Path, count: int, *, key: str = "key") -> CheckpointState:
    """Save a checkpoint after `count` steps; return its state."""
    model = build_small(1)
    optimizer = optimizer_of(model)
    state = train(model, optimizer, replace(START, key=key), count)
    checkpoint.save(folder, state, model, optimizer)
    return state


def newest(folder: Path, key: str = "key") -> Path:
    path = checkpoint.newest(folder, key)
    assert path is not None
    return path


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether all bytes, types and shapes are equal."""
    return list(first) == list(second) and all(
        tensor.dtype == second[name].dtype and torch.equal(tensor, second[name])
        for name, tensor in first.items()
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}/{key}": state[index][key] for index in state for key in sorted(state[index])}


@pytest.mark.parametrize("build", [build_small, build_lora])
def test_resuming_from_a_checkpoint_gives_the_same_bytes(build: Any, tmp_path: Path) -> None:
    model = build(1)
    optimizer = optimizer_of(model)
    middle = train(model, optimizer, START, 3)
    checkpoint.save(tmp_path, middle, model, optimizer)
    end = train(model, optimizer, middle, 4)

    restored = build(2)
    fresh = optimizer_of(restored)
    assert not is_equal(adapter.trained_weights(restored), adapter.trained_weights(model))
    resumed = checkpoint.load(newest(tmp_path), restored, fresh)
    assert resumed == middle
    assert train(restored, fresh, resumed, 4) == end
    assert is_equal(adapter.trained_weights(restored), adapter.trained_weights(model))
    assert is_equal(optimizer_tensors(fresh), optimizer_tensors(optimizer))


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_optimizer_state_is_restored_exactly(tmp_path: Path, amsgrad: bool) -> None:
    model = build_small(1)
    optimizer = optimizer_of(model, amsgrad=amsgrad)
    checkpoint.save(tmp_path, train(model, optimizer, START, 3), model, optimizer)
    other = build_small(1)
    fresh = optimizer_of(other, amsgrad=amsgrad)
    checkpoint.load(newest(tmp_path), other, fresh)
    state = optimizer_tensors(fresh)
    assert is_equal(state, optimizer_tensors(optimizer))
    assert len(state) == len(list(model.parameters())) * (4 if amsgrad else 3)
    assert state["0/step"].dtype == torch.float32
    assert state["0/step"].shape == ()
    assert state["0/step"].item() == 3.0
    assert torch.bfloat16 in {tensor.dtype for tensor in state.values()}


def test_integer_and_boolean_buffers_are_restored(tmp_path: Path) -> None:
    save_trained(tmp_path, 3)
    model = build_small(2)
    model.kept.logical_not_()
    checkpoint.load(newest(tmp_path), model, optimizer_of(model))
    assert model.norm.num_batches_tracked.dtype == torch.int64
    assert model.norm.num_batches_tracked.item() == 3
    assert model.kept.tolist() == [True, False]


def test_a_checkpoint_before_the_first_step_has_no_optimizer_state(tmp_path: Path) -> None:
    assert save_trained(tmp_path, 0) == START
    model = build_small(2)
    optimizer = optimizer_of(model)
    assert checkpoint.load(newest(tmp_path), model, optimizer) == START
    assert optimizer_tensors(optimizer) == {}


def test_the_learning_rate_is_the_caller_s_not_the_checkpoint_s(tmp_path: Path) -> None:
    save_trained(tmp_path, 2)
    model = build_small(2)
    optimizer = optimizer_of(model)
    optimizer.param_groups[0]["lr"] = 0.25
    checkpoint.load(newest(tmp_path), model, optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_the_state_is_restored_to_the_last_digit(tmp_path: Path) -> None:
    model = build_small(1)
    spent = TrainingStats(tokens=3, seconds=0.1 + 0.2, graph_tokens=2, token_bytes=1 / 3)
    state = CheckpointState(7, 90, False, "key", 128, (0.1 + 0.2, 1 / 3, 1e-300), spent)
    checkpoint.save(tmp_path, state, model, optimizer_of(model))
    assert checkpoint.load(newest(tmp_path), model, optimizer_of(model)) == state


def test_a_checkpoint_without_training_stats_can_be_read(tmp_path: Path) -> None:
    model, state = build_small(1), CheckpointState(7, 90, False, "key", 128)
    checkpoint.save(tmp_path, state, model, optimizer_of(model))
    path = newest(tmp_path) / "state.json"
    row = files.read_json(path)
    del row["spent"]
    files.write_json(path, row)
    assert checkpoint.load(newest(tmp_path), model, optimizer_of(model)) == state


def test_a_checkpoint_contains_only_tensors_and_json(tmp_path: Path) -> None:
    save_trained(tmp_path, 2)
    path = newest(tmp_path)
    assert file_names(path) == ["optimizer.safetensors", "state.json", "trained.safetensors"]
    assert load_file(path / "optimizer.safetensors")["0.step"].item() == 2.0


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    for count in (1, 2, 11):
        save_trained(tmp_path / "checkpoints", count)
    assert file_names(tmp_path / "checkpoints") == ["step-0000011"]
    assert newest(tmp_path / "checkpoints").name == "step-0000011"


def test_after_a_kill_during_cleanup_the_newer_checkpoint_is_used(
    tmp_path: Path,
) -> None:
    save_trained(tmp_path, 2)
    shutil.copytree(tmp_path / "step-0000002", tmp_path.with_name("kept"))
    save_trained(tmp_path, 10)
    shutil.move(tmp_path.with_name("kept"), tmp_path / "step-0000002")
    assert newest(tmp_path).name == "step-0000010"


def test_a_checkpoint_saved_twice_stays(tmp_path: Path) -> None:
    save_trained(tmp_path, 2)
    before = {path.name: path.stat().st_mtime_ns for path in newest(tmp_path).iterdir()}
    save_trained(tmp_path, 2)
    assert before == {path.name: path.stat().st_mtime_ns for path in newest(tmp_path).iterdir()}


def test_checkpoints_of_another_training_are_not_found(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nowhere", "key") is None
    save_trained(tmp_path, 2)
    assert checkpoint.newest(tmp_path, "other") is None
    assert checkpoint.newest(tmp_path, "ke") is None


def test_each_of_two_trainings_finds_its_own_checkpoint(tmp_path: Path) -> None:
    save_trained(tmp_path, 3, key="other")
    shutil.copytree(tmp_path / "step-0000003", tmp_path.with_name("kept"))
    save_trained(tmp_path, 2)
    shutil.move(tmp_path.with_name("kept"), tmp_path / "step-0000003")
    assert newest(tmp_path).name == "step-0000002"
    assert newest(tmp_path, "other").name == "step-0000003"


@pytest.mark.parametrize("name", [".step-0000004.321.tmp", ".step-0000001.321.old"])
def test_a_partial_checkpoint_is_ignored_and_then_removed(tmp_path: Path, name: str) -> None:
    partial = tmp_path / name
    partial.mkdir()
    (partial / "trained.safetensors").write_bytes(b"half")
    assert checkpoint.newest(tmp_path, "key") is None
    save_trained(tmp_path, 2)
    partial.mkdir()
    (partial / "state.json").write_text('{"key":', encoding="utf-8")
    assert newest(tmp_path).name == "step-0000002"
    save_trained(tmp_path, 3)
    assert file_names(tmp_path) == ["step-0000003"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model = build_lora(1)
    optimizer = optimizer_of(model)
    checkpoint.save(tmp_path, train(model, optimizer, START, 1), model, optimizer)
    other = adapter.attach(
        LlamaModel(model.config), TrainingConfig(r=2, target_modules=("q_proj",))
    )
    with pytest.raises(Mismatch, match="keys do not match the base"):
        checkpoint.load(newest(tmp_path), other, optimizer_of(other))


def test_a_state_that_is_not_json_is_named(tmp_path: Path) -> None:
    save_trained(tmp_path, 2)
    files.write_text(newest(tmp_path) / "state.json", "{")
    with pytest.raises(BadData, match=r"step-0000002/state\.json: not JSON"):
        checkpoint.newest(tmp_path, "key")


def test_a_checkpoint_of_another_training_at_the_same_step_is_replaced(tmp_path: Path) -> None:
    save_trained(tmp_path, 2, key="other")
    save_trained(tmp_path, 2)
    assert newest(tmp_path).name == "step-0000002"


def test_an_interrupt_during_cleanup_leaves_only_complete_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, removed = os.unlink, []

    def stopping(path: str, *, dir_fd: int | None = None) -> None:
        if str(path).endswith(".safetensors"):
            removed.append(path)
            if len(removed) == 2:
                raise KeyboardInterrupt
        unlink(path, dir_fd=dir_fd)

    save_trained(tmp_path, 1)
    monkeypatch.setattr(os, "unlink", stopping)
    with pytest.raises(KeyboardInterrupt):
        save_trained(tmp_path, 2)
    complete = ["optimizer.safetensors", "state.json", "trained.safetensors"]
    assert all(file_names(path) == complete for path in tmp_path.glob("step-*"))
    assert newest(tmp_path).name == "step-0000002"
