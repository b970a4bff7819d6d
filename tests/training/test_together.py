"""Two real processes take the training step of one, and go on together where memory runs out."""

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

from parity.competition.query import MisconceptionId, QueryId
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine.distributed import ProcessGroup, launched
from parity.retrieval.engine.trie import Pack
from parity.retrieval.models import adapter, base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.run_file import EncoderConfig, TrainingConfig
from parity.run.errors import BadConfig
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import Tokens, gradient
from parity.training.trainer import Callbacks, TrainingPlan, fit

Tensors = dict[str, torch.Tensor]
Seen = tuple[Path, list[str]]
"""Where two processes wrote what they saw, and what each said."""

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
        (4096, 0.3, "none"),  # one pack: the second process owns none
    )
}
BATCHES = tuple(
    Batch(
        tuple(QueryId(f"{seed}_{row}") for row in range(COUNT)),
        tuple(map(MisconceptionId, range(PASSAGES))),
        tuple(range(COUNT)),
        ((9, 10), *((),) * (COUNT - 1)),
        tuple((row, 10 + row) for row in range(COUNT)),
        tuple((1.0, 0.25 * row) for row in range(COUNT)),
    )
    for seed in range(4)
)


def tokens(batch: Batch) -> tuple[Tokens, Tokens]:
    seed = int(batch.query_ids[0].split("_")[0])
    found = models.sequences(seed, COUNT + PASSAGES)
    return found[:COUNT], found[COUNT : COUNT + PASSAGES]


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {"temperature": 0.05, "r": 4, "learning_rate": 1e-2, "epochs": 1, **changes}
    )


def prepared(base: BaseModel, config: TrainingConfig, workers: ProcessGroup) -> Encoder:
    small = EncoderConfig(precision="fp32", device="cpu", token_budget=64)
    encoder = Encoder(base, small, workers=workers)
    models.attach(encoder, lora_dropout=config.lora_dropout)
    return encoder


def stepped(base: BaseModel, config: TrainingConfig, workers: ProcessGroup) -> Tensors:
    """Return loss and gradients of one batch, added up over the processes."""
    encoder = prepared(base, config, workers)
    encoder.model.train()
    loss = gradient(encoder, tokens(BATCHES[0]), BATCHES[0], config, seed="s").loss
    found = {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in sorted(encoder.model.named_parameters())
        if weight.requires_grad
    }
    workers.add_up(list(found.values()))
    return {"loss": loss.cpu(), **found}


def scarce(encoder: Encoder, most: int) -> None:
    """Let packs of more than `most` tokens run out of memory."""
    states = encoder.states

    def short(pack: Pack) -> torch.Tensor:
        if len(pack) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return states(pack)

    encoder.states = short  # type: ignore[method-assign]


def trained(
    base: BaseModel,
    folder: Path,
    config: TrainingConfig,
    workers: ProcessGroup | None = None,
    *,
    most: int = 0,
    log: Callable[[dict[str, float], int], None] = lambda _, __: None,
) -> tuple[Tensors, CheckpointState]:
    """Train four batches; `most` is the largest pack that has room, 0 where all have."""
    encoder = prepared(base, config, workers or ProcessGroup())
    if most:
        scarce(encoder, most)
    watch = Callbacks(lambda _, __: None, log, lambda _: None)
    state = fit(encoder, TrainingPlan((BATCHES,), tokens, "key"), config, folder, watch)
    return adapter.trained(encoder.model), state


def work(folder: Path, target: Path) -> None:
    """Be one of two processes; only the second one runs out of memory."""
    torch.set_num_threads(1)
    workers = launched()
    base = base_model.describe("llama", folder)
    for name, changes in CASES.items():
        save_file(stepped(base, settings(**changes), workers), target / f"{name}-{workers.rank}")
    most = 0 if workers.main else 64
    weights, state = trained(base, target / "steps", settings(token_budget=128), workers, most=most)
    save_file({"losses": torch.tensor(state.losses), **weights}, target / f"short-{workers.rank}")
    assert state.budget == 64
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


@pytest.fixture(scope="module")
def seen(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    target = tmp_path_factory.mktemp("seen")
    return target, pair.run(__file__, str(base.folder), str(target))


def close(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(one.abs().max()) for name, one in expected.items() if name != "loss")
    assert largest > 1e-3
    for name, one in expected.items():
        assert (found[name] - one).abs().max() <= 1e-6 * largest, name


def packs(base: BaseModel, budget: int) -> list[Pack]:
    queries, passages = tokens(BATCHES[0])
    return prepared(base, settings(), ProcessGroup()).packs([*queries, *passages], budget)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_step_of_one(base: BaseModel, seen: Seen, name: str) -> None:
    config = settings(**CASES[name])
    count = len(packs(base, config.token_budget))
    assert count == 1 if config.token_budget > 1000 else count > 1
    first, second = (load_file(seen[0] / f"{name}-{rank}") for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    close(first, stepped(base, config, ProcessGroup()))


def test_queries_meet_the_passages_of_the_other_process(base: BaseModel, seen: Seen) -> None:
    cut = packs(base, 64)
    owners = ProcessGroup(0, 2).deal([len(pack) for pack in cut])
    owner = {
        int(place): rank for pack, rank in zip(cut, owners, strict=True) for place in pack.owner
    }
    apart = tuple(
        tuple(place for place in range(PASSAGES) if owner[COUNT + place] != owner[row])
        for row in range(COUNT)
    )
    assert any(apart), "a case that tells nothing"
    config = settings(token_budget=64)
    encoder = prepared(base, config, ProcessGroup())
    loss = gradient(
        encoder, tokens(BATCHES[0]), replace(BATCHES[0], masked=apart), config, seed="s"
    ).loss
    found = load_file(seen[0] / "64, 0.0, none-0")
    assert float(found["loss"]) > loss + 1e-3


def test_where_one_of_two_runs_short_both_go_on_with_smaller_packs(
    base: BaseModel, seen: Seen, tmp_path: Path
) -> None:
    folder, said = seen
    first, second = (load_file(folder / f"short-{rank}") for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    weights, state = trained(base, tmp_path, settings(token_budget=64))
    close(first, {"losses": torch.tensor(state.losses), **weights})
    told = "out of memory: goes on with training.token_budget = 64"
    assert [one.count(told) for one in said] == [1, 0]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_out_of_memory_it_trains_to_the_bytes_of_the_smaller_budget(
    base: BaseModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dropout: float,
    accumulate: int,
) -> None:
    config = settings(
        token_budget=400, lora_dropout=dropout, gradient_accumulation_steps=accumulate
    )
    weights, state = trained(base, tmp_path / "short", config, most=100)
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "memory" in line] == [
        f"out of memory: goes on with training.token_budget = {budget}" for budget in (200, 100)
    ]
    smaller = config.model_copy(update={"token_budget": 100})
    expected, asked = trained(base, tmp_path / "asked", smaller)
    assert state == asked
    assert state.budget == 100
    assert all(
        weights[name].numpy().tobytes() == one.numpy().tobytes() for name, one in expected.items()
    )


def test_gone_on_after_a_stop_it_starts_with_the_smaller_budget(
    base: BaseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(token_budget=400, checkpoint_every=1)
    weights, state = trained(base, tmp_path / "whole", config, most=100)

    def stop(_: dict[str, float], step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(base, tmp_path / "broken", config, most=100, log=stop)
    capsys.readouterr()
    gone_on, later = trained(base, tmp_path / "broken", config)  # there is room again: no matter
    assert "memory" not in capsys.readouterr().err
    assert later == state
    assert all(torch.equal(gone_on[name], one) for name, one in weights.items())


def test_memory_that_runs_out_on_the_way_back_counts_too(base: BaseModel, tmp_path: Path) -> None:
    config = settings(token_budget=128)
    encoder = prepared(base, config, ProcessGroup())
    states = encoder.states
    back: list[int] = []  # packs on the way back: the first has left its gradient by the second

    def short(pack: Pack) -> torch.Tensor:
        if torch.is_grad_enabled() and len(pack) > 64:
            back.append(len(pack))
            if len(back) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return states(pack)

    encoder.states = short  # type: ignore[method-assign]
    watch = Callbacks(lambda _, __: None, lambda _, __: None, lambda _: None)
    state = fit(encoder, TrainingPlan((BATCHES,), tokens, "key"), config, tmp_path / "short", watch)
    weights, asked = trained(base, tmp_path / "asked", settings(token_budget=64))
    assert state == asked
    assert all(
        torch.equal(weights[name], one) for name, one in adapter.trained(encoder.model).items()
    )


def test_where_smaller_packs_save_nothing_it_says_so(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"out of memory with training\.token_budget = 64"):
        trained(base, tmp_path, settings(token_budget=128), most=8)


def test_other_errors_are_not_taken_for_it(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = prepared(base, settings(), ProcessGroup())

    def broken(pack: Pack) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(encoder, "states", broken)
    watch = Callbacks(lambda _, __: None, lambda _, __: None, lambda _: None)
    with pytest.raises(RuntimeError, match="shapes differ"):
        fit(encoder, TrainingPlan((BATCHES,), tokens, "key"), settings(), tmp_path, watch)


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
