"""Benchmark training: one contrastive step with forward, backward and AdamW, and the peers'."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import equality, models, records, works
from benchmarks.learners import LEARNERS, RATE, Learner, Ours, adapter_of, sampled
from benchmarks.measure import cost, free
from benchmarks.models import LoadedModel
from benchmarks.peers import Seen
from benchmarks.works import Group, World
from parity.retrieval.engine.oom_retry import is_out_of_memory
from parity.run.errors import Mismatch

APART = 1e-4
"""Largest relative difference of loss or gradients that passes, in fp32 on a tiny model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Amounts of training work.

    Attributes:
        works: names, see `works.TRAIN`.
        learners: names, see `LEARNERS`.
        checkpointing: values of gradient checkpointing to run.
        batch: queries in a step.
        group: passages of a query.
        steps: timed steps of a run.
        warm: untimed steps before.
        repeat: number of runs.
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


def run(
    loaded: LoadedModel, world: World, plan: Plan, limit: float, say: Any
) -> list[dict[str, Any]]:
    """Return one record for each work.

    Args:
        loaded: model of the run.
        world: rows of the competition.
        plan: amounts.
        limit: FLOP/s of the matrix product of this run.
        say: function that prints a line.

    Raises:
        Mismatch: a contender has other tokens, or its loss or gradients differ from ours.
    """
    reader = loaded.reader(plan.budget)
    rows = works.drawn(world, batches=plan.steps, batch=plan.batch, group=plan.group, seed=0)
    groups = {
        name: [
            sampled(batch, loaded.peers, seed)
            if name == "random"
            else works.grouped(batch, "shared" if name == "shared" else "none", reader)
            for seed, batch in enumerate(rows)
        ]
        for name in plan.works
    }
    equal = {name: check_equality(loaded, groups[name][0], plan) for name in plan.works}
    for name, shown in equal.items():
        for peer, apart in shown.items():
            say(f"{name}: {peer} equal in fp32: loss {apart['loss']:.1e}, grad {apart['grad']:.1e}")
    timed: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.works}
    for name in plan.learners:
        for checkpointing in plan.checkpointing:
            for work, record_ in _contender(loaded, name, groups, plan, checkpointing, say).items():
                timed[work].append(record_)
    return [
        records.record(loaded, name, groups[name], timed[name], limit, plan.budget)
        for name in plan.works
    ]


def check_equality(loaded: LoadedModel, group: Group, plan: Plan) -> dict[str, dict[str, float]]:
    """Check on a tiny fp32 model that the peers' tokens, loss and gradients equal ours.

    Returns:
        Peer → relative differences of `loss` and of the gradients (`grad`).

    Raises:
        Mismatch: they differ.
    """
    with tempfile.TemporaryDirectory() as name:
        small = models.random(
            "tiny", loaded.base.folder, Path(name), device=loaded.device, dtype=torch.float32
        )
        return _compared_with_ours(small, group, plan)


def _compared_with_ours(
    small: LoadedModel, group: Group, plan: Plan
) -> dict[str, dict[str, float]]:
    our_learner = Ours(small, budget=plan.budget, checkpointing=False)
    _randomize(our_learner)
    weights = {name: weight.detach().clone() for name, weight in adapter_of(our_learner).items()}
    our_step = _step(our_learner, group)
    tokens = [row for part in our_learner.tokens(group) for row in part]
    result: dict[str, dict[str, float]] = {}
    for name in plan.learners:
        if name == Ours.name:
            continue
        peer = LEARNERS[name](small, budget=plan.budget, checkpointing=False)
        for name_in_model, weight in adapter_of(peer).items():
            weight.data.copy_(weights[name_in_model])
        with Seen(peer.model, rows=True) as seen:
            peer_step = _step(peer, group)
        equality.same_tokens(name, seen.rows, tokens)
        result[name] = _compared(name, peer_step, our_step)
    return result


def _randomize(learner: Learner) -> None:
    """Set LoRA's B to random values, because A has no gradient while B is zero."""
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


def _compared(who: str, peer_step: Any, our_step: Any) -> dict[str, float]:
    (loss, grads), (our_loss, our_grads) = peer_step, our_step
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
    loaded: LoadedModel,
    name: str,
    groups: dict[str, list[Group]],
    plan: Plan,
    checkpointing: bool,
    say: Any,
) -> dict[str, dict[str, Any]]:
    """Time one contender on all works, without the others' weights in memory."""
    learner = LEARNERS[name](loaded, budget=plan.budget, checkpointing=checkpointing)
    weights = list(adapter_of(learner).values())
    fused = loaded.device.type == "cuda"  # the default of both trainers
    optimizer = torch.optim.AdamW(weights, lr=RATE, fused=fused)
    start = [weight.detach().clone() for weight in weights]
    records_by_work: dict[str, dict[str, Any]] = {}
    for work, batches in groups.items():
        for weight, first in zip(weights, start, strict=True):
            weight.data.copy_(first)
        trained = sum(weight.numel() for weight in weights)
        line = {"who": name, "checkpointing": checkpointing, "trained": trained}
        try:
            records_by_work[work] = line | _timed(loaded.device, learner, optimizer, batches, plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            records_by_work[work] = line | {"out_of_memory": True}
            optimizer.zero_grad(set_to_none=False)
            free(loaded.device)
        say(f"{work}: {name}, checkpointing {checkpointing}: {_describe(records_by_work[work])}")
    del learner, weights, optimizer
    free(loaded.device)
    return records_by_work


def _timed(
    device: torch.device, learner: Learner, optimizer: Any, batches: list[Group], plan: Plan
) -> dict[str, Any]:
    """Run warm-up steps, then all steps `repeat` times."""

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
        "runs": [asdict(item) | {"each": item.seconds / len(batches)} for item in runs],
        "peak": max(item.peak for item in runs),
    }


def _describe(line: dict[str, Any]) -> str:
    if "out_of_memory" in line:
        return "out of memory"
    seconds = min(item["each"] for item in line["runs"])
    return f"{seconds:.3f} s a step, {line['peak'] / 2**30:.1f} GiB"
