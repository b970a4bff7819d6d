"""Two real processes compute the training step of one, and retry out of memory together."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pair
import pytest
import torch
from safetensors.torch import load_file, save_file

from parity.competition.query import Position, QueryId
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine.distributed import ProcessGroup, current_group
from parity.retrieval.engine.trie import Pack
from parity.retrieval.models import adapter, base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.encoder import EncoderConfig
from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import Tokens, add_gradient
from parity.training.trainer import Callbacks, TrainingPlan, fit

Tensors = dict[str, torch.Tensor]
Outputs = tuple[Path, list[str]]
"""Folder of the tensors that two processes wrote, and the log of each."""

COUNT, PASSAGES = 8, 24
CASES = {
    f"{budget}, {dropout}, {distil}": {
        "token_budget": budget,
        "lora_dropout": dropout,
        "distillation": distil,
    }
    for budget, dropout, distil in (
        (64, 0.0, "none"),
        (64, 0.3, "none"),
        (100, 0.3, "kl_div"),
        (100, 0.0, "m3_kd_loss"),
        (4096, 0.3, "none"),  # one pack; the second process has none
    )
}
BATCHES = tuple(
    Batch(
        tuple(QueryId(f"{seed}_{row}") for row in range(COUNT)),
        tuple(map(Position, range(PASSAGES))),
        tuple(range(COUNT)),
        ((9, 10), *((),) * (COUNT - 1)),
        tuple((row, 10 + row) for row in range(COUNT)),
        tuple((1.0, 0.25 * row) for row in range(COUNT)),
    )
    for seed in range(4)
)


def tokens(batch: Batch) -> tuple[Tokens, Tokens]:
    seed = int(batch.query_ids[0].split("_")[0])
    sequences = models.sequences(seed, COUNT + PASSAGES)
    return sequences[:COUNT], sequences[COUNT : COUNT + PASSAGES]


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {"temperature": 0.05, "r": 4, "learning_rate": 1e-2, "epochs": 1, **changes}
    )


def build_encoder(base: BaseModel, config: TrainingConfig, workers: ProcessGroup) -> Encoder:
    small = EncoderConfig(precision="fp32", device="cpu", token_budget=64)
    encoder = Encoder(base, small, workers=workers)
    models.attach(encoder, lora_dropout=config.lora_dropout)
    return encoder


def run_step(base: BaseModel, config: TrainingConfig, workers: ProcessGroup) -> Tensors:
    """Return loss and gradients of one batch, summed over the processes."""
    encoder = build_encoder(base, config, workers)
    encoder.model.train()
    loss = add_gradient(encoder, tokens(BATCHES[0]), BATCHES[0], config, seed="s").loss
    gradients = {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in sorted(encoder.model.named_parameters())
        if weight.requires_grad
    }
    workers.all_reduce(list(gradients.values()))
    return {"loss": loss.cpu(), **gradients}


def limit_memory(encoder: Encoder, limit: int) -> None:
    """Let packs of more than `limit` tokens run out of memory."""
    states = encoder.states

    def fail(pack: Pack) -> torch.Tensor:
        if len(pack) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return states(pack)

    encoder.states = fail  # type: ignore[method-assign]


def run_training(
    base: BaseModel,
    folder: Path,
    config: TrainingConfig,
    workers: ProcessGroup | None = None,
    *,
    limit: int = 0,
    log: Callable[[dict[str, float], int], None] = lambda _, __: None,
) -> tuple[Tensors, CheckpointState]:
    """Train four batches; packs above `limit` tokens run out of memory, 0 means no limit."""
    encoder = build_encoder(base, config, workers or ProcessGroup())
    if limit:
        limit_memory(encoder, limit)
    callbacks = Callbacks(lambda _, __: None, log, lambda _: None)
    state = fit(encoder, TrainingPlan((BATCHES,), tokens, "key"), config, folder, callbacks)
    return adapter.trained_weights(encoder.model), state


def work(folder: Path, target: Path) -> None:
    """Run one of two processes; only the second one runs out of memory."""
    torch.set_num_threads(1)
    workers = current_group()
    base = base_model.describe("llama", folder)
    for name, changes in CASES.items():
        save_file(run_step(base, settings(**changes), workers), target / f"{name}-{workers.rank}")
    limit = 0 if workers.is_main else 64
    weights, state = run_training(
        base, target / "steps", settings(token_budget=128), workers, limit=limit
    )
    save_file({"losses": torch.tensor(state.losses), **weights}, target / f"short-{workers.rank}")
    assert state.budget == 64
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


@pytest.fixture(scope="module")
def outputs(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    target = tmp_path_factory.mktemp("seen")
    return target, pair.run(__file__, str(base.folder), str(target))


def assert_close(actual: Tensors, expected: Tensors) -> None:
    assert actual.keys() == expected.keys()
    largest = max(float(tensor.abs().max()) for name, tensor in expected.items() if name != "loss")
    assert largest > 1e-3
    for name, tensor in expected.items():
        assert (actual[name] - tensor).abs().max() <= 1e-6 * largest, name


def packs_of(base: BaseModel, budget: int) -> list[Pack]:
    queries, passages = tokens(BATCHES[0])
    return build_encoder(base, settings(), ProcessGroup()).packs([*queries, *passages], budget)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_compute_the_step_of_one(
    base: BaseModel, outputs: Outputs, name: str
) -> None:
    config = settings(**CASES[name])
    count = len(packs_of(base, config.token_budget))
    assert count == 1 if config.token_budget > 1000 else count > 1
    first, second = (load_file(outputs[0] / f"{name}-{rank}") for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert_close(first, run_step(base, config, ProcessGroup()))


def test_queries_are_compared_with_passages_of_the_other_process(
    base: BaseModel, outputs: Outputs
) -> None:
    packs = packs_of(base, 64)
    owners = ProcessGroup(0, 2).assign_ranks([len(pack) for pack in packs])
    owner = {
        int(position): rank
        for pack, rank in zip(packs, owners, strict=True)
        for position in pack.owner
    }
    hidden = tuple(
        tuple(position for position in range(PASSAGES) if owner[COUNT + position] != owner[row])
        for row in range(COUNT)
    )
    assert any(hidden), "the case has no effect"
    config = settings(token_budget=64)
    encoder = build_encoder(base, config, ProcessGroup())
    loss = add_gradient(
        encoder, tokens(BATCHES[0]), replace(BATCHES[0], masked=hidden), config, seed="s"
    ).loss
    tensors = load_file(outputs[0] / "64, 0.0, none-0")
    assert float(tensors["loss"]) > loss + 1e-3


def test_if_one_of_two_processes_runs_out_of_memory_both_use_smaller_packs(
    base: BaseModel, outputs: Outputs, tmp_path: Path
) -> None:
    folder, logs = outputs
    first, second = (load_file(folder / f"short-{rank}") for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    weights, state = run_training(base, tmp_path, settings(token_budget=64))
    assert_close(first, {"losses": torch.tensor(state.losses), **weights})
    message = "out of memory: continues with training.token_budget = 64"
    assert [log.count(message) for log in logs] == [1, 0]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_after_out_of_memory_training_has_the_bytes_of_the_smaller_budget(
    base: BaseModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dropout: float,
    accumulate: int,
) -> None:
    config = settings(
        token_budget=400, lora_dropout=dropout, gradient_accumulation_steps=accumulate
    )
    weights, state = run_training(base, tmp_path / "short", config, limit=100)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "memory" in line] == [
        f"out of memory: continues with training.token_budget = {budget}" for budget in (200, 100)
    ]
    smaller = config.model_copy(update={"token_budget": 100})
    expected, expected_state = run_training(base, tmp_path / "asked", smaller)
    assert state == expected_state
    assert state.budget == 100
    assert all(
        weights[name].numpy().tobytes() == tensor.numpy().tobytes()
        for name, tensor in expected.items()
    )


def test_a_resumed_training_starts_with_the_smaller_budget(
    base: BaseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(token_budget=400, checkpoint_every=1)
    weights, state = run_training(base, tmp_path / "whole", config, limit=100)

    def stop(_: dict[str, float], step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(base, tmp_path / "broken", config, limit=100, log=stop)
    capsys.readouterr()
    resumed, resumed_state = run_training(base, tmp_path / "broken", config)  # enough memory again
    assert "memory" not in capsys.readouterr().err
    assert resumed_state == state
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items())


def test_out_of_memory_in_the_backward_is_retried(base: BaseModel, tmp_path: Path) -> None:
    config = settings(token_budget=128)
    encoder = build_encoder(base, config, ProcessGroup())
    states = encoder.states
    sizes: list[int] = []  # packs in the backward: the first has added its gradient by the second

    def fail(pack: Pack) -> torch.Tensor:
        if torch.is_grad_enabled() and len(pack) > 64:
            sizes.append(len(pack))
            if len(sizes) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return states(pack)

    encoder.states = fail  # type: ignore[method-assign]
    callbacks = Callbacks(lambda _, __: None, lambda _, __: None, lambda _: None)
    state = fit(
        encoder, TrainingPlan((BATCHES,), tokens, "key"), config, tmp_path / "short", callbacks
    )
    weights, expected_state = run_training(base, tmp_path / "asked", settings(token_budget=64))
    assert state == expected_state
    assert all(
        torch.equal(weights[name], tensor)
        for name, tensor in adapter.trained_weights(encoder.model).items()
    )


def test_an_error_says_that_smaller_packs_do_not_help(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"out of memory with training\.token_budget = 64"):
        run_training(base, tmp_path, settings(token_budget=128), limit=8)


def test_other_errors_are_not_retried(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build_encoder(base, settings(), ProcessGroup())

    def broken(pack: Pack) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(encoder, "states", broken)
    callbacks = Callbacks(lambda _, __: None, lambda _, __: None, lambda _: None)
    with pytest.raises(RuntimeError, match="shapes differ"):
        fit(encoder, TrainingPlan((BATCHES,), tokens, "key"), settings(), tmp_path, callbacks)


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
