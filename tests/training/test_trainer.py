"""One step is the loss it says it is; a course of them is the same however it is cut or stopped."""

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
    COURSE,
    TEMPERATURE,
    Stopped,
    batch,
    prepared,
    settings,
    tokens,
    train,
)

from parity.competition.query import MisconceptionId, QueryId
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter, base_model
from parity.retrieval.models.base_model import BaseModel
from parity.training import checkpoint, trainer
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import gradient
from parity.training.trainer import Callbacks, TrainingPlan, factor, fit

PINNED = (0.49959, 0.17517, 0.011753, 0.0029553)  # losses of steps 1, 6, 11 and 16
START = CheckpointState(0, 10, True, "key", 64)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in adapter.trained(encoder.model).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def gradients(base: BaseModel, batches: Sequence[Batch], **changes: Any) -> dict[str, torch.Tensor]:
    """Return the gradient that one optimizer step of these micro-batches would see."""
    config = settings(max_grad_norm=1e9, **changes)
    encoder = prepared(base, config)
    moved(encoder)
    course = TrainingPlan((tuple(batches),), tokens, "key")
    encoder.model.train()
    trainer._step(encoder, course, config, batches, START, models.idle(encoder))
    return {
        name: one.grad
        for name, one in encoder.model.named_parameters()
        if one.requires_grad and one.grad is not None
    }


def moved(encoder: Encoder) -> None:
    """Move LoRA's weights off zero, where half of the gradients vanish."""
    generator = torch.Generator().manual_seed(1)
    for parameter in encoder.model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    largest = max(float(one_.abs().max()) for one_ in one.values())
    assert largest > 1e-3
    for name, slope in one.items():
        assert (slope - other[name]).abs().max() <= 1e-5 * largest, name


def test_the_loss_of_a_batch_is_the_one_worked_out_by_hand(base: BaseModel) -> None:
    encoder = models.load(base)
    asked = Batch(
        tuple(map(QueryId, ("0_A", "1_A", "2_A"))),
        tuple(map(MisconceptionId, (0, 1, 7, 8))),
        (0, 1, 0),
        ((), (2,), (1, 3)),
    )
    with torch.no_grad():
        queries, passages = (models.alone(models.plain(base), rows) for rows in tokens(asked))
    expected = 0.0
    for row, (target, masked) in enumerate(zip(asked.target, asked.masked, strict=True)):
        scores = {
            place: float(queries[row] @ passages[place]) / TEMPERATURE
            for place in range(4)
            if place not in masked
        }
        expected -= scores[target] - math.log(sum(map(math.exp, scores.values())))
    encoder.model.requires_grad_(True)
    found = gradient(encoder, tokens(asked), asked, settings(), seed="").loss
    assert found == pytest.approx(expected / 3, abs=1e-5)


def test_accumulating_is_the_mean_of_its_micro_batches(base: BaseModel) -> None:
    one, other = (gradients(base, [part]) for part in BATCHES[:2])
    both = gradients(base, BATCHES[:2])
    close(both, {name: (one[name] + other[name]) / 2 for name in one})


def test_accumulating_one_batch_twice_is_that_batch(base: BaseModel) -> None:
    close(gradients(base, [BATCHES[0], BATCHES[0]]), gradients(base, [BATCHES[0]]))


def test_accumulating_is_the_larger_batch_whose_halves_do_not_meet(base: BaseModel) -> None:
    """In a larger batch each query meets the other half's passages; where those are masked, not."""
    first, second = batch([0, 1, 2], wrong=[10]), batch([3, 4, 5], wrong=[11])
    passages = (*first.passages, *second.passages)
    apart = Batch(
        (*first.query_ids, *second.query_ids),
        passages,
        (0, 1, 2, 4, 5, 6),
        ((4, 5, 6, 7),) * 3 + ((0, 1, 2, 3),) * 3,
    )
    close(gradients(base, [first, second]), gradients(base, [apart]))
    meeting = Batch(apart.query_ids, passages, apart.target, ((),) * 6)
    with pytest.raises(AssertionError):
        close(gradients(base, [meeting]), gradients(base, [apart]))


@pytest.mark.parametrize("method", ["lora", "all"])
def test_gradient_checkpointing_changes_no_gradient(base: BaseModel, method: str) -> None:
    without = gradients(base, BATCHES[:2], method=method)
    close(gradients(base, BATCHES[:2], method=method, gradient_checkpointing=True), without)


def test_a_large_gradient_is_cut_to_the_norm_that_is_allowed(base: BaseModel) -> None:
    encoder = prepared(base, settings())
    moved(encoder)
    trained = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    trainer._step(encoder, COURSE, settings(), BATCHES[:1], START, models.idle(encoder))
    trainer._clip(encoder, trained, settings(max_grad_norm=0.01))
    norm = torch.stack([one.grad.norm() for one in trained if one.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-4)


def test_a_step_never_spans_two_epochs() -> None:
    assert COURSE.steps(1) == [[one] for one in (*BATCHES, *BATCHES[::-1])]
    assert COURSE.ends(1) == [5, 10]
    a, b, c, d, e = BATCHES
    assert COURSE.steps(2) == [[a, b], [c, d], [e], [e, d], [c, b], [a]]
    assert COURSE.ends(2) == [3, 6]
    assert COURSE.steps(99) == [list(BATCHES), list(BATCHES[::-1])]
    assert COURSE.ends(99) == [1, 2]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 9))
def test_steps_hold_every_batch_in_order_and_end_where_they_say(
    sizes: list[int], accumulate: int
) -> None:
    epochs = tuple(tuple(batch([number]) for number in range(size)) for size in sizes)
    course = TrainingPlan(epochs, tokens, "key")
    steps, ends = course.steps(accumulate), course.ends(accumulate)
    assert len(steps) == ends[-1]
    for start, end, batches in zip([0, *ends], ends, epochs, strict=False):
        assert [one for step in steps[start:end] for one in step] == list(batches)
        assert all(len(step) == accumulate for step in steps[start : end - 1])
    assert max(map(len, steps)) <= accumulate


@given(st.integers(1, 300), st.integers(0, 50))
def test_the_learning_rate_rises_then_falls_and_never_is_zero(steps: int, warmup: int) -> None:
    rates = [factor(step, steps, warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if warmup < steps:
        assert max(rates) == 1
        assert rates[-1] == pytest.approx(1 / (steps - warmup))


def test_training_tells_of_every_step_and_every_epoch(base: BaseModel, tmp_path: Path) -> None:
    encoder, state, log, ended = train(base, tmp_path)
    assert [step for step, _ in log] == list(range(1, 11))
    assert ended == [(1, 5), (2, 10)]
    assert [values["epoch"] for _, values in log] == [1] * 5 + [2] * 5
    assert [values["learning_rate"] for _, values in log] == [
        pytest.approx(1e-2 * factor(step, 10, 2)) for step in range(10)
    ]
    assert state.losses == tuple(values["loss"] for _, values in log)
    assert (state.step, state.steps, state.capped, state.key) == (10, 10, True, "key")
    assert not encoder.model.training


def test_training_learns(base: BaseModel, tmp_path: Path) -> None:
    course = TrainingPlan((BATCHES,) * 6, tokens, "key")
    _, state, _, _ = train(base, tmp_path, course)
    assert sum(state.losses[-5:]) < 0.5 * sum(state.losses[:5])


def test_only_the_adapter_is_trained_or_everything_is(base: BaseModel, tmp_path: Path) -> None:
    bare = models.load(base).model.state_dict()
    encoder, *_ = train(base, tmp_path / "lora")
    inner = encoder.model.get_base_model().state_dict()
    kept = {
        name.replace(".base_layer", ""): one for name, one in inner.items() if "lora" not in name
    }
    assert same(kept, bare)
    encoder, *_ = train(base, tmp_path / "all", method="all", learning_rate=1e-3)
    assert not same(encoder.model.state_dict(), bare)


def test_the_same_training_has_the_same_bytes_and_another_seed_others(
    base: BaseModel, tmp_path: Path
) -> None:
    first, second, other = (
        weights(train(base, tmp_path / name, dropout=0.3, seed=seed)[0])
        for name, seed in (("first", 0), ("second", 0), ("other", 1))
    )
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize(
    "changes", [{}, {"lora_dropout": 0.5}, {"gradient_accumulation_steps": 2}, {"method": "all"}]
)
@pytest.mark.parametrize("every", [1, 3])
def test_stopped_after_any_step_and_gone_on_it_ends_in_the_bytes_of_an_unbroken_run(
    base: BaseModel, tmp_path: Path, changes: dict[str, Any], every: int
) -> None:
    more = {**changes, "checkpoint_every": every}
    unbroken, state, _, _ = train(base, tmp_path / "unbroken", **more)
    folder = tmp_path / "broken"
    for stop in range(1, state.steps + 1):
        with pytest.raises(Stopped):
            train(base, folder, stop=stop, **more)
    encoder, gone_on, log, _ = train(base, folder, **more)
    assert [step for step, _ in log] == list(range(gone_on.step - len(log) + 1, state.steps + 1))
    assert gone_on == state
    assert gone_on.spent.seconds > 0
    assert same(weights(encoder), weights(unbroken))


def test_after_a_resume_every_epoch_begun_is_told_of_again(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(base, tmp_path, stop=8, checkpoint_every=1)
    *_, ended = train(base, tmp_path)
    assert ended == [(1, 7), (2, 10)]  # the watch knows which of them are done
    *_, log, ended = train(base, tmp_path)
    assert log == []
    assert ended == [(1, 10), (2, 10)]


def test_a_checkpoint_of_another_course_is_not_gone_on_from(
    base: BaseModel, tmp_path: Path
) -> None:
    train(base, tmp_path)
    other = TrainingPlan(COURSE.epochs, tokens, "another key")
    _, state, log, _ = train(base, tmp_path, other)
    assert len(log) == 10
    assert state.key == "another key"
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000010"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return how to set what each look at the clock takes, in seconds."""
    now = SimpleNamespace(time=0.0, seconds=1.0)

    def monotonic() -> float:
        now.time += now.seconds
        return float(now.time)

    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=monotonic))

    def pace(seconds: float) -> None:
        now.seconds = seconds

    return pace


@pytest.mark.parametrize(
    ("minutes", "steps", "ends"),
    [
        (10.0, 10, [(1, 5), (2, 10)]),  # more than there is to do
        (0.12, 7, [(1, 5), (2, 7)]),
        (0.09, 5, [(1, 5)]),
        (0.06, 3, [(1, 3)]),
        (0.0001, 3, [(1, 3)]),  # three are done by when it is known
    ],
)
def test_a_cap_on_minutes_becomes_a_count_of_steps_once(
    base: BaseModel,
    tmp_path: Path,
    clock: Callable[[float], None],
    minutes: float,
    steps: int,
    ends: list[tuple[int, int]],
) -> None:
    said: list[str] = []
    _, state, log, ended = train(base, tmp_path, minutes=minutes, said=said)
    assert said == [f"1.00 s a step: {minutes:g} minutes allow {steps} of 10 steps"]
    assert (state.step, state.steps, state.capped) == (steps, steps, True)
    assert ended == ends
    last = log[-1][1]["learning_rate"]
    assert last == pytest.approx(1e-2 * factor(steps - 1, 10 if steps == 3 else steps, 2))


def test_the_count_is_in_a_checkpoint_before_training_goes_on(
    base: BaseModel, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    with pytest.raises(Stopped):
        train(base, tmp_path, minutes=0.12, stop=4)
    path = checkpoint.newest(tmp_path, "key")
    assert path is not None
    assert path.name == "step-0000003"
    clock(1000.0)  # from here on three steps would be all that is allowed
    said: list[str] = []
    _, state, _, _ = train(base, tmp_path, minutes=0.12, said=said)
    assert said == []
    assert state.steps == state.step == 7


def test_a_capped_training_gone_on_has_the_bytes_of_one_that_was_not_stopped(
    base: BaseModel, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    unbroken, *_ = train(base, tmp_path / "unbroken", minutes=0.12)
    for stop in (4, 5, 6):
        with pytest.raises(Stopped):
            train(base, tmp_path / "broken", minutes=0.12, stop=stop, checkpoint_every=1)
    clock(7.0)
    encoder, *_ = train(base, tmp_path / "broken", minutes=0.12)
    assert same(weights(encoder), weights(unbroken))


def test_without_a_cap_no_time_is_told(base: BaseModel, tmp_path: Path) -> None:
    said: list[str] = []
    train(base, tmp_path, said=said)
    assert said == []


def test_the_losses_of_twenty_steps_are_what_they_were(base: BaseModel, tmp_path: Path) -> None:
    course = TrainingPlan((BATCHES,) * 4, tokens, "key")
    _, state, _, _ = train(base, tmp_path, course)
    assert state.losses[::5] == pytest.approx(PINNED, rel=1e-2)


def test_a_small_encoder_is_trained_too(tmp_path: Path) -> None:
    written = models.write(tmp_path / "bert", "bert")
    encoder = models.load(base_model.describe("bert", written.folder), pooling="mean")
    config = settings(method="all", learning_rate=1e-3)
    encoder.model = adapter.attach(encoder.model, config)
    before = weights(encoder)
    course = TrainingPlan((BATCHES,) * 4, tokens, "key")
    silent = Callbacks(lambda _, __: None, lambda _, __: None, lambda _: None)
    state = fit(encoder, course, config, tmp_path / "checkpoints", silent)
    assert sum(state.losses[-5:]) < sum(state.losses[:5])
    assert not same(before, weights(encoder))
