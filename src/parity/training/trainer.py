"""The training loop: packed contrastive steps, a step plan made once, exact resume.

Each step depends on the weights, the batch and the step's own seed alone, so a run that was
killed and resumed ends in the bytes of one that was not. Where memory runs out, the step is made
again with packs of half the tokens, as are all later ones.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import device as hardware
from parity.retrieval.engine import oom_retry
from parity.run.config.run_file import TrainingConfig
from parity.run.progress import Bar, progress
from parity.training import checkpoint
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import StepResult, Tokens, gradient

_MEASURED = 3  # first steps whose time turns the cap into a step count


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What is learnt from, in order.

    Attributes:
        epochs: the batches of each epoch.
        tokens: batch → token ids of its queries and of its passages.
        key: digest of all inputs and settings; names the checkpoints that belong to it.
    """

    epochs: tuple[tuple[Batch, ...], ...]
    tokens: Callable[[Batch], tuple[Tokens, Tokens]]
    key: str

    def steps(self, accumulate: int) -> list[list[Batch]]:
        """Return the micro-batches of every optimizer step; a step never spans two epochs."""
        return [
            list(batches[start : start + accumulate])
            for batches in self.epochs
            for start in range(0, len(batches), accumulate)
        ]

    def ends(self, accumulate: int) -> list[int]:
        """Return how many optimizer steps are done at the end of each epoch."""
        counts = [-(-len(batches) // accumulate) for batches in self.epochs]
        return [sum(counts[: epoch + 1]) for epoch in range(len(counts))]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who is told what, while training goes on.

    Attributes:
        after_epoch: the epoch (from 1) when its steps are done, and again after a resume in case
            it was cut short; must do nothing where its work is there.
        log: loss and learning rate of each step.
        say: lines for a person.
    """

    after_epoch: Callable[[int, CheckpointState], None]
    log: Callable[[dict[str, float], int], None]
    say: Callable[[str], None]


def fit(
    encoder: Encoder, course: TrainingPlan, config: TrainingConfig, folder: Path, watch: Callbacks
) -> CheckpointState:
    """Train the encoder's trainable weights in place, going on from a checkpoint in `folder`.

    Args:
        encoder: its model prepared by `adapter.attach`.
        course: batches and tokens.
        config: the optimization.
        folder: where checkpoints lie.
        watch: is told of steps and epochs.

    Raises:
        BadConfig: memory runs out with packs that are as small as helps.
    """
    weights = [weight for weight in encoder.model.parameters() if weight.requires_grad]
    optimizer = _optimizer(weights, config, encoder.device)
    steps = course.steps(config.gradient_accumulation_steps)
    state = CheckpointState(0, len(steps), config.minutes == 0, course.key, config.token_budget)
    if path := checkpoint.newest(folder, course.key):
        state = checkpoint.load(path, encoder.model, optimizer)
    losses = _Losses(watch)
    with progress("train", state.steps, "step", state.step) as bar:
        for epoch, end in enumerate(course.ends(config.gradient_accumulation_steps), start=1):
            encoder.model.train()  # not at each step: a model has thousands of modules to tell
            while state.step < min(end, state.steps):
                began, rate = time.monotonic(), _rate(optimizer, config, state)
                state, loss = _step(encoder, course, config, steps[state.step], state, optimizer)
                _clip(encoder, weights, config)
                optimizer.step()
                state = losses.add(state, loss, {"learning_rate": rate, "epoch": epoch})
                state = replace(state, spent=state.spent.lasted(time.monotonic() - began))
                cap = not state.capped and state.step == min(_MEASURED, len(steps))
                if cap or state.step % config.checkpoint_every == 0:
                    state = losses.read(state)
                    if cap:
                        state = _cap(state, config, encoder, watch)
                    _save(folder, state, encoder, optimizer)
                _show(bar, state)
            state = losses.read(state)
            _save(folder, state, encoder, optimizer)
            encoder.model.eval()
            watch.after_epoch(epoch, state)
            if end >= state.steps:  # not by the step: a resume at the last one has epochs to finish
                break
    return state


def _optimizer(
    weights: list[torch.nn.Parameter], config: TrainingConfig, device: torch.device
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        weights,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        foreach=False,
        fused=device.type == "cuda",  # one kernel in place of thousands of small ones
    )


def _rate(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, state: CheckpointState
) -> float:
    """Set the next step's learning rate, and return it."""
    rate = config.learning_rate * factor(state.step, state.steps, config.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


class _Losses:
    """Reads each loss a step late: who reads waits, and a GPU that is waited for has no work."""

    def __init__(self, watch: Callbacks) -> None:
        self._watch = watch
        self._late: tuple[torch.Tensor, dict[str, float]] | None = None

    def add(
        self, state: CheckpointState, loss: torch.Tensor, told: dict[str, float]
    ) -> CheckpointState:
        """Take the loss of the step that was just begun; return the progress with those before."""
        before = replace(state, step=state.step - 1)
        state = replace(self.read(before), step=state.step)
        self._late = loss, told
        return state

    def read(self, state: CheckpointState) -> CheckpointState:
        """Return the progress with all losses up to its step."""
        if self._late is None:
            return state
        (loss, told), self._late = self._late, None
        value = float(loss.item())
        self._watch.log({"loss": value, **told}, state.step)
        return replace(state, losses=(*state.losses, value))


def _show(bar: Bar, state: CheckpointState) -> None:
    """Move the bar to where training is; a cap on time may have changed its end."""
    bar.total = state.steps
    if state.losses:
        bar.set_postfix_str(f"loss {state.losses[-1]:.3f}", refresh=False)
    bar.update(state.step - bar.n)


def factor(step: int, steps: int, warmup: int) -> float:
    """Return the learning rate's factor at `step` (from 0): linear up, then linear down to 0.

    >>> [round(factor(step, 6, 2), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / max(1, steps - warmup)


def _step(
    encoder: Encoder,
    course: TrainingPlan,
    config: TrainingConfig,
    batches: Sequence[Batch],
    state: CheckpointState,
    optimizer: torch.optim.Optimizer,
) -> tuple[CheckpointState, torch.Tensor]:
    """Leave this process's gradient of one optimizer step.

    Returns:
        The progress with it done, but for its loss; its loss, (), which to read means to wait.
    """
    asked = [course.tokens(batch) for batch in batches]
    before = hardware.taken(encoder.device)

    def attempt(most: int) -> tuple[list[StepResult], int]:
        # Of the step before, or of an attempt that ran short. They stay where they are: a recorded
        # step adds to them there.
        optimizer.zero_grad(set_to_none=False)
        # The seed is of this step alone, so that a resumed run repeats it.
        under = config.model_copy(update={"token_budget": most})
        learnt = [
            gradient(
                encoder,
                tokens,
                batch,
                under,
                seed=f"{config.seed}/{state.step}/{place}",
                share=1 / len(batches),
            )
            for place, (batch, tokens) in enumerate(zip(batches, asked, strict=True))
        ]
        return learnt, most

    longest = max(len(ids) for pair in asked for side in pair for ids in side)
    name = "training.token_budget"
    learnt, used = oom_retry.halving(
        state.budget, attempt, floor=longest, name=name, release=encoder.release
    )
    spent = state.spent.add(
        tokens=sum(one.tokens for one in learnt),
        held=max(one.held for one in learnt),
        # A peak is no step's own where an attempt before it ran out of memory.
        risen=hardware.risen(encoder.device, before) if used == state.budget else 0,
    )
    loss = torch.stack([one.loss for one in learnt]).mean()
    return replace(state, step=state.step + 1, budget=used, spent=spent), loss


def _clip(encoder: Encoder, weights: Sequence[torch.nn.Parameter], config: TrainingConfig) -> None:
    """Add up the gradients of all processes, and cut their norm."""
    # A process that owns no pack of this batch has no gradient of its own to add.
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    encoder.workers.add_up([weight.grad for weight in weights if weight.grad is not None])
    torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)


def _cap(
    state: CheckpointState, config: TrainingConfig, encoder: Encoder, watch: Callbacks
) -> CheckpointState:
    """Turn the cap on minutes into a step count, the same in every process, by seconds a step."""
    seconds = state.spent.seconds / state.step
    allowed = max(state.step, int(config.minutes * 60 / seconds))
    steps = torch.tensor(min(state.steps, allowed), device=encoder.device)
    agreed = encoder.workers.share([steps])[0]  # the main process decides
    known = replace(state, steps=int(agreed.item()), capped=True)
    watch.say(
        f"{seconds:.2f} s a step: {config.minutes:g} minutes allow {known.steps} of {state.steps} "
        "steps"
    )
    return known


def _save(
    folder: Path, state: CheckpointState, encoder: Encoder, optimizer: torch.optim.Optimizer
) -> None:
    if encoder.workers.main:
        checkpoint.save(folder, state, encoder.model, optimizer)
    encoder.workers.wait()
