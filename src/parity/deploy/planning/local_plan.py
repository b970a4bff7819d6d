"""Plan mining, scoring and training on this machine, with the real durations of finished stages.

Tokens are counted. Bytes come from measured bytes per token, or from shapes. Seconds come from a
speed measured with this base on this machine, or from shapes and the chip's paper speed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from parity.deploy.planning import costs, kernel_plan
from parity.deploy.planning.costs import ComputeSetting, CostEstimate
from parity.deploy.planning.devices import Device
from parity.deploy.planning.plan_report import Requirement, duration, requirements_table
from parity.retrieval.models.shape import ModelShape
from parity.run.config.encoder import EncoderConfig
from parity.run.config.training import TrainingConfig
from parity.run.progress import wrap

Kind = Literal["base", "adapter", "train"]
"""Work to do: encode with the base model, encode with an adapter, or train."""

_PREDICTORS = {  # kind → kinds whose measured speed predicts it, the best last
    "base": ("adapter", "base"),
    "adapter": ("base", "adapter"),
    "train": ("base", "adapter", "train"),
}
_MIN_TOKENS = 2000  # a shorter measurement mostly measures the start
_MEASURED_MARGINS = (0.9, 1.0, 1.3)  # of a speed measured on this machine
_STEP = (2.4, 3.0, 4.5)  # a training step, in forwards of its tokens: a backward costs two more
_RECOMPUTE = 1.0  # one more forward with gradient checkpointing
_STEP_MARGINS = (0.5, 1.0, 1.7)  # of the activations that a step keeps for its backward
_TRAINED_BYTES = 16  # of a trained value: fp32, its gradient and AdamW's two moments
_MAX_BUDGET = 1 << 20  # tokens; the largest pack to try


@dataclass(frozen=True, slots=True)
class TextList:
    """Counts of one list of texts, packed as the stage packs it.

    Attributes:
        name: stage and texts, such as "mine corpus".
        kind: work to do.
        sequences: number of texts.
        tokens: number of tokens without prefix sharing.
        packed_tokens: number of tokens with prefix sharing, as computed.
        packs: number of packs.
        peak_tokens: tokens in memory at once: of a pack, or of a training step.
        recomputed_tokens: tokens of training batches that GradCache embeds twice.
    """

    name: str
    kind: Kind
    sequences: int
    tokens: int
    packed_tokens: int
    packs: int
    peak_tokens: int
    recomputed_tokens: int = 0


@dataclass(frozen=True, slots=True)
class MeasuredSpeed:
    """A speed measured with this base on this machine.

    Attributes:
        source: stage that measured it.
        kind: work that ran.
        tokens: number of computed tokens.
        packs: number of packs.
        seconds: duration.
    """

    source: str
    kind: Kind
    tokens: int
    packs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LocalJob:
    """Inputs of a local plan.

    Attributes:
        name: run and round, as printed.
        device: the local machine.
        encoder: the run's encoder section.
        training: the run's training section.
        shape: the base model's, for the layers that the run keeps.
        lora_values: number of values in the adapter's matrices; 0 when all weights are trained.
        lists: texts of each stage, in the order of the stages.
        measurements: measured speeds.
        bytes_per_token: kind → measured bytes of one token on this device.
        actual_seconds: name of a list → seconds it took; below 0 if its embeddings were cached.
        notes: further lines to print.
    """

    name: str
    device: Device
    encoder: EncoderConfig
    training: TrainingConfig
    shape: ModelShape
    lora_values: int
    lists: tuple[TextList, ...]
    measurements: tuple[MeasuredSpeed, ...] = ()
    bytes_per_token: Mapping[str, float] | None = None
    actual_seconds: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """Estimates for one run on this machine.

    Attributes:
        title: one line: run, chip, precision, token budget.
        lists: counts of each list of texts.
        seconds: name of a list → estimated seconds.
        actual_seconds: name of a finished list → measured seconds.
        requirements: memory of encoding and of training, each with its limit.
        notes: sources of the numbers, a line each.
    """

    title: str
    lists: tuple[TextList, ...]
    seconds: dict[str, CostEstimate]
    actual_seconds: dict[str, float]
    requirements: tuple[Requirement, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain values, in seconds and bytes."""
        rows = [{**asdict(item), "fits": item.fits} for item in self.requirements]
        return {**asdict(self), "requirements": rows}

    def as_text(self) -> str:
        """Return a table, at most 80 columns wide."""
        columns = ("texts", "tokens", "packed", "packs", "shared", "likely", "took")
        lines = [wrap(self.title), _row("", columns), *map(self._list_row, self.lists)]
        lines += requirements_table(self.requirements)
        return "\n".join([*lines, *(wrap(f"  {note}") for note in self.notes)])

    def _list_row(self, item: TextList) -> str:
        seconds = self.actual_seconds.get(item.name)
        actual = "" if seconds is None else "cached" if seconds < 0 else duration(seconds)
        counts = (item.sequences, item.tokens, item.packed_tokens, item.packs)
        shared = f"{item.tokens / max(1, item.packed_tokens):.1f}×"
        likely = duration(self.seconds[item.name].expected)
        return _row(item.name, (*(f"{count:,}" for count in counts), shared, likely, actual))


def build_plan(job: LocalJob) -> LocalPlan:
    """Estimate time and memory of the lists of a job."""
    seconds = {item.name: _seconds(job, item) for item in job.lists}
    precision = kernel_plan.compute_precision(job.encoder, job.device.chip)
    chip = job.device.chip.name or f"{job.device.cpus} processor threads"
    title = f"{job.name} on this machine ({chip}): {precision}, weights {job.encoder.quantize}"
    return LocalPlan(
        title=f"{title}, packs of {job.encoder.token_budget:,} tokens",
        lists=job.lists,
        seconds=seconds,
        actual_seconds=dict(job.actual_seconds or {}),
        requirements=tuple(_requirements(job)),
        notes=(*_notes(job, seconds), *job.notes),
    )


def _setting(job: LocalJob, kind: Kind) -> ComputeSetting:
    is_causal = job.encoder.pooling == "last"
    return ComputeSetting(
        job.device.chip,
        kernel_plan.compute_precision(job.encoder, job.device.chip),
        is_four_bit=job.encoder.quantize == "4bit" or job.shape.packed,
        lora_values=0 if kind == "base" else job.lora_values,
        has_dense_mask=is_causal and job.encoder.attention == "dense",
        bytes_per_token=(job.bytes_per_token or {}).get(kind, 0.0),
    )


def _paper_seconds(job: LocalJob, kind: Kind, tokens: int, packs: int) -> CostEstimate:
    setting = _setting(job, "adapter" if kind == "train" else kind)
    count, gpus = costs.exact(max(1, tokens)), job.device.gpus
    forward = costs.encode_seconds(
        job.shape, setting, count, packs=max(1, packs), gpus=gpus, parallelism="queries"
    )
    if kind != "train":
        return forward
    recompute = _RECOMPUTE * job.training.gradient_checkpointing
    return forward.times(*(factor + recompute for factor in _STEP))


def _seconds(job: LocalJob, item: TextList) -> CostEstimate:
    paper = _paper_seconds(job, item.kind, item.packed_tokens, item.packs)
    if item.recomputed_tokens:
        paper += _paper_seconds(job, "adapter", item.recomputed_tokens, item.packs)
    measured = _nearest(job.measurements, item.kind)
    if measured is None:
        return paper
    expected = _paper_seconds(job, measured.kind, measured.tokens, measured.packs).expected
    pace = measured.seconds / expected
    if item.kind == "train" and measured.kind != "train":
        return paper.scaled(pace)
    return costs.exact(paper.expected * pace).times(*_MEASURED_MARGINS)


def _nearest(measurements: Sequence[MeasuredSpeed], kind: Kind) -> MeasuredSpeed | None:
    """Return the best predictor: by kind, then by tokens; training does not predict encoding."""
    kinds = _PREDICTORS[kind]
    usable = [
        item
        for item in measurements
        if item.kind in kinds and item.tokens >= _MIN_TOKENS and item.seconds
    ]
    return max(usable, key=lambda item: (kinds.index(item.kind), item.tokens), default=None)


def _memory_limit(job: LocalJob) -> float:
    chip = job.device.chip
    return chip.usable_memory if chip.is_gpu else job.device.ram


def _requirements(job: LocalJob) -> Iterator[Requirement]:
    for name, kinds in (("encode", ("base", "adapter")), ("train", ("train",))):
        lists = [item for item in job.lists if item.kind in kinds]
        if lists:
            rows = max(item.sequences for item in lists)
            tokens = max(item.peak_tokens for item in lists)
            kind: Kind = "train" if name == "train" else lists[-1].kind
            amount = _bytes(job, kind, tokens, rows)
            yield Requirement(f"{name} mem", "B", amount, _memory_limit(job))


def _bytes(job: LocalJob, kind: Kind, tokens: int, rows: int) -> CostEstimate:
    """Return the bytes of weights and overhead, and of `tokens` in memory at once."""
    setting, gpus = _setting(job, kind), job.device.gpus
    if kind != "train":
        return costs.running_bytes(
            job.shape, setting, tokens=tokens, rows=rows, gpus=gpus, parallelism="queries"
        )
    unmeasured = replace(setting, bytes_per_token=0.0)
    idle = costs.running_bytes(
        job.shape, unmeasured, tokens=0, rows=0, gpus=gpus, parallelism="queries"
    )
    trained_values = job.lora_values or job.shape.linear + job.shape.other
    optimizer = costs.exact(_TRAINED_BYTES * trained_values)
    if setting.bytes_per_token:
        activations = costs.exact(setting.bytes_per_token * tokens)
    else:
        activations = _activation_bytes(job, unmeasured, tokens)
    return idle + optimizer + activations


def _activation_bytes(job: LocalJob, setting: ComputeSetting, tokens: int) -> CostEstimate:
    """Return the bytes that a step keeps for its backward, or for one layer of it.

    A layer keeps the inputs of its matrices, its queries, keys and values, both branches of its
    MLP and their product; an adapter keeps its inputs once more, in fp32.
    """
    shape, width = job.shape, 4 if setting.precision == "fp32" else 2
    layer = float(width * (8 * shape.width + 6 * shape.attention + 4 * shape.inner))
    layer += 4 * shape.inputs / max(1, shape.layers) if setting.lora_values else 0
    total = layer * shape.layers
    if job.training.gradient_checkpointing:
        total = layer + width * shape.width * shape.layers
    return costs.exact(total * tokens).times(*_STEP_MARGINS)


def _notes(job: LocalJob, seconds: Mapping[str, CostEstimate]) -> Iterator[str]:
    total = sum(seconds.values(), costs.exact(0))
    kind = next(item.kind for item in reversed(job.lists) if item.kind != "train")
    measured = _nearest(job.measurements, kind)
    if measured is None:
        source = "not measured on this machine; from shapes and the chip's paper speed"
    else:
        speed = measured.tokens / measured.seconds
        source = f"{speed:,.0f} tokens a second, measured in {measured.source} on this machine"
    yield f"total {duration(total.lower)} to {duration(total.upper)}; speed: {source}"
    is_measured = bool((job.bytes_per_token or {}).get(kind))
    origin = "measured on this machine" if is_measured else "from shapes"
    budget = _largest_budget(job, kind)
    fits = f"packs of up to {budget:,} tokens fit" if budget else "no pack fits"
    yield f"{fits} this memory at the upper bound ({origin}); set encoder.token_budget"


def _largest_budget(job: LocalJob, kind: Kind) -> int:
    """Return the largest power of two that fits as a token budget at its upper bound, or 0."""
    rows = max(item.sequences for item in job.lists)
    budget = _MAX_BUDGET
    while budget >= 64 and _bytes(job, kind, budget, rows).upper > _memory_limit(job):
        budget //= 2
    return budget if budget >= 64 else 0


def _row(name: str, cells: Sequence[str]) -> str:
    widths = (9, 13, 12, 8, 8, 8, 7)
    return f"  {name:<13}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)
    )
