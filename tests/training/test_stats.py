"""Training stats add up, and the bytes of a token come only from the largest step."""

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
from parity.training.gradcache import add_gradient
from parity.training.stats import TrainingStats
from parity.training.trainer import TrainingPlan


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


def test_tokens_and_seconds_add_up() -> None:
    stats = TrainingStats()
    for count, seconds in ((100, 1.5), (40, 0.5)):
        stats = stats.add_step(tokens=count, graph_tokens=count, peak_increase=0).add_seconds(
            seconds
        )
    assert (stats.tokens, stats.seconds) == (140, 2.0)


def test_only_the_largest_step_measures_the_peak() -> None:
    """A step that is not larger than an earlier one does not have its own peak."""
    stats = TrainingStats().add_step(tokens=100, graph_tokens=100, peak_increase=5_000)
    assert stats.token_bytes == 50.0
    assert stats.add_step(tokens=80, graph_tokens=80, peak_increase=8_000).token_bytes == 50.0
    wider = stats.add_step(tokens=200, graph_tokens=200, peak_increase=9_000)
    assert (wider.graph_tokens, wider.token_bytes) == (
        200,
        50.0,
    )  # the maximum: the plan must be safe
    assert stats.add_step(tokens=200, graph_tokens=200, peak_increase=12_000).token_bytes == 60.0


def test_without_a_peak_the_bytes_of_a_token_are_zero() -> None:
    stats = TrainingStats().add_step(tokens=100, graph_tokens=100, peak_increase=0)
    assert (stats.graph_tokens, stats.token_bytes) == (100, 0.0)


def test_stats_are_compared_without_the_time() -> None:
    assert (
        TrainingStats(tokens=3).add_seconds(1.0)
        == TrainingStats(tokens=3).add_seconds(2.0)
        != TrainingStats(tokens=4)
    )


@pytest.mark.parametrize("budget", [1024, 64])
def test_training_counts_tokens_and_measures_the_bytes_of_the_largest_step(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    """A fake GPU uses 100 bytes for each token of a step."""
    encoder = models.load(base)
    batches = (BATCHES[0], batch(range(QUERIES), range(10, 60)), BATCHES[1])
    packs = [
        encoder.packs([*queries, *passages], budget) for queries, passages in map(tokens, batches)
    ]
    sizes = [[len(pack) for pack in step] for step in packs]
    graph_tokens = [
        sum(step) if at_once(len(step), sum(step), budget) else max(step) for step in sizes
    ]
    assert all(len(step) == 1 for step in sizes) == (budget == 1024)
    calls: list[tuple[int, int]] = []

    def peak_increase(_device: torch.device, before: tuple[int, int]) -> int:
        calls.append(before)
        return 100 * graph_tokens[len(calls) - 1]

    monkeypatch.setattr(device, "allocated_bytes", lambda _device: (7, 8))
    monkeypatch.setattr(device, "peak_increase", peak_increase)
    _, state, _, _ = train(
        base, tmp_path, TrainingPlan((batches,), tokens, "key"), token_budget=budget
    )
    assert state.spent.tokens == sum(map(sum, sizes))
    assert state.spent.graph_tokens == max(graph_tokens)
    assert state.spent.token_bytes == 100.0
    assert set(calls) == {(7, 8)}


def test_after_out_of_memory_the_peak_of_a_step_is_not_used(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "peak_increase", lambda *_: 10**9)
    budgets: list[int] = []

    def run_out(*args: Any, **options: Any) -> Any:
        budgets.append(args[3].token_budget)
        if len(budgets) == 1:
            raise OutOfMemory
        return add_gradient(*args, **options)

    monkeypatch.setattr(trainer, "add_gradient", run_out)
    plan = TrainingPlan((BATCHES[:1],), tokens, "key")
    _, state, _, _ = train(base, tmp_path, plan, token_budget=128)
    assert budgets == [128, 64]
    assert (state.budget, state.spent.token_bytes) == (64, 0.0)
