"""Benchmark encoding: from texts to embeddings, each peer at its best batch size."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from benchmarks import equality, rounded, works
from benchmarks.measure import cost, spread
from benchmarks.models import LoadedModel
from benchmarks.ours import Ours
from benchmarks.peers import FlagEmbedding, Seen, SentenceTransformers
from benchmarks.rounded import Changed
from benchmarks.works import Work, World
from parity.retrieval.engine.oom_retry import is_out_of_memory
from parity.run.errors import BadConfig

PEERS = {peer.name: peer for peer in (FlagEmbedding, SentenceTransformers)}
"""Name → class of a peer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Amounts of encoding work.

    Attributes:
        works: names, see `works.ENCODE`.
        peers: names, see `PEERS`.
        count: number of texts for our encoder; 0 for all.
        peer_count: number of texts for the peers, evenly from these; 0 for all.
        batches: batch sizes to try for each peer.
        tuning: number of texts for the choice of the batch size.
        checked: number of texts for the check of equality.
        repeat: number of runs.
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
        Mismatch: a peer has other tokens or other embeddings.
    """
    unrounded = Ours(loaded, plan.budget)
    second = None if plan.quantize == "none" else Ours(loaded, plan.budget, plan.quantize)
    peers = [PEERS[name](loaded) for name in plan.peers]
    records = []
    for name in plan.works:
        work = works.encoding(world, name, unrounded.encoder, plan.count)
        sample = work.spread(plan.checked)
        equal = {
            peer.name: equality.encoding(unrounded, peer, sample, loaded.dtype) for peer in peers
        }
        for peer, shown in equal.items():
            say(f"{name}: {peer} equal: max {shown.apart:.1e}, cosine {shown.cosine:.7f}")
        records.append(
            _one(loaded, [unrounded, *([second] if second else [])], peers, work, plan, say)
        )
        records[-1]["equality"] = {peer: asdict(shown) for peer, shown in equal.items()}
        if second and name != "corpus":
            moved = _changed(world, name, plan.count, (unrounded, second))
            records[-1]["rounded"]["changed"] = asdict(moved)
            say(f"{name}: in {plan.quantize}: {rounded.describe(moved)}")
        _print_ratios(records[-1], limit, say)
    return records


def _changed(world: World, name: str, count: int, sides: tuple[Ours, Ours]) -> Changed:
    before, after = (rounded.answers(world, name, count, side) for side in sides)
    query_ids = (query.query_id for query in world.queries[: count or None])
    return rounded.changed(
        before,
        after,
        {query_id: world.qrels[query_id] for query_id in query_ids},
        len(world.corpus),
    )


def _print_ratios(record: dict[str, Any], limit: float, say: Any) -> None:
    """Print the ratios at once, because a long run may be interrupted."""
    for side in (record, record.get("rounded")):
        if side:
            side["of_matmul"] = side["model_flops"] / limit
            suffix = " in 8-bit floats" if side is not record else ""
            for peer, ratio in side["ratios"].items():
                speed = f"{side['model_flops']:.3g} FLOP/s{suffix}"
                say(f"{record['work']}: {ratio['median']:.2f} times {peer}, {speed}")


def _one(
    loaded: LoadedModel, sides: list[Ours], peers: list[Any], work: Work, plan: Plan, say: Any
) -> dict[str, Any]:
    unrounded, *second = sides
    fewer = work.spread(plan.peer_count or len(work.texts))
    tokens = unrounded.encoder.tokenize(work.texts, work.limit)
    packed = sum(map(len, unrounded.encoder.packs(tokens)))
    record: dict[str, Any] = {
        "work": work.name,
        "texts": len(work.texts),
        "peer_texts": len(fewer.texts),
        "tokens": {"flat": sum(map(len, tokens)), "packed": packed},
        "peers": {},
    }
    warm = work if loaded.device.type == "cuda" else work.spread(plan.tuning)
    record["first_call"] = cost(loaded.device, lambda: unrounded.encode(warm))[1].seconds
    for peer in peers:
        record["peers"][peer.name] = _tuned(loaded.device, peer, fewer, plan, say)
    for side in second:
        side.encode(warm)
    runs = [_round(loaded.device, sides, peers, work, fewer, record) for _ in range(plan.repeat)]
    if len(fewer.texts) < len(work.texts):  # then the cost per text must not depend on the number
        half = fewer.spread(max(1, len(fewer.texts) // 2))
        for peer in peers:
            peer_record = record["peers"][peer.name]
            peer_record["half"] = _peer(
                loaded.device, peer, half, peer_record["batch"], len(work.texts)
            )
    record["tokens"]["padded"] = {peer.name: runs[0][peer.name]["padded"] for peer in peers}
    flops = 2 * loaded.parameters() * packed
    record |= {"runs": runs} | _speed("ours", runs, peers, flops)
    if second:
        record["rounded"] = _speed("rounded", runs, peers, flops)
    return record


def _speed(side: str, runs: list[dict[str, Any]], peers: list[Any], flops: int) -> dict[str, Any]:
    return {
        "model_flops": flops / min(item[side]["seconds"] for item in runs),
        "ratios": {
            peer.name: spread(item[peer.name]["each"] / item[side]["each"] for item in runs)
            for peer in peers
        },
    }


def _tuned(device: torch.device, peer: Any, work: Work, plan: Plan, say: Any) -> dict[str, Any]:
    """Return a peer's best batch size, and the cost per text at each size."""
    sample = work.spread(plan.tuning)
    peer.encode(sample.spread(min(plan.batches)), min(plan.batches))  # warm
    tried: dict[int, float] = {}
    for batch in plan.batches:
        if batch >= 2 * len(sample.texts) and tried:
            break  # one batch again
        try:
            tried[batch] = _peer(device, peer, sample, batch, len(work.texts))["each"]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            say(f"{work.name}: {peer.name} is out of memory at batches of {batch}")
            break
    if not tried:
        raise BadConfig(
            f"{peer.name} is out of memory at batches of {min(plan.batches)}. Lower --batches"
        )
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
    """Time each contender once, one after the other."""
    result: dict[str, Any] = {}
    for name, side in zip(("ours", "rounded"), sides, strict=False):
        spent = cost(device, partial(side.encode, work))[1]
        result[name] = asdict(spent) | {"each": spent.seconds / len(work.texts)}
    for peer in peers:
        batch = record["peers"][peer.name]["batch"]
        result[peer.name] = _peer(device, peer, fewer, batch, len(work.texts))
    return result


def _peer(device: torch.device, peer: Any, work: Work, batch: int, total: int) -> dict[str, Any]:
    """Time a peer on a sample; `each` is the cost of a text among all `total` texts.

    A batch that the peer runs as a trial costs more per text on a sample than on all texts: its
    share of the seconds, by tokens, is divided by all texts.
    """
    with Seen(peer.model) as seen:
        spent = cost(device, lambda: peer.encode(work, batch))[1]
    trial, real, count = sum(seen.calls[: peer.trials]), sum(seen.calls), len(work.texts)
    lasting = (real - trial) / real / count + trial / real / total
    padded = (real - trial) * total // count + trial
    return {**asdict(spent), "texts": count, "each": spent.seconds * lasting, "padded": padded}
