"""Encoding: texts in, embeddings out, by us and by the peers at each one's best batch size."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from benchmarks import equality, rounded, works
from benchmarks.measure import cost, spread
from benchmarks.models import Held
from benchmarks.ours import Ours
from benchmarks.peers import FlagEmbedding, Seen, SentenceTransformers
from benchmarks.rounded import Changed
from benchmarks.works import Work, World
from parity.retrieval.engine.oom_retry import ran_out
from parity.run.errors import BadConfig

PEERS = {one.name: one for one in (FlagEmbedding, SentenceTransformers)}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is encoded.

    Attributes:
        works: names, see `works.ENCODE`.
        peers: names, see `PEERS`.
        count: texts that we encode; 0 for all.
        peer_count: texts that the peers encode, evenly from these; 0 for all.
        batches: batch sizes that a peer may choose from.
        tuning: texts on which it chooses.
        checked: texts on which equality is shown.
        repeat: runs.
        budget: tokens in one of our packs.
        quantize: `fp8` to run us a second time with products in 8-bit floats, else `none`.
    """

    works: Sequence[str]
    peers: Sequence[str]
    count: int
    peer_count: int
    batches: Sequence[int]
    tuning: int
    checked: int
    repeat: int
    budget: int
    quantize: str = "none"


def run(held: Held, world: World, plan: Plan, limit: float, say: Any) -> list[dict[str, Any]]:
    """Return one record for each work.

    Args:
        held: the run's model.
        world: the competition.
        plan: how much.
        limit: FLOP/s of the matrix product of this run.
        say: takes lines for a person.

    Raises:
        Mismatch: a peer reads other tokens, or gives other embeddings.
    """
    ours = Ours(held, plan.budget)
    second = None if plan.quantize == "none" else Ours(held, plan.budget, plan.quantize)
    peers = [PEERS[name](held) for name in plan.peers]
    found = []
    for name in plan.works:
        work = works.encoding(world, name, ours.encoder, plan.count)
        some = work.spread(plan.checked)
        equal = {peer.name: equality.encoding(ours, peer, some, held.dtype) for peer in peers}
        for peer, shown in equal.items():
            say(f"{name}: {peer} equal: max {shown.apart:.1e}, cosine {shown.cosine:.7f}")
        found.append(_one(held, [ours, *([second] if second else [])], peers, work, plan, say))
        found[-1]["equality"] = {peer: asdict(shown) for peer, shown in equal.items()}
        if second and name != "corpus":
            moved = _changed(world, name, plan.count, (ours, second))
            found[-1]["rounded"]["changed"] = asdict(moved)
            say(f"{name}: in {plan.quantize}: {rounded.told(moved)}")
        _tell(found[-1], limit, say)
    return found


def _changed(world: World, name: str, count: int, sides: tuple[Ours, Ours]) -> Changed:
    before, after = (rounded.answers(world, name, count, side) for side in sides)
    asked = (query.query_id for query in world.queries[: count or None])
    return rounded.changed(
        before, after, {one: world.qrels[one] for one in asked}, len(world.corpus)
    )


def _tell(record: dict[str, Any], limit: float, say: Any) -> None:
    """Say the ratios at once, for a long run may be cut off."""
    for one in (record, record.get("rounded")):
        if one:
            one["of_matmul"] = one["model_flops"] / limit
            how = " in 8-bit floats" if one is not record else ""
            for peer, ratio in one["ratios"].items():
                speed = f"{one['model_flops']:.3g} FLOP/s{how}"
                say(f"{record['work']}: {ratio['median']:.2f} times {peer}, {speed}")


def _one(
    held: Held, sides: list[Ours], peers: list[Any], work: Work, plan: Plan, say: Any
) -> dict[str, Any]:
    ours, *second = sides
    fewer = work.spread(plan.peer_count or len(work.texts))
    tokens = ours.encoder.tokenize(work.texts, work.limit)
    packed = sum(map(len, ours.encoder.packs(tokens)))
    record: dict[str, Any] = {
        "work": work.name,
        "texts": len(work.texts),
        "peer_texts": len(fewer.texts),
        "tokens": {"flat": sum(map(len, tokens)), "packed": packed},
        "peers": {},
    }
    warm = work if held.device.type == "cuda" else work.spread(plan.tuning)
    record["first_call"] = cost(held.device, lambda: ours.encode(warm))[1].seconds
    for peer in peers:
        record["peers"][peer.name] = _tuned(held.device, peer, fewer, plan, say)
    for one in second:
        one.encode(warm)
    runs = [_round(held.device, sides, peers, work, fewer, record) for _ in range(plan.repeat)]
    if len(fewer.texts) < len(work.texts):  # then the cost of a text must not depend on how many
        half = fewer.spread(max(1, len(fewer.texts) // 2))
        for peer in peers:
            known = record["peers"][peer.name]
            known["half"] = _peer(held.device, peer, half, known["batch"], len(work.texts))
    record["tokens"]["padded"] = {peer.name: runs[0][peer.name]["padded"] for peer in peers}
    flops = 2 * held.parameters() * packed
    record |= {"runs": runs} | _speed("ours", runs, peers, flops)
    if second:
        record["rounded"] = _speed("rounded", runs, peers, flops)
    return record


def _speed(side: str, runs: list[dict[str, Any]], peers: list[Any], flops: int) -> dict[str, Any]:
    return {
        "model_flops": flops / min(one[side]["seconds"] for one in runs),
        "ratios": {
            peer.name: spread(one[peer.name]["each"] / one[side]["each"] for one in runs)
            for peer in peers
        },
    }


def _tuned(device: torch.device, peer: Any, work: Work, plan: Plan, say: Any) -> dict[str, Any]:
    """Return a peer's best batch size, and what a text cost at each that was tried."""
    some = work.spread(plan.tuning)
    peer.encode(some.spread(min(plan.batches)), min(plan.batches))  # warm
    tried: dict[int, float] = {}
    for batch in plan.batches:
        if batch >= 2 * len(some.texts) and tried:
            break  # the same one batch as before
        try:
            tried[batch] = _peer(device, peer, some, batch, len(work.texts))["each"]
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            say(f"{work.name}: {peer.name} is out of memory at batches of {batch}")
            break
    if not tried:
        raise BadConfig(f"{peer.name} fits no batch of {min(plan.batches)}: lower --batches")
    best = min(tried, key=lambda batch: tried[batch])
    say(f"{work.name}: {peer.name} is best at batches of {best}")
    return {"batch": best, "tried": tried}


def _round(
    device: torch.device,
    sides: list[Ours],
    peers: list[Any],
    work: Work,
    fewer: Work,
    record: dict[str, Any],
) -> dict[str, Any]:
    """Time everyone once, one after the other."""
    found: dict[str, Any] = {}
    for name, ours in zip(("ours", "rounded"), sides, strict=False):
        spent = cost(device, partial(ours.encode, work))[1]
        found[name] = asdict(spent) | {"each": spent.seconds / len(work.texts)}
    for peer in peers:
        batch = record["peers"][peer.name]["batch"]
        found[peer.name] = _peer(device, peer, fewer, batch, len(work.texts))
    return found


def _peer(device: torch.device, peer: Any, work: Work, batch: int, whole: int) -> dict[str, Any]:
    """Time a peer on some texts; `each` is what one of all `whole` texts would cost it.

    A batch that is tried first and thrown away weighs more on few texts than on all: its share of
    the seconds, by tokens, is spread over all of them.
    """
    with Seen(peer.model) as seen:
        spent = cost(device, lambda: peer.encode(work, batch))[1]
    trial, real, count = sum(seen.calls[: peer.trials]), sum(seen.calls), len(work.texts)
    lasting = (real - trial) / real / count + trial / real / whole
    padded = (real - trial) * whole // count + trial
    return {**asdict(spent), "texts": count, "each": spent.seconds * lasting, "padded": padded}
