"""Steps compute the documented loss; a training is the same when accumulated or resumed."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training.training_data import (
    BATCHES,
    PLAN,
    TEMPERATURE,
    Interrupted,
    batch,
    build_encoder,
    settings,
    tokens,
    train,
)

from parity.competition.query import Position, QueryId
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter, base_model
from parity.retrieval.models.base_model import BaseModel
from parity.training import checkpoint, trainer
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import add_gradient
from parity.training.trainer import Callbacks, TrainingPlan, fit, learning_rate_factor

PINNED = (0.49959, 0.17517, 0.011753, 0.0029553)  # losses of steps 1, 6, 11 and 16
START = CheckpointState(0, 10, True, "key", 64)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in adapter.trained_weights(encoder.model).items()}


def is_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def gradients(base: BaseModel, batches: Sequence[Batch], **changes: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of one optimizer step over these micro-batches."""
    config = settings(max_grad_norm=1e9, **changes)
    encoder = build_encoder(base, config)
    perturb(encoder)
    plan = TrainingPlan((tuple(batches),), tokens, "key")
    encoder.model.train()
    trainer._step(encoder, plan, config, batches, START, models.zeroing_optimizer(encoder))
    return {
        name: parameter.grad
        for name, parameter in encoder.model.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }


def perturb(encoder: Encoder) -> None:
    """Add noise to LoRA weights; at zero, half of the gradients vanish."""
    generator = torch.Generator().manual_seed(1)
    for parameter in encoder.model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def assert_close(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in actual.values())
    assert largest > 1e-3
    for name, gradient_ in actual.items():
        assert (gradient_ - expected[name]).abs().max() <= 1e-5 * largest, name


def test_the_loss_of_a_batch_matches_a_manual_computation(base: BaseModel) -> None:
    encoder = models.load(base)
    batch_ = Batch(
        tuple(map(QueryId, ("0_A", "1_A", "2_A"))),
        tuple(map(Position, (0, 1, 7, 8))),
        (0, 1, 0),
        ((), (2,), (1, 3)),
    )
    with torch.no_grad():
        queries, passages = (
            models.embed_separately(models.load_plain(base), rows) for rows in tokens(batch_)
        )
    expected = 0.0
    for row, (target, masked) in enumerate(zip(batch_.target, batch_.masked, strict=True)):
        scores = {
            column: float(queries[row] @ passages[column]) / TEMPERATURE
            for column in range(4)
            if column not in masked
        }
        expected -= scores[target] - math.log(sum(map(math.exp, scores.values())))
    encoder.model.requires_grad_(True)
    loss = add_gradient(encoder, tokens(batch_), batch_, settings(), seed="").loss
    assert loss == pytest.approx(expected / 3, abs=1e-5)


def test_accumulation_averages_the_micro_batches(base: BaseModel) -> None:
    first, second = (gradients(base, [part]) for part in BATCHES[:2])
    accumulated = gradients(base, BATCHES[:2])
    assert_close(accumulated, {name: (first[name] + second[name]) / 2 for name in first})


def test_accumulating_a_batch_twice_equals_the_batch(base: BaseModel) -> None:
    assert_close(gradients(base, [BATCHES[0], BATCHES[0]]), gradients(base, [BATCHES[0]]))


def test_accumulation_equals_a_larger_batch_with_separated_halves(base: BaseModel) -> None:
    """In a larger batch, passages of the other half are negatives unless they are masked."""
    first, second = batch([0, 1, 2], wrong=[10]), batch([3, 4, 5], wrong=[11])
    passages = (*first.passages, *second.passages)
    separated = Batch(
        (*first.query_ids, *second.query_ids),
        passages,
        (0, 1, 2, 4, 5, 6),
        ((4, 5, 6, 7),) * 3 + ((0, 1, 2, 3),) * 3,
    )
    assert_close(gradients(base, [first, second]), gradients(base, [separated]))
    joined = Batch(separated.query_ids, passages, separated.target, ((),) * 6)
    with pytest.raises(AssertionError):
        assert_close(gradients(base, [joined]), gradients(base, [separated]))


@pytest.mark.parametrize("method", ["lora", "all"])
def test_gradient_checkpointing_does_not_change_gradients(base: BaseModel, method: str) -> None:
    without = gradients(base, BATCHES[:2], method=method)
    assert_close(gradients(base, BATCHES[:2], method=method, gradient_checkpointing=True), without)


def test_a_large_gradient_is_clipped_to_the_maximum_norm(base: BaseModel) -> None:
    encoder = build_encoder(base, settings())
    perturb(encoder)
    trained = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    trainer._step(encoder, PLAN, settings(), BATCHES[:1], START, models.zeroing_optimizer(encoder))
    trainer._clip(encoder, trained, settings(max_grad_norm=0.01))
    norm = torch.stack(
        [parameter.grad.norm() for parameter in trained if parameter.grad is not None]
    ).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-4)


def test_a_step_never_spans_two_epochs() -> None:
    assert PLAN.steps(1) == [[item] for item in (*BATCHES, *BATCHES[::-1])]
    assert PLAN.ends(1) == [5, 10]
    a, b, c, d, e = BATCHES
    assert PLAN.steps(2) == [[a, b], [c, d], [e], [e, d], [c, b], [a]]
    assert PLAN.ends(2) == [3, 6]
    assert PLAN.steps(99) == [list(BATCHES), list(BATCHES[::-1])]
    assert PLAN.ends(99) == [1, 2]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 9))
def test_steps_contain_every_batch_in_order_and_match_the_epoch_ends(
    sizes: list[int], accumulate: int
) -> None:
    epochs = tuple(tuple(batch([number]) for number in range(size)) for size in sizes)
    plan = TrainingPlan(epochs, tokens, "key")
    steps, ends = plan.steps(accumulate), plan.ends(accumulate)
    assert len(steps) == ends[-1]
    for start, end, batches in zip([0, *ends], ends, epochs, strict=False):
        assert [item for step in steps[start:end] for item in step] == list(batches)
        assert all(len(step) == accumulate for step in steps[start : end - 1])
    assert max(map(len, steps)) <= accumulate


@given(st.integers(1, 300), st.integers(0, 50))
def test_the_learning_rate_rises_then_falls_and_is_never_zero(steps: int, warmup: int) -> None:
    rates = [learning_rate_factor(step, steps, warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if warmup < steps:
        assert max(rates) == 1
        assert rates[-1] == pytest.approx(1 / (steps - warmup))


def test_training_reports_every_step_and_epoch(base: BaseModel, tmp_path: Path) -> None:
    encoder, state, log, epochs = train(base, tmp_path)
    assert [step for step, _ in log] == list(range(1, 11))
    assert epochs == [(1, 5), (2, 10)]
    assert [values["epoch"] for _, values in log] == [1] * 5 + [2] * 5
    assert [values["learning_rate"] for _, values in log] == [
        pytest.approx(1e-2 * learning_rate_factor(step, 10, 2)) for step in range(10)
    ]
    assert state.losses == tuple(values["loss"] for _, values in log)
    assert (state.step, state.steps, state.capped, state.key) == (10, 10, True, "key")
    assert not encoder.model.training


def test_training_reduces_the_loss(base: BaseModel, tmp_path: Path) -> None:
    plan = TrainingPlan((BATCHES,) * 6, tokens, "key")
    _, state, _, _ = train(base, tmp_path, plan)
    assert sum(state.losses[-5:]) < 0.5 * sum(state.losses[:5])


def test_either_only_the_adapter_or_all_weights_are_trained(
    base: BaseModel, tmp_path: Path
) -> None:
    base_weights = models.load(base).model.state_dict()
    encoder, *_ = train(base, tmp_path / "lora")
    inner = encoder.model.get_base_model().state_dict()
    inner_weights = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in inner.items()
        if "lora" not in name
    }
    assert is_equal(inner_weights, base_weights)
    encoder, *_ = train(base, tmp_path / "all", method="all", learning_rate=1e-3)
    assert not is_equal(encoder.model.state_dict(), base_weights)


def test_training_is_deterministic_for_each_seed(base: BaseModel, tmp_path: Path) -> None:
    first, second, other = (
        weights(train(base, tmp_path / name, lora_dropout=0.3, seed=seed)[0])
        for name, seed in (("first", 0), ("second", 0), ("other", 1))
    )
    assert is_equal(first, second)
    assert not is_equal(first, other)


@pytest.mark.parametrize(
    "changes", [{}, {"lora_dropout": 0.5}, {"gradient_accumulation_steps": 2}, {"method": "all"}]
)
@pytest.mark.parametrize("every", [1, 3])
def test_a_run_resumed_after_any_step_ends_with_the_bytes_of_an_uninterrupted_run(
    base: BaseModel, tmp_path: Path, changes: dict[str, Any], every: int
) -> None:
    settings_ = {**changes, "checkpoint_every": every}
    unbroken, state, _, _ = train(base, tmp_path / "unbroken", **settings_)
    folder = tmp_path / "broken"
    for stop in range(1, state.steps + 1):
        with pytest.raises(Interrupted):
            train(base, folder, stop=stop, **settings_)
    encoder, resumed, log, _ = train(base, folder, **settings_)
    assert [step for step, _ in log] == list(range(resumed.step - len(log) + 1, state.steps + 1))
    assert resumed == state
    assert resumed.spent.seconds > 0
    assert is_equal(weights(encoder), weights(unbroken))


def test_after_a_resume_every_started_epoch_is_reported_again(
    base: BaseModel, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train(base, tmp_path, stop=8, checkpoint_every=1)
    *_, epochs = train(base, tmp_path)
    assert epochs == [(1, 7), (2, 10)]  # the callback skips finished epochs
    *_, log, epochs = train(base, tmp_path)
    assert log == []
    assert epochs == [(1, 10), (2, 10)]


def test_a_checkpoint_of_another_plan_is_not_resumed(base: BaseModel, tmp_path: Path) -> None:
    train(base, tmp_path)
    plan = TrainingPlan(PLAN.epochs, tokens, "another key")
    _, state, log, _ = train(base, tmp_path, plan)
    assert len(log) == 10
    assert state.key == "another key"
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000010"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the seconds between two readings of the clock."""
    fake = SimpleNamespace(time=0.0, seconds=1.0)

    def monotonic() -> float:
        fake.time += fake.seconds
        return float(fake.time)

    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=monotonic))

    def pace(seconds: float) -> None:
        fake.seconds = seconds

    return pace


@pytest.mark.parametrize(
    ("minutes", "steps", "ends"),
    [
        (10.0, 10, [(1, 5), (2, 10)]),  # more than needed
        (0.12, 7, [(1, 5), (2, 7)]),
        (0.09, 5, [(1, 5)]),
        (0.06, 3, [(1, 3)]),
        (0.0001, 3, [(1, 3)]),  # three steps are measured first
    ],
)
def test_a_cap_on_minutes_is_converted_to_steps_once(
    base: BaseModel,
    tmp_path: Path,
    clock: Callable[[float], None],
    minutes: float,
    steps: int,
    ends: list[tuple[int, int]],
) -> None:
    lines: list[str] = []
    _, state, log, epochs = train(base, tmp_path, minutes=minutes, lines=lines)
    assert lines == [f"1.00 s a step: {minutes:g} minutes allow {steps} of 10 steps"]
    assert (state.step, state.steps, state.capped) == (steps, steps, True)
    assert epochs == ends
    last = log[-1][1]["learning_rate"]
    assert last == pytest.approx(
        1e-2 * learning_rate_factor(steps - 1, 10 if steps == 3 else steps, 2)
    )


def test_the_capped_step_count_is_saved_before_training_continues(
    base: BaseModel, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    with pytest.raises(Interrupted):
        train(base, tmp_path, minutes=0.12, stop=4)
    path = checkpoint.newest(tmp_path, "key")
    assert path is not None
    assert path.name == "step-0000003"
    clock(1000.0)  # a new conversion would allow three steps
    lines: list[str] = []
    _, state, _, _ = train(base, tmp_path, minutes=0.12, lines=lines)
    assert lines == []
    assert state.steps == state.step == 7


def test_a_resumed_capped_training_has_the_bytes_of_an_uninterrupted_one(
    base: BaseModel, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    unbroken, *_ = train(base, tmp_path / "unbroken", minutes=0.12)
    for stop in (4, 5, 6):
        with pytest.raises(Interrupted):
            train(base, tmp_path / "broken", minutes=0.12, stop=stop, checkpoint_every=1)
    clock(7.0)
    encoder, *_ = train(base, tmp_path / "broken", minutes=0.12)
    assert is_equal(weights(encoder), weights(unbroken))


def test_without_a_cap_no_time_is_reported(base: BaseModel, tmp_path: Path) -> None:
    lines: list[str] = []
    train(base, tmp_path, lines=lines)
    assert lines == []


def test_the_losses_of_twenty_steps_match_the_pinned_values(
    base: BaseModel, tmp_path: Path
) -> None:
    plan = TrainingPlan((BATCHES,) * 4, tokens, "key")
    _, state, _, _ = train(base, tmp_path, plan)
    assert state.losses[::5] == pytest.approx(PINNED, rel=1e-2)


def test_a_small_bidirectional_encoder_can_be_trained(tmp_path: Path) -> None:
    base = models.write(tmp_path / "bert", "bert")
    encoder = models.load(base_model.describe("bert", base.folder), pooling="mean")
    config = settings(method="all", learning_rate=1e-3)
    encoder.model = adapter.attach(encoder.model, config)
    before = weights(encoder)
    plan = TrainingPlan((BATCHES,) * 4, tokens, "key")
    callbacks = Callbacks(lambda _, __: None, lambda _, __: None, lambda _: None)
    state = fit(encoder, plan, config, tmp_path / "checkpoints", callbacks)
    assert sum(state.losses[-5:]) < sum(state.losses[:5])
    assert not is_equal(before, weights(encoder))


def test_norms_and_biases_are_not_decayed() -> None:
    weights = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(3))]
    optimizer = trainer._optimizer(weights, settings(weight_decay=0.1), torch.device("cpu"))
    decays = {id(w): g["weight_decay"] for g in optimizer.param_groups for w in g["params"]}
    assert [decays[id(weight)] for weight in weights] == [0.1, 0.0]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert weights[0].max().item() < 1
    assert weights[1].tolist() == [1.0, 1.0, 1.0]


def test_without_decay_there_is_one_group_in_the_order_of_the_model() -> None:
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    (group,) = trainer._optimizer(weights, settings(), torch.device("cpu")).param_groups
    assert [id(weight) for weight in group["params"]] == [id(weight) for weight in weights]
