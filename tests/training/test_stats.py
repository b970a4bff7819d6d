"""What training took adds up, and the bytes of a token come from the widest step alone."""

from pathlib import Path
from typing import Any

import models
import pytest
import torch
from training.training_data import BATCHES, QUERIES, batch, tokens, train

from parity.retrieval.engine import device
from parity.retrieval.engine.oom_retry import OutOfMemory
from parity.retrieval.models.base_model import BaseModel
from parity.training import trainer
from parity.training.batches import at_once
from parity.training.gradcache import gradient
from parity.training.stats import TrainingStats
from parity.training.trainer import TrainingPlan


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


def test_tokens_and_seconds_add_up() -> None:
    found = TrainingStats()
    for count, seconds in ((100, 1.5), (40, 0.5)):
        found = found.add(tokens=count, held=count, risen=0).lasted(seconds)
    assert (found.tokens, found.seconds) == (140, 2.0)


def test_a_peak_is_told_of_by_the_widest_step() -> None:
    """What is not wider than a step before it has no peak of its own."""
    found = TrainingStats().add(tokens=100, held=100, risen=5_000)
    assert found.node == 50.0
    assert found.add(tokens=80, held=80, risen=8_000).node == 50.0
    wider = found.add(tokens=200, held=200, risen=9_000)
    assert (wider.held, wider.node) == (200, 50.0)  # the most counts: the plan must be safe
    assert found.add(tokens=200, held=200, risen=12_000).node == 60.0


def test_where_no_peak_is_known_no_bytes_are_told() -> None:
    found = TrainingStats().add(tokens=100, held=100, risen=0)
    assert (found.held, found.node) == (100, 0.0)


def test_two_trainings_that_took_the_same_are_equal_however_long_it_lasted() -> None:
    assert (
        TrainingStats(tokens=3).lasted(1.0)
        == TrainingStats(tokens=3).lasted(2.0)
        != TrainingStats(tokens=4)
    )


@pytest.mark.parametrize("budget", [1024, 64])
def test_tokens_are_counted_and_the_bytes_of_the_widest_step_are_seen(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    """A GPU stands in, of which each token of a step takes 100 bytes."""
    encoder = models.load(base)
    batches = (BATCHES[0], batch(range(QUERIES), range(10, 60)), BATCHES[1])
    packs = [encoder.packs([*asked, *answers], budget) for asked, answers in map(tokens, batches)]
    sizes = [[len(pack) for pack in step] for step in packs]
    held = [sum(step) if at_once(len(step), sum(step), budget) else max(step) for step in sizes]
    assert all(len(step) == 1 for step in sizes) == (budget == 1024)
    seen: list[tuple[int, int]] = []

    def risen(_device: torch.device, before: tuple[int, int]) -> int:
        seen.append(before)
        return 100 * held[len(seen) - 1]

    monkeypatch.setattr(device, "taken", lambda _device: (7, 8))
    monkeypatch.setattr(device, "risen", risen)
    _, state, _, _ = train(
        base, tmp_path, TrainingPlan((batches,), tokens, "key"), token_budget=budget
    )
    assert state.spent.tokens == sum(map(sum, sizes))
    assert state.spent.held == max(held)
    assert state.spent.node == 100.0
    assert set(seen) == {(7, 8)}


def test_after_memory_ran_out_a_step_s_peak_is_not_its_own(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "risen", lambda *_: 10**9)
    ran: list[int] = []

    def short(*args: Any, **more: Any) -> Any:
        ran.append(args[3].token_budget)
        if len(ran) == 1:
            raise OutOfMemory
        return gradient(*args, **more)

    monkeypatch.setattr(trainer, "gradient", short)
    course = TrainingPlan((BATCHES[:1],), tokens, "key")
    _, state, _, _ = train(base, tmp_path, course, token_budget=128)
    assert ran == [128, 64]
    assert (state.budget, state.spent.node) == (64, 0.0)
