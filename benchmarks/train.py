"""Training: one contrastive step, forward, backward and AdamW, by us and by the peers."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import equality, models, records, works
from benchmarks.learners import LEARNERS, RATE, Learner, Ours, adapter_of, sampled
from benchmarks.measure import cost, free
from benchmarks.models import Held
from benchmarks.peers import Seen
from benchmarks.works import Group, World
from parity.retrieval.engine.oom_retry import ran_out
from parity.run.errors import Mismatch

APART = 1e-4
"""Largest relative difference of loss or gradients that passes, in fp32 on a tiny model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is trained.

    Attributes:
        works: names, see `works.TRAIN`.
        learners: names, see `LEARNERS`.
        checkpointing: off, on, or both after each other.
        batch: queries in a step.
        group: passages of a query.
        steps: timed steps of a run.
        warm: steps before, not timed.
        repeat: runs.
        budget: tokens in one of our packs.
    """

    works: Sequence[str]
    learners: Sequence[str]
    checkpointing: Sequence[bool]
    batch: int
    group: int
    steps: int
    warm: int
    repeat: int
    budget: int


def run(held: Held, world: World, plan: Plan, limit: float, say: Any) -> list[dict[str, Any]]:
    """Return one record for each work.

    Args:
        held: the run's model.
        world: the competition.
        plan: how much.
        limit: FLOP/s of the matrix product of this run.
        say: takes lines for a person.

    Raises:
        Mismatch: a contender reads other tokens, or its loss or gradients differ from ours.
    """
    reader = held.reader(plan.budget)
    rows = works.drawn(world, batches=plan.steps, batch=plan.batch, group=plan.group, seed=0)
    groups = {
        name: [
            sampled(one, held.peers, place)
            if name == "random"
            else works.grouped(one, "shared" if name == "shared" else "none", reader)
            for place, one in enumerate(rows)
        ]
        for name in plan.works
    }
    equal = {name: proven(held, groups[name][0], plan) for name in plan.works}
    for name, shown in equal.items():
        for peer, apart in shown.items():
            say(f"{name}: {peer} equal in fp32: loss {apart['loss']:.1e}, grad {apart['grad']:.1e}")
    timed: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.works}
    for name in plan.learners:
        for checkpointing in plan.checkpointing:
            for work, found in _contender(held, name, groups, plan, checkpointing, say).items():
                timed[work].append(found)
    return [
        records.record(held, name, groups[name], timed[name], limit, plan.budget)
        for name in plan.works
    ]


def proven(held: Held, group: Group, plan: Plan) -> dict[str, dict[str, float]]:
    """Show on a tiny fp32 model that tokens, loss and gradients are ours.

    Returns:
        peer → relative differences of `loss` and of the gradients (`grad`).

    Raises:
        Mismatch: they are not.
    """
    with tempfile.TemporaryDirectory() as name:
        small = models.random(
            "tiny", held.base.folder, Path(name), device=held.device, dtype=torch.float32
        )
        return _compared_with_ours(small, group, plan)


def _compared_with_ours(small: Held, group: Group, plan: Plan) -> dict[str, dict[str, float]]:
    ours = Ours(small, budget=plan.budget, checkpointing=False)
    _stir(ours)
    kept = {name: weight.detach().clone() for name, weight in adapter_of(ours).items()}
    wanted = _step(ours, group)
    tokens = [row for part in ours.tokens(group) for row in part]
    found: dict[str, dict[str, float]] = {}
    for name in plan.learners:
        if name == Ours.name:
            continue
        peer = LEARNERS[name](small, budget=plan.budget, checkpointing=False)
        for place, weight in adapter_of(peer).items():
            weight.data.copy_(kept[place])
        with Seen(peer.model, rows=True) as seen:
            theirs = _step(peer, group)
        equality.same_tokens(name, seen.rows, tokens)
        found[name] = _compared(name, theirs, wanted)
    return found


def _stir(learner: Learner) -> None:
    """Move LoRA's B away from zero, which would leave A without a gradient."""
    torch.manual_seed(0)
    for name, weight in adapter_of(learner).items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)


def _step(learner: Learner, group: Group) -> tuple[float, dict[str, torch.Tensor]]:
    loss = float(learner.backward(group))
    grads = {
        name: weight.grad.float()
        for name, weight in adapter_of(learner).items()
        if weight.grad is not None
    }
    return loss, grads


def _compared(who: str, theirs: Any, ours: Any) -> dict[str, float]:
    (loss, grads), (our_loss, our_grads) = theirs, ours
    if grads.keys() != our_grads.keys() or not grads:
        raise Mismatch(f"{who} trains other weights: {sorted(grads.keys() ^ our_grads.keys())[:2]}")
    scale = max(float(grad.abs().max()) for grad in our_grads.values())
    apart = {
        "loss": abs(loss - our_loss) / abs(our_loss),
        "grad": max(float((grads[grad] - our_grads[grad]).abs().max()) for grad in grads) / scale,
    }
    if not max(apart.values()) <= APART:
        raise Mismatch(
            f"{who}: on a tiny fp32 model the loss differs by {apart['loss']:.1e} and gradients by "
            f"{apart['grad']:.1e} of their largest; the limit is {APART:.0e}"
        )
    return apart


def _contender(
    held: Held, name: str, groups: dict[str, list[Group]], plan: Plan, checkpointing: bool, say: Any
) -> dict[str, dict[str, Any]]:
    """Time one contender on all works; the others' weights are not there meanwhile."""
    learner = LEARNERS[name](held, budget=plan.budget, checkpointing=checkpointing)
    weights = list(adapter_of(learner).values())
    fused = held.device.type == "cuda"  # as both trainers have it by default now
    optimizer = torch.optim.AdamW(weights, lr=RATE, fused=fused)
    start = [weight.detach().clone() for weight in weights]
    found: dict[str, dict[str, Any]] = {}
    for work, batches in groups.items():
        for weight, first in zip(weights, start, strict=True):
            weight.data.copy_(first)
        trained = sum(weight.numel() for weight in weights)
        line = {"who": name, "checkpointing": checkpointing, "trained": trained}
        try:
            found[work] = line | _timed(held.device, learner, optimizer, batches, plan)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            found[work] = line | {"out_of_memory": True}
            optimizer.zero_grad(set_to_none=False)
            free(held.device)
        say(f"{work}: {name}, checkpointing {checkpointing}: {_told(found[work])}")
    del learner, weights, optimizer
    free(held.device)
    return found


def _timed(
    device: torch.device, learner: Learner, optimizer: Any, batches: list[Group], plan: Plan
) -> dict[str, Any]:
    """Take warm steps, then `repeat` times all of them."""

    def steps(taken: Sequence[Group]) -> list[torch.Tensor]:
        losses = []
        for group in taken:
            losses.append(learner.backward(group))
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        return losses

    with Seen(learner.model) as seen:
        first, spent = cost(device, lambda: steps(batches[:1]))
    warm = cost(device, lambda: steps(batches[1 : plan.warm]))[1].seconds
    runs = [cost(device, lambda: steps(batches))[1] for _ in range(plan.repeat)]
    return {
        "first_loss": float(first[0]),
        "first_call": spent.seconds + warm,
        "padded": sum(seen.calls),
        "runs": [asdict(one) | {"each": one.seconds / len(batches)} for one in runs],
        "peak": max(one.peak for one in runs),
    }


def _told(line: dict[str, Any]) -> str:
    if "out_of_memory" in line:
        return "out of memory"
    seconds = min(one["each"] for one in line["runs"])
    return f"{seconds:.3f} s a step, {line['peak'] / 2**30:.1f} GiB"
