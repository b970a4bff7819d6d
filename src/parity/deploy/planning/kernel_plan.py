"""Plan a kernel: bytes computed from shapes, seconds from a measured speed.

The speed is the one measured with this run's model, scaled to the planned device by the paper
speeds of both chips. Without a measurement it is a share of the planned chip's paper speed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parity.deploy.planning import costs, devices
from parity.deploy.planning.costs import ComputeSetting, CostEstimate, Precision
from parity.deploy.planning.devices import Chip, Device
from parity.deploy.planning.plan_report import KernelPlan, Requirement
from parity.retrieval.models.shape import ModelShape
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig

_MAX_FIXES = 3  # fixes that certainly help come first
_MIN_TOKENS = 5000  # a shorter measurement mostly measures the start
_SAME_CHIP, _OTHER_CHIP = (0.9, 1.0, 1.2), (0.5, 1.0, 2.0)  # margins of a measured speed
# Wide margins: these values of Kaggle's machines are not documented.
_READ_SPEED = (1e9, 0.2e9, 0.06e9)  # bytes a second from a mounted dataset
_HASH_SPEED = (1.2e9, 0.45e9, 0.15e9)  # bytes a second of sha256; files are read once or twice
_START = CostEstimate(25, 75, 240)  # seconds: Python with torch in every process, CUDA, a forward
_WHEELS = CostEstimate(5, 15, 60)  # seconds: pip without an index
_TOKENIZE = (0.7, 1.3, 3.0)  # time to render and tokenize, relative to this machine


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Counts of texts that were tokenized and packed as in the kernel.

    Attributes:
        half: number of queries in half of the sample, and their packed tokens.
        sample: the same of the entire sample.
        fixed: packed tokens of corpus and probe, which are embedded once.
        packs: number of packs of the sample.
        longest: tokens of the longest text.
        seconds: time to render, tokenize and pack the sample on this machine.
    """

    half: tuple[int, int]
    sample: tuple[int, int]
    fixed: int
    packs: int
    longest: int
    seconds: float

    @property
    def tokens_per_pack(self) -> float:
        """Mean tokens of a pack."""
        return self.sample[1] / self.packs


@dataclass(frozen=True, slots=True)
class MeasuredKernel:
    """A measured embedding speed of this model.

    Attributes:
        source: stage that measured it.
        chip: GPU or CPU that computed.
        tokens: number of packed tokens that were embedded.
        packs: number of packs.
        seconds: duration.
        processes: number of processes that shared the packs.
        precision: dtype of the computation.
        is_four_bit: whether the weights were in 4 bits.
    """

    source: str
    chip: Chip
    tokens: int
    packs: int
    seconds: float
    processes: int = 1
    precision: Precision = "fp32"
    is_four_bit: bool = False


@dataclass(frozen=True, slots=True)
class KernelJob:
    """Inputs of a kernel's plan.

    Attributes:
        name: run and round, as printed.
        device: one of Kaggle's.
        encoder: the run's encoder section.
        shape: the base model's, for the layers that the run keeps.
        lora_values: number of values in the adapter's matrices; 0 when all weights were trained.
        counts: token counts of the run's own texts.
        queries: rows of the hidden test.
        hours: time limit.
        package_bytes: bytes of wheelhouse and bundle.
        measurements: measured speeds.
    """

    name: str
    device: Device
    encoder: EncoderConfig
    shape: ModelShape
    lora_values: int
    counts: TokenCounts
    queries: int
    hours: float
    package_bytes: int = 0
    measurements: tuple[MeasuredKernel, ...] = ()


def compute_precision(encoder: EncoderConfig, chip: Chip) -> Precision:
    """Return the dtype of the computation: fp16 instead of bf16 on a GPU without bf16 units."""
    precision = encoder.precision
    if precision == "auto":
        precision = "bf16" if chip.is_gpu else "fp32"
    return "fp16" if precision == "bf16" and chip.is_gpu and not chip.has_bf16 else precision


def build_plan(job: KernelJob) -> KernelPlan:
    """Plan a run. If it does not fit, find settings and machines with which it may.

    Raises:
        BadConfig: the run asks for 8-bit floats on a GPU without units for them.
    """
    if not _is_supported(job):
        raise BadConfig(
            f"encoder.quantize = 'fp8' needs FP8 units, which {job.device.chip.name} does not "
            "have. Add --set=encoder.quantize=none or 4bit"
        )
    plan = _plan(job)
    if plan.fits != "no":
        return plan
    results = [(flags, _plan(variant).fits) for flags, variant in _variants(job)]
    fixes = [flags for target in ("yes", "unsure") for flags, fits in results if fits == target]
    return replace(plan, fixes=tuple(fixes[:_MAX_FIXES]))


def can_fit(job: KernelJob) -> bool:
    """Return whether the device supports a run and no lower bound is over its limit."""
    return _is_supported(job) and _plan(job).fits != "no"


def _is_supported(job: KernelJob) -> bool:
    chip = job.device.chip
    return job.encoder.quantize != "fp8" or not chip.is_gpu or chip.has_fp8


def _plan(job: KernelJob) -> KernelPlan:
    device, counts = job.device, job.counts
    setting = _setting(job)
    fixed = costs.exact(counts.fixed)
    tokens = costs.extrapolate_tokens(counts.half, counts.sample, job.queries) + fixed
    encode, speed_note = _encode(job, setting, tokens)
    tokenize = costs.exact(counts.seconds * job.queries / counts.sample[0]).times(*_TOKENIZE)
    hashed_bytes = job.shape.stored + job.package_bytes
    steps = {
        "start": _START,
        "wheels": _WHEELS,
        "hash": CostEstimate(*(hashed_bytes / speed for speed in _HASH_SPEED)),
        "load base": CostEstimate(*(job.shape.stored / speed for speed in _READ_SPEED)),
        "tokenize": tokenize,
        "encode": encode,
    }
    time = Requirement("time", "s", sum(steps.values(), costs.exact(0)), job.hours * 3600)
    bits = f"{setting.precision}, weights in 4 bits" if setting.is_four_bit else setting.precision
    chips = f" ({device.gpus} × {device.chip.name}, {job.encoder.parallelism})"
    machine = f"{device.name}{chips * device.chip.is_gpu}"
    title = f"{job.name}: {job.queries:,} queries on {machine}, {bits}"
    requirements = (time, *_memory(job, setting))
    return KernelPlan(title, tokens, steps, requirements, (speed_note, *_notes(job, setting)))


def _setting(job: KernelJob) -> ComputeSetting:
    return ComputeSetting(
        job.device.chip,
        compute_precision(job.encoder, job.device.chip),
        is_four_bit=job.encoder.quantize == "4bit" or job.shape.packed,
        lora_values=job.lora_values,
        has_dense_mask=job.encoder.pooling == "last" and job.encoder.attention == "dense",
    )


def _memory(job: KernelJob, setting: ComputeSetting) -> Iterator[Requirement]:
    device, parallelism = job.device, job.encoder.parallelism
    running = costs.running_bytes(
        job.shape,
        setting,
        tokens=max(job.counts.longest, job.encoder.token_budget),
        rows=job.queries,
        gpus=device.gpus,
        parallelism=parallelism,
    )
    if not device.gpus:
        yield Requirement("host memory", "B", running, device.ram)
        return
    processes = device.gpus if parallelism == "queries" else 1
    host = costs.loading_bytes(job.shape, setting, processes=processes, parallelism=parallelism)
    yield Requirement("GPU memory", "B", running, device.chip.usable_memory)
    yield Requirement("host memory", "B", host, device.ram)


def _encode(
    job: KernelJob, setting: ComputeSetting, tokens: CostEstimate
) -> tuple[CostEstimate, str]:
    """Return the seconds of embedding, and a note on the speed behind them."""
    device, parallelism = job.device, job.encoder.parallelism
    packs = max(1.0, tokens.expected / job.counts.tokens_per_pack)
    paper = costs.encode_seconds(
        job.shape, setting, tokens, packs=packs, gpus=device.gpus, parallelism=parallelism
    )
    measured = _nearest(job.measurements, device.chip)
    if measured is None:
        best, _, worst = device.chip.efficiency
        reason = " (a CPU's speed does not predict a GPU's)" if job.measurements else ""
        return paper, f"speed: not measured{reason}; {worst:.0%} to {best:.0%} of that on paper"
    pace = measured.seconds / _paper_seconds(job, setting, measured)
    margins = tokens.scaled(1 / tokens.expected)
    likely = CostEstimate(margins.lower, 1.0, margins.upper).scaled(paper.expected * pace)
    # Two processors are never assumed to be equal.
    is_same_chip = measured.chip == device.chip and measured.chip.is_gpu
    speed_note = (
        f"speed: {measured.tokens / measured.seconds:,.0f} tokens a second in {measured.source} "
        f"on {measured.chip.name or 'a CPU'}{'' if is_same_chip else ', scaled'}"
    )
    return likely.times(*(_SAME_CHIP if is_same_chip else _OTHER_CHIP)), speed_note


def _paper_seconds(job: KernelJob, setting: ComputeSetting, measured: MeasuredKernel) -> float:
    """Return the seconds that a measured job takes on paper."""
    measured_setting = replace(
        setting,
        chip=measured.chip,
        precision=measured.precision,
        is_four_bit=measured.is_four_bit,
    )
    return costs.encode_seconds(
        job.shape,
        measured_setting,
        costs.exact(measured.tokens),
        packs=measured.packs,
        gpus=measured.processes,
        parallelism="queries",
    ).expected


def _nearest(measurements: Sequence[MeasuredKernel], chip: Chip) -> MeasuredKernel | None:
    """Return the best measurement for a chip: the same chip first, then the most tokens."""
    usable = [
        item
        for item in measurements
        if item.tokens >= _MIN_TOKENS and item.chip.is_gpu == chip.is_gpu
    ]
    return max(usable, key=lambda item: (item.chip == chip, item.tokens), default=None)


def _notes(job: KernelJob, setting: ComputeSetting) -> Iterator[str]:
    if job.encoder.precision == "bf16" and setting.precision != "bf16":
        yield f"precision: fp16 instead of bf16, because {setting.chip.name} has no bf16 units"
    yield (
        f"disk: the base is {job.shape.stored / 1e9:.2f} GB, mounted and not copied; "
        "in your own dataset it counts in your Kaggle quota"
    )


def _variants(job: KernelJob) -> Iterator[tuple[str, KernelJob]]:
    """Yield flags that may help, and the job with each."""
    encoder = job.encoder
    small_budget = max(64, encoder.token_budget // 4)
    changes: list[dict[str, Any]] = [{}]
    if job.device.gpus > 1:
        changes.append({"parallelism": "model" if encoder.parallelism == "queries" else "queries"})
    if encoder.quantize == "none" and job.device.gpus:
        changes.append({"quantize": "4bit"})
    for change in changes:
        if change:
            yield _flags(change), replace(job, encoder=encoder.model_copy(update=change))
        if small_budget < encoder.token_budget:
            update = {**change, "token_budget": small_budget}
            packs = job.counts.packs * encoder.token_budget // small_budget
            yield (
                _flags(update),
                replace(
                    job,
                    encoder=encoder.model_copy(update=update),
                    counts=replace(job.counts, packs=packs),
                ),
            )
    for name, device in devices.DEVICES.items():
        if name != job.device.name and _is_supported(replace(job, device=device)):
            yield f"--set=shipping.device={name}", replace(job, device=device)


def _flags(change: dict[str, Any]) -> str:
    return " ".join(f"--set=encoder.{key}={value}" for key, value in change.items())
