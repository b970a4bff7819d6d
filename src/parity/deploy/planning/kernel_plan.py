"""Make a plan: bytes are computed from shapes; seconds come from a speed that was seen.

The speed is that at which this run's model was seen to embed, scaled to the planned device by what
both are on paper; where nothing was seen, it is a share of the planned chip's paper speed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parity.deploy.planning import costs, devices
from parity.deploy.planning.costs import Precision, Setting, Span
from parity.deploy.planning.devices import Chip, Device
from parity.deploy.planning.plan_result import Need, Plan
from parity.retrieval.models.shape import ModelShape
from parity.run.config.run_file import EncoderConfig
from parity.run.errors import BadConfig

_MENDS = 3  # named at most: what surely helps before what may
_FEW = 5000  # tokens; a measurement of fewer is mostly of the start
_SAME, _OTHER = (0.9, 1.0, 1.2), (0.5, 1.0, 2.0)  # margins of a speed that was seen, by chip
# Margins of what nobody has told of Kaggle's machines.
_READ = (1e9, 0.2e9, 0.06e9)  # bytes a second from a mounted dataset
_HASH = (1.2e9, 0.45e9, 0.15e9)  # bytes a second of sha256, by the processor and once or twice
_START = Span(25, 75, 240)  # seconds: Python with torch in every process, CUDA, a first forward
_WHEELS = Span(5, 15, 60)  # seconds: pip, with no index
_SLOWER = (0.7, 1.3, 3.0)  # times as long as it took here to render and tokenize


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Texts that were tokenized and packed as the kernel will do it.

    Attributes:
        half: number of queries in half of the sample, and their packed tokens.
        whole: the same of all of it.
        beside: packed tokens of corpus and probe, which are embedded once.
        packs: how many packs `whole` fills.
        longest: tokens of the longest text.
        seconds: that rendering, tokenizing and packing `whole` took here.
    """

    half: tuple[int, int]
    whole: tuple[int, int]
    beside: int
    packs: int
    longest: int
    seconds: float

    @property
    def fill(self) -> float:
        """Mean tokens of a pack."""
        return self.whole[1] / self.packs


@dataclass(frozen=True, slots=True)
class MeasuredKernel:
    """How fast this very model was seen to run.

    Attributes:
        where: what measured it, for a person.
        chip: what computed.
        tokens: packed tokens that were embedded.
        packs: in how many packs.
        seconds: that it took.
        processes: that shared them.
        precision: of what was computed.
        four_bit: whether its weights lay in 4 bits.
    """

    where: str
    chip: Chip
    tokens: int
    packs: int
    seconds: float
    processes: int = 1
    precision: Precision = "fp32"
    four_bit: bool = False


@dataclass(frozen=True, slots=True)
class KernelJob:
    """What is to be planned.

    Attributes:
        name: of the run and its round, for a person.
        device: Kaggle's.
        encoder: as the run names it.
        shape: the base's, for the layers that are kept.
        lora: values in the adapter's matrices; 0 where all weights were trained.
        counted: the run's own texts.
        queries: rows of the hidden test.
        hours: the limit.
        carried: bytes of wheelhouse and bundle.
        measured: speeds that were seen.
    """

    name: str
    device: Device
    encoder: EncoderConfig
    shape: ModelShape
    lora: int
    counted: TokenCounts
    queries: int
    hours: float
    carried: int = 0
    measured: tuple[MeasuredKernel, ...] = ()


def precision(encoder: EncoderConfig, chip: Chip) -> Precision:
    """Return what the kernel computes in: never bf16 on a GPU that has no units for it."""
    wanted = encoder.precision
    if wanted == "auto":
        wanted = "bf16" if chip.gpu else "fp32"
    return "fp16" if wanted == "bf16" and chip.gpu and not chip.bf16 else wanted


def make(job: KernelJob) -> Plan:
    """Plan a run; where it does not fit, look for settings and machines with which it may.

    Raises:
        BadConfig: products in 8-bit floats are asked of a GPU without units for them.
    """
    if not _able(job):
        raise BadConfig(
            f"encoder.quantize = 'fp8': {job.device.chip.name} has no units for it; add "
            "--set=encoder.quantize=none, or 4bit"
        )
    found = _made(job)
    if found.fits != "no":
        return found
    others = [(text, _made(one).fits) for text, one in _others(job)]
    mends = [text for fits in ("yes", "unsure") for text, said in others if said == fits]
    return replace(found, mends=tuple(mends[:_MENDS]))


def may_fit(job: KernelJob) -> bool:
    """Return whether a run can be had, and is not over a limit already at its lower bound."""
    return _able(job) and _made(job).fits != "no"


def _able(job: KernelJob) -> bool:
    chip = job.device.chip
    return job.encoder.quantize != "fp8" or not chip.gpu or chip.fp8


def _made(job: KernelJob) -> Plan:
    device, counted = job.device, job.counted
    setting = _setting(job)
    tokens = costs.grown(counted.half, counted.whole, job.queries) + costs.exactly(counted.beside)
    encode, told = _encode(job, setting, tokens)
    parts = {
        "start": _START,
        "wheels": _WHEELS,
        "hash": Span(*((job.shape.stored + job.carried) / speed for speed in _HASH)),
        "load base": Span(*(job.shape.stored / speed for speed in _READ)),
        "tokenize": costs.exactly(counted.seconds * job.queries / counted.whole[0]).times(*_SLOWER),
        "encode": encode,
    }
    time = Need("time", "s", sum(parts.values(), costs.exactly(0)), job.hours * 3600)
    bits = f"{setting.precision}, weights in 4 bits" if setting.four_bit else setting.precision
    chips = f" ({device.gpus} × {device.chip.name}, {job.encoder.parallelism})"
    head = f"{job.name}: {job.queries:,} queries on {device.name}{chips * device.chip.gpu}, {bits}"
    needs = (time, *_memory(job, setting))
    return Plan(head, tokens, parts, needs, (told, *_notes(job, setting)))


def _setting(job: KernelJob) -> Setting:
    return Setting(
        job.device.chip,
        precision(job.encoder, job.device.chip),
        four_bit=job.encoder.quantize == "4bit" or job.shape.packed,
        lora=job.lora,
        dense=job.encoder.pooling == "last" and job.encoder.attention == "dense",
    )


def _memory(job: KernelJob, setting: Setting) -> Iterator[Need]:
    device, parallelism = job.device, job.encoder.parallelism
    running = costs.running_bytes(
        job.shape,
        setting,
        nodes=max(job.counted.longest, job.encoder.token_budget),
        rows=job.queries,
        gpus=device.gpus,
        parallelism=parallelism,
    )
    if not device.gpus:
        yield Need("host memory", "B", running, device.ram)
        return
    processes = device.gpus if parallelism == "queries" else 1
    host = costs.loading_bytes(job.shape, setting, processes=processes, parallelism=parallelism)
    yield Need("GPU memory", "B", running, device.chip.usable)
    yield Need("host memory", "B", host, device.ram)


def _encode(job: KernelJob, setting: Setting, tokens: Span) -> tuple[Span, str]:
    """Return the seconds of embedding, and what they are known from."""
    device, parallelism = job.device, job.encoder.parallelism
    packs = max(1.0, tokens.expected / job.counted.fill)
    paper = costs.encode_seconds(
        job.shape, setting, tokens, packs=packs, gpus=device.gpus, parallelism=parallelism
    )
    seen = _nearest(job.measured, device.chip)
    if seen is None:
        best, _, worst = device.chip.reach
        why = " (a CPU's speed says nothing of a GPU's)" if job.measured else ""
        return paper, f"speed: not measured{why}; {worst:.0%} to {best:.0%} of that on paper"
    pace = seen.seconds / _on_paper(job, setting, seen)
    margins = tokens.scaled(1 / tokens.expected)
    likely = Span(margins.lower, 1.0, margins.upper).scaled(paper.expected * pace)
    same = seen.chip == device.chip and seen.chip.gpu  # of processors no two are known equal
    told = (
        f"speed: {seen.tokens / seen.seconds:,.0f} tokens a second in {seen.where} on "
        f"{seen.chip.name or 'a CPU'}{'' if same else ', scaled'}"
    )
    return likely.times(*(_SAME if same else _OTHER)), told


def _on_paper(job: KernelJob, setting: Setting, seen: MeasuredKernel) -> float:
    """Return the seconds that what was seen would likely have taken."""
    then = replace(setting, chip=seen.chip, precision=seen.precision, four_bit=seen.four_bit)
    return costs.encode_seconds(
        job.shape,
        then,
        costs.exactly(seen.tokens),
        packs=seen.packs,
        gpus=seen.processes,
        parallelism="queries",
    ).expected


def _nearest(measured: Sequence[MeasuredKernel], chip: Chip) -> MeasuredKernel | None:
    """Return what tells most of this chip: the same before another, more tokens before fewer."""
    telling = [one for one in measured if one.tokens >= _FEW and one.chip.gpu == chip.gpu]
    return max(telling, key=lambda item: (item.chip == chip, item.tokens), default=None)


def _notes(job: KernelJob, setting: Setting) -> Iterator[str]:
    if job.encoder.precision == "bf16" and setting.precision != "bf16":
        yield f"precision: fp16 in place of bf16, for which {setting.chip.name} has no units"
    yield (
        f"disk: the base is {job.shape.stored / 1e9:.2f} GB, mounted and not copied; "
        "in an own dataset Kaggle counts it in the account's quota"
    )


def _others(job: KernelJob) -> Iterator[tuple[str, KernelJob]]:
    """Yield flags that may help, and the job under each."""
    encoder = job.encoder
    small = max(64, encoder.token_budget // 4)
    changes: list[dict[str, Any]] = [{}]
    if job.device.gpus > 1:
        changes.append({"parallelism": "model" if encoder.parallelism == "queries" else "queries"})
    if encoder.quantize == "none" and job.device.gpus:
        changes.append({"quantize": "4bit"})
    for change in changes:
        if change:
            yield _flags(change), replace(job, encoder=encoder.model_copy(update=change))
        if small < encoder.token_budget:
            both = {**change, "token_budget": small}
            packs = job.counted.packs * encoder.token_budget // small
            counted = replace(job.counted, packs=packs)
            yield (
                _flags(both),
                replace(job, encoder=encoder.model_copy(update=both), counted=counted),
            )
    for name, device in devices.DEVICES.items():
        if name != job.device.name and _able(replace(job, device=device)):
            yield f"--set=shipping.device={name}", replace(job, device=device)


def _flags(change: dict[str, Any]) -> str:
    return " ".join(f"--set=encoder.{key}={value}" for key, value in change.items())
