"""Training loop: packed contrastive steps, exact resume, a cap on minutes.

Each step depends only on the weights, the batch and its own seed, so an interrupted and resumed run
ends with the same bytes as an uninterrupted one. If memory runs out, this step and all later ones
use packs of half the tokens.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import device as hardware
from parity.retrieval.engine import oom_retry
from parity.run.config.training import TrainingConfig
from parity.run.errors import NotFinite
from parity.run.progress import Bar, progress
from parity.training import checkpoint
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import StepResult, Tokens, add_gradient

_TIMED_STEPS = 3  # first steps, whose time converts the cap on minutes to steps


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The training data, in order.

    Attributes:
        epochs: batches of each epoch.
        tokens: function from a batch to the token ids of its queries and of its passages.
        key: digest of all inputs and settings, which identifies the matching checkpoints.
    """

    epochs: tuple[tuple[Batch, ...], ...]
    tokens: Callable[[Batch], tuple[Tokens, Tokens]]
    key: str

    def steps(self, accumulate: int) -> list[list[Batch]]:
        """Return the micro-batches of each optimizer step; no step spans two epochs."""
        return [
            list(batches[start : start + accumulate])
            for batches in self.epochs
            for start in range(0, len(batches), accumulate)
        ]

    def ends(self, accumulate: int) -> list[int]:
        """Return the number of optimizer steps done at the end of each epoch."""
        counts = [-(-len(batches) // accumulate) for batches in self.epochs]
        return [sum(counts[: epoch + 1]) for epoch in range(len(counts))]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Functions that `fit` calls.

    Attributes:
        after_epoch: called with the epoch (from 1) and the state when its steps are done, and again
            after a resume, since it may have been interrupted; must be idempotent.
        log: called with loss, learning rate and epoch, and the number of each step.
        report: called with lines for the user.
    """

    after_epoch: Callable[[int, CheckpointState], None]
    log: Callable[[dict[str, float], int], None]
    report: Callable[[str], None]


def fit(
    encoder: Encoder, plan: TrainingPlan, config: TrainingConfig, folder: Path, callbacks: Callbacks
) -> CheckpointState:
    """Train the encoder's trainable weights in place; resume from a checkpoint in `folder`.

    Args:
        encoder: encoder whose model comes from `adapter.attach`.
        plan: batches and tokens.
        config: optimizer settings and token budget.
        folder: folder of the checkpoints.
        callbacks: functions called after steps and epochs.

    Returns:
        The final state.

    Raises:
        BadConfig: memory runs out with the smallest packs too.
        NotFinite: a loss or a gradient norm is not finite; no checkpoint has that step.
    """
    weights = [weight for weight in encoder.model.parameters() if weight.requires_grad]
    optimizer = _optimizer(weights, config, encoder.device)
    steps = plan.steps(config.gradient_accumulation_steps)
    state = CheckpointState(0, len(steps), config.minutes == 0, plan.key, config.token_budget)
    if path := checkpoint.newest(folder, plan.key):
        state = checkpoint.load(path, encoder.model, optimizer)
    losses = _Losses(callbacks)
    with progress("train", state.steps, "step", state.step) as bar:
        for epoch, end in enumerate(plan.ends(config.gradient_accumulation_steps), start=1):
            encoder.model.train()  # not at each step: it visits thousands of modules
            while state.step < min(end, state.steps):
                began, rate = time.monotonic(), _rate(optimizer, config, state)
                state, loss = _step(encoder, plan, config, steps[state.step], state, optimizer)
                norm = _clip(encoder, weights, config)
                optimizer.step()
                state = losses.add(state, (loss, norm), {"learning_rate": rate, "epoch": epoch})
                state = replace(state, spent=state.spent.add_seconds(time.monotonic() - began))
                cap = not state.capped and state.step == min(_TIMED_STEPS, len(steps))
                if cap or state.step % config.checkpoint_every == 0:
                    state = losses.read(state)
                    if cap:
                        state = _cap(state, config, encoder, callbacks)
                    _save(folder, state, encoder, optimizer)
                _update_bar(bar, state)
            state = losses.read(state)
            _save(folder, state, encoder, optimizer)
            encoder.model.eval()
            callbacks.after_epoch(epoch, state)
            if end >= state.steps:  # not by the step: a resume at the last step must finish epochs
                break
    return state


def _optimizer(
    weights: list[torch.nn.Parameter], config: TrainingConfig, device: torch.device
) -> torch.optim.Optimizer:
    # Norms and biases are not decayed, as in transformers' Trainer.
    vectors = [weight for weight in weights if weight.dim() < 2] if config.weight_decay else []
    matrices = [weight for weight in weights if weight.dim() >= 2 or not config.weight_decay]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}]
    groups += [{"params": vectors, "weight_decay": 0.0}] if vectors else []
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        foreach=False,
        fused=device.type == "cuda",  # one kernel instead of thousands of small ones
    )


def _rate(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, state: CheckpointState
) -> float:
    """Set the learning rate of the next step and return it."""
    rate = config.learning_rate * learning_rate_factor(state.step, state.steps, config.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


class _Losses:
    """Defers `loss.item()` by one step, so that reading it does not stall the GPU.

    No checkpoint is saved between a step and the reading of its loss.
    """

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._pending: tuple[tuple[torch.Tensor, torch.Tensor], dict[str, float]] | None = None

    def add(
        self,
        state: CheckpointState,
        results: tuple[torch.Tensor, torch.Tensor],
        values: dict[str, float],
    ) -> CheckpointState:
        """Store loss and norm of the step just queued; return the state with earlier losses."""
        before = replace(state, step=state.step - 1)
        state = replace(self.read(before), step=state.step)
        self._pending = results, values
        return state

    def read(self, state: CheckpointState) -> CheckpointState:
        """Return the state with all losses up to its step.

        Raises:
            NotFinite: the loss or the gradient norm of the step is not finite.
        """
        if self._pending is None:
            return state
        ((loss, norm), values), self._pending = self._pending, None
        value = float(loss.item())
        for name, number in (("loss", value), ("gradient norm", float(norm.item()))):
            if not math.isfinite(number):
                raise NotFinite(
                    f"training step {state.step}: the {name} is {number}. Lower "
                    "training.learning_rate, or set encoder.precision to 'fp32' or 'bf16'"
                )
        self._callbacks.log({"loss": value, **values}, state.step)
        return replace(state, losses=(*state.losses, value))


def _update_bar(bar: Bar, state: CheckpointState) -> None:
    """Update the bar to the current step; the cap on minutes may have changed its total."""
    bar.total = state.steps
    if state.losses:
        bar.set_postfix_str(f"loss {state.losses[-1]:.3f}", refresh=False)
    bar.update(state.step - bar.n)


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the factor of the learning rate at `step` (from 0): linear warmup, linear decay.

    >>> [round(learning_rate_factor(step, 6, 2), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / max(1, steps - warmup)


def _step(
    encoder: Encoder,
    plan: TrainingPlan,
    config: TrainingConfig,
    batches: Sequence[Batch],
    state: CheckpointState,
    optimizer: torch.optim.Optimizer,
) -> tuple[CheckpointState, torch.Tensor]:
    """Compute this process's gradient of one optimizer step into the weights' `grad`.

    Returns:
        The state after the step, without its loss; the loss, (), which is not synchronized.
    """
    tokens_of = [plan.tokens(batch) for batch in batches]
    before = hardware.allocated_bytes(encoder.device)

    def attempt(token_budget: int) -> tuple[list[StepResult], int]:
        # Gradients of the previous step or of a failed attempt. Keep the buffers: a step captured
        # as a CUDA graph adds to them in place.
        optimizer.zero_grad(set_to_none=False)
        # The seed depends only on this step, so that a resumed run repeats it.
        settings = config.model_copy(update={"token_budget": token_budget})
        results = [
            add_gradient(
                encoder,
                tokens,
                batch,
                settings,
                seed=f"{config.seed}/{state.step}/{index}",
                share=1 / len(batches),
            )
            for index, (batch, tokens) in enumerate(zip(batches, tokens_of, strict=True))
        ]
        return results, token_budget

    longest = max(len(ids) for pair in tokens_of for side in pair for ids in side)
    name = "training.token_budget"
    results, final_budget = oom_retry.retry_with_half(
        state.budget, attempt, floor=longest, name=name, release=encoder.release
    )
    spent = state.spent.add_step(
        tokens=sum(result.tokens for result in results),
        graph_tokens=max(result.graph_tokens for result in results),
        # After a failed attempt, the peak belongs to that attempt.
        peak_increase=hardware.peak_increase(encoder.device, before)
        if final_budget == state.budget
        else 0,
    )
    loss = torch.stack([result.loss for result in results]).mean()
    return replace(state, step=state.step + 1, budget=final_budget, spent=spent), loss


def _clip(
    encoder: Encoder, weights: Sequence[torch.nn.Parameter], config: TrainingConfig
) -> torch.Tensor:
    """Sum the gradients of all processes and clip their norm; return the norm before, ()."""
    # A process without a pack of this batch has no gradient to add.
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    encoder.workers.all_reduce([weight.grad for weight in weights if weight.grad is not None])
    return torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)


def _cap(
    state: CheckpointState, config: TrainingConfig, encoder: Encoder, callbacks: Callbacks
) -> CheckpointState:
    """Convert the cap on minutes to a number of steps, the same in every process."""
    seconds = state.spent.seconds / state.step
    step_limit = max(state.step, int(config.minutes * 60 / seconds))
    steps = torch.tensor(min(state.steps, step_limit), device=encoder.device)
    agreed = encoder.workers.share([steps])[0]  # the main process decides
    capped = replace(state, steps=int(agreed.item()), capped=True)
    callbacks.report(
        f"{seconds:.2f} s a step: {config.minutes:g} minutes allow {capped.steps} of {state.steps} "
        "steps"
    )
    return capped


def _save(
    folder: Path, state: CheckpointState, encoder: Encoder, optimizer: torch.optim.Optimizer
) -> None:
    if encoder.workers.is_main:
        checkpoint.save(folder, state, encoder.model, optimizer)
    encoder.workers.wait()
