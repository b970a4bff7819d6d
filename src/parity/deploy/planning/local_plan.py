"""What mining, scoring and training will take on this machine, and what they took once done.

Tokens are counted; bytes come from shapes, or from what a token was seen to take here; seconds from
the speed at which this base was seen to embed here, or from shapes and what the chip is on paper.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from parity.deploy.planning import costs, kernel_plan
from parity.deploy.planning.costs import Setting, Span
from parity.deploy.planning.devices import Device
from parity.deploy.planning.plan_result import Need, duration, needs_table
from parity.retrieval.models.shape import ModelShape
from parity.run.config.run_file import EncoderConfig, TrainingConfig
from parity.run.progress import folded

Kind = Literal["base", "adapter", "train"]
"""What runs: the bare base, the base with an adapter, or a training of it."""

_TELLING = {  # kind → the kinds whose speed tells of it, the best last
    "base": ("adapter", "base"),
    "adapter": ("base", "adapter"),
    "train": ("base", "adapter", "train"),
}
_FEW = 2000  # tokens; a measurement of fewer is mostly of the start
_SEEN = (0.9, 1.0, 1.3)  # margins of a speed that was seen on this machine
_STEP = (2.4, 3.0, 4.5)  # a training step over a forward of its tokens: backward costs two more
_AGAIN = 1.0  # one forward more, where layers are computed again in the backward
_HELD = (0.5, 1.0, 1.7)  # margins of what a step holds for its backward
_TRAINED = 16  # bytes of a trained value: fp32, its gradient and AdamW's two moments
_MOST = 1 << 20  # tokens in a pack that are looked at


@dataclass(frozen=True, slots=True)
class TextList:
    """One list of texts, counted as it will be packed.

    Attributes:
        name: the stage and what of it.
        kind: what runs over it.
        sequences: how many.
        flat: tokens of all of them.
        packed: tokens that are computed, shared prefixes once.
        packs: in how many packs.
        held: tokens that lie in memory at once: a pack, or what a training step holds.
        again: tokens of training batches that are embedded once before, by GradCache.
    """

    name: str
    kind: Kind
    sequences: int
    flat: int
    packed: int
    packs: int
    held: int
    again: int = 0


@dataclass(frozen=True, slots=True)
class MeasuredSpeed:
    """A speed at which this base was seen to embed on this machine.

    Attributes:
        where: what noted it, for a person.
        kind: what ran.
        tokens: that were computed.
        packs: in how many packs.
        seconds: that it took.
    """

    where: str
    kind: Kind
    tokens: int
    packs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LocalJob:
    """What is to be planned.

    Attributes:
        name: of the run and its round, for a person.
        device: this machine.
        encoder: as the run names it.
        training: as the run names it.
        shape: the base's, for the layers that are kept.
        lora: values in the adapter's matrices; 0 where all weights are trained.
        lists: in the order of the stages.
        seen: speeds.
        nodes: kind → bytes that a token was seen to take on this device.
        took: name of a list → seconds that it really took; below 0 where it was kept on disk.
        notes: what is known beside, a line each.
    """

    name: str
    device: Device
    encoder: EncoderConfig
    training: TrainingConfig
    shape: ModelShape
    lora: int
    lists: tuple[TextList, ...]
    seen: tuple[MeasuredSpeed, ...] = ()
    nodes: Mapping[str, float] | None = None
    took: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What was found.

    Attributes:
        head: one line of what was planned.
        lists: as they were counted.
        seconds: name of a list → what it will take.
        took: name of a list → what it took, where it was done.
        needs: memory of encoding and of training, each against what there is.
        notes: how it was found, a line each.
    """

    head: str
    lists: tuple[TextList, ...]
    seconds: dict[str, Span]
    took: dict[str, float]
    needs: tuple[Need, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values, in seconds and bytes."""
        needs = [{**asdict(need), "fits": need.fits} for need in self.needs]
        return {**asdict(self), "needs": needs}

    def as_text(self) -> str:
        """Return it for a person, at most 80 columns wide."""
        names = ("texts", "flat", "packed", "packs", "shared", "likely", "took")
        lines = [folded(self.head), _row("tokens", names)]
        for one in self.lists:
            took = self.took.get(one.name)
            told = "" if took is None else "kept" if took < 0 else duration(took)
            cells = [f"{cell:,}" for cell in (one.sequences, one.flat, one.packed, one.packs)]
            shared = f"{one.flat / max(1, one.packed):.1f}×"
            likely = duration(self.seconds[one.name].expected)
            lines.append(_row(one.name, (*cells, shared, likely, told)))
        lines += needs_table(self.needs)
        return "\n".join([*lines, *(folded(f"  {note}") for note in self.notes)])


def make(work: LocalJob) -> LocalPlan:
    """Plan what the lists will take."""
    likely = {one.name: _seconds(work, one) for one in work.lists}
    bits = kernel_plan.precision(work.encoder, work.device.chip)
    chip = work.device.chip.name or f"{work.device.cpus} processor threads"
    head = f"{work.name} on this machine ({chip}): {bits}, weights {work.encoder.quantize}, packs"
    return LocalPlan(
        head=f"{head} of {work.encoder.token_budget:,} tokens",
        lists=work.lists,
        seconds=likely,
        took=dict(work.took or {}),
        needs=tuple(_needs(work)),
        notes=(*_notes(work, likely), *work.notes),
    )


def _setting(work: LocalJob, kind: Kind) -> Setting:
    causal, chosen = work.encoder.pooling == "last", work.encoder.attention
    return Setting(
        work.device.chip,
        kernel_plan.precision(work.encoder, work.device.chip),
        four_bit=work.encoder.quantize == "4bit" or work.shape.packed,
        lora=0 if kind == "base" else work.lora,
        dense=causal and chosen == "dense",
        node=(work.nodes or {}).get(kind, 0.0),
    )


def _paper(work: LocalJob, kind: Kind, tokens: int, packs: int) -> Span:
    how = _setting(work, "adapter" if kind == "train" else kind)
    count, gpus = costs.exactly(max(1, tokens)), work.device.gpus
    whole = costs.encode_seconds(
        work.shape, how, count, packs=max(1, packs), gpus=gpus, parallelism="queries"
    )
    if kind != "train":
        return whole
    again = _AGAIN * work.training.gradient_checkpointing
    return whole.times(*(factor + again for factor in _STEP))


def _seconds(work: LocalJob, one: TextList) -> Span:
    paper = _paper(work, one.kind, one.packed, one.packs)
    paper += _paper(work, "adapter", one.again, one.packs) if one.again else costs.exactly(0)
    seen = _nearest(work.seen, one.kind)
    if seen is None:
        return paper
    pace = seen.seconds / _paper(work, seen.kind, seen.tokens, seen.packs).expected
    if one.kind == "train" and seen.kind != "train":
        return paper.scaled(pace)
    return costs.exactly(paper.expected * pace).times(*_SEEN)


def _nearest(seen: Sequence[MeasuredSpeed], kind: Kind) -> MeasuredSpeed | None:
    """Return what tells most: by kind, then by tokens; of encoding no training tells anything."""
    kinds = _TELLING[kind]
    telling = [one for one in seen if one.kind in kinds and one.tokens >= _FEW and one.seconds]
    return max(telling, key=lambda item: (kinds.index(item.kind), item.tokens), default=None)


def _needs(work: LocalJob) -> Iterator[Need]:
    chip = work.device.chip
    limit = chip.usable if chip.gpu else work.device.ram
    for what, kinds in (("encode", ("base", "adapter")), ("train", ("train",))):
        lists = [one for one in work.lists if one.kind in kinds]
        if lists:
            rows = max(one.sequences for one in lists)
            held = max(one.held for one in lists)
            kind: Kind = "train" if what == "train" else lists[-1].kind
            yield Need(f"{what} mem", "B", _bytes(work, kind, held, rows), limit)


def _bytes(work: LocalJob, kind: Kind, held: int, rows: int) -> Span:
    """Return the bytes of weights, of what runs, and of `held` tokens at once."""
    how, gpus = _setting(work, kind), work.device.gpus
    if kind != "train":
        return costs.running_bytes(
            work.shape, how, nodes=held, rows=rows, gpus=gpus, parallelism="queries"
        )
    bare, seen = replace(how, node=0.0), how.node
    still = costs.running_bytes(work.shape, bare, nodes=0, rows=0, gpus=gpus, parallelism="queries")
    own = costs.exactly(_TRAINED * (work.lora or work.shape.linear + work.shape.other))
    node = costs.exactly(seen * held) if seen else _held(work, bare, held)
    return still + own + node


def _held(work: LocalJob, how: Setting, tokens: int) -> Span:
    """Return the bytes that a step keeps for its backward, or for one layer of it.

    A layer keeps the inputs of its matrices, its queries, keys and values, both branches of its
    wide part and their product; an adapter its inputs once more, in fp32.
    """
    shape, wide = work.shape, 4 if how.precision == "fp32" else 2
    layer = float(wide * (8 * shape.width + 6 * shape.attention + 4 * shape.inner))
    layer += 4 * shape.inputs / max(1, shape.layers) if how.lora else 0
    whole = layer * shape.layers
    if work.training.gradient_checkpointing:
        whole = layer + wide * shape.width * shape.layers
    return costs.exactly(whole * tokens).times(*_HELD)


def _notes(work: LocalJob, likely: Mapping[str, Span]) -> Iterator[str]:
    total = sum(likely.values(), costs.exactly(0))
    kind = next(one.kind for one in reversed(work.lists) if one.kind != "train")
    seen = _nearest(work.seen, kind)
    if seen is None:
        how = "not measured here; from shapes and the chip's speed on paper"
    else:
        how = f"{seen.tokens / seen.seconds:,.0f} tokens a second in {seen.where}, seen here"
    yield f"in all {duration(total.lower)} to {duration(total.upper)}; speed: {how}"
    told = "seen here" if (work.nodes or {}).get(kind) else "from shapes"
    most = _most(work, kind)
    fits = f"packs of up to {most:,} tokens fit" if most else "no pack fits"
    yield f"{fits} this memory for certain ({told}): encoder.token_budget"


def _most(work: LocalJob, kind: Kind) -> int:
    """Return the largest power of two that certainly fits as a token budget; 0 where none does."""
    chip = work.device.chip
    limit = chip.usable if chip.gpu else work.device.ram
    rows = max(one.sequences for one in work.lists)
    budget = _MOST
    while budget >= 64 and _bytes(work, kind, budget, rows).upper > limit:
        budget //= 2
    return budget if budget >= 64 else 0


def _row(name: str, cells: Sequence[str]) -> str:
    widths = (9, 13, 12, 8, 8, 8, 7)
    return f"  {name:<13}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)
    )
