"""What encoding costs: bytes on each GPU, bytes of the host, seconds; from shapes alone.

Checked against 36 measurements on one H100 in fp16 (tests/deploy/planning/test_costs.py): decoders
shaped like Mistral-7B (8 layers), Qwen3-0.6B and SmolLM2, packs of 512 to 8,192 tokens, with and
without LoRA and 4-bit weights. Weights in 4 bits were exact to 0.1 %; peak bytes and seconds were
within their margins.
"""

from dataclasses import dataclass
from math import log2
from typing import Literal

from parity.deploy.planning.devices import Chip
from parity.retrieval.models.shape import ModelShape

Precision = Literal["fp32", "fp16", "bf16"]
Parallelism = Literal["queries", "model"]

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
_LORA_BYTES = 4  # PEFT keeps an adapter's weights in fp32 whatever the base is
_FOUR_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of one value in nf4: half a byte, one for each block of 64, four for 256 of those.

Source: QLoRA (arXiv 2305.14314), section 3, "Double Quantization"."""


@dataclass(frozen=True, slots=True)
class Span:
    """A number with its margin of error.

    Attributes:
        lower: what it is at least.
        expected: what it is likely.
        upper: what it is at most.
    """

    lower: float
    expected: float
    upper: float

    def __add__(self, other: "Span") -> "Span":
        """Return the sum; margins add up, for what is slow is slow throughout."""
        return Span(
            self.lower + other.lower, self.expected + other.expected, self.upper + other.upper
        )

    def times(self, lower: float, expected: float, upper: float) -> "Span":
        """Return each bound times its own factor."""
        return Span(self.lower * lower, self.expected * expected, self.upper * upper)

    def scaled(self, factor: float) -> "Span":
        """Return all three times one factor."""
        return self.times(factor, factor, factor)


def exactly(value: float) -> Span:
    """Return a number that has no margin."""
    return Span(value, value, value)


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model runs on one chip.

    Attributes:
        chip: what computes.
        precision: of what is computed.
        four_bit: whether the layers' matrices lie in 4 bits.
        lora: values in the adapter's own matrices; 0 where all weights were trained.
        dense: whether all pairs of a pack's nodes are attended to, under one mask.
        node: bytes that a node of a pack was seen to take; 0 where nobody measured it.
    """

    chip: Chip
    precision: Precision
    four_bit: bool = False
    lora: int = 0
    dense: bool = True
    node: float = 0.0


def weight_bytes(shape: ModelShape, precision: Precision, *, four_bit: bool = False) -> float:
    """Return the bytes of the base's weights where they run."""
    wide = _BYTES[precision]
    return shape.linear * (_FOUR_BIT if four_bit else wide) + shape.other * wide


def pack_bytes(shape: ModelShape, setting: Setting, nodes: int) -> Span:
    """Return the bytes that one pack takes beside the weights, at their peak.

    The lower bound is what is allocated; the upper what an allocator may hold in pieces. The dense
    mask of `attention.mask` weighs as its square: 134 MB for 8,192 nodes in fp16, and for a model
    with windows four times that while it is made.
    """
    if setting.node:
        return exactly(setting.node * nodes).times(0.9, 1.0, 1.15)
    wide = _BYTES[setting.precision]
    if setting.lora:  # cast to fp32, added and cast back beside the layer's own result
        node = 6 * wide * (shape.inner + shape.width)
    else:
        node = wide * (3 * shape.inner + 4 * shape.width)
    node = max(node, wide * (6 * shape.attention + 3 * shape.width))
    peak = float(node * nodes)
    if setting.dense:
        square = float(nodes) ** 2
        held = wide * (2 if shape.windowed else 1) * square
        scores = shape.heads * (2 * wide + 4) * square if shape.capped else 0.0
        made = (wide + 9 if shape.windowed else wide + 2) * square
        peak = max(peak + held + scores, made)
    unpacked = wide * shape.largest if setting.four_bit else 0  # one matrix at a time
    return Span(0.9 * peak, 1.15 * (peak + unpacked), 1.5 * (peak + unpacked))


def running_bytes(
    shape: ModelShape,
    setting: Setting,
    *,
    nodes: int,
    rows: int,
    gpus: int,
    parallelism: Parallelism,
) -> Span:
    """Return the bytes taken of each GPU, or of the host where there is none.

    Args:
        shape: the base.
        setting: how it runs.
        nodes: of the largest pack.
        rows: embeddings that are held until the last, each (width,) float32.
        gpus: among which `model` deals the layers; 0 for a machine without.
        parallelism: `queries` puts a copy on each.
    """
    weights = weight_bytes(shape, setting.precision, four_bit=setting.four_bit)
    share = exactly(weights)
    lora = exactly(_LORA_BYTES * setting.lora)
    if parallelism == "model" and gpus > 1:
        other = _BYTES[setting.precision] * shape.other
        most = -(-shape.layers // gpus) / shape.layers  # whole layers are dealt
        dealt = other + (weights - other) * most  # and the embeddings lie on the first
        share = Span(weights / gpus, max(weights / gpus, dealt), dealt * 1.05)
        lora = lora.times(1 / gpus, most, most)
    vectors = 4.0 * rows * shape.width  # then joined, then put in order
    pack = pack_bytes(shape, setting, nodes)
    moving = Span(
        max(pack.lower + vectors, 3 * vectors),
        max(pack.expected + vectors, 3 * vectors),
        max(pack.upper + vectors, 3.2 * vectors),
    )
    # CUDA's context, loaded kernels and workspaces; of a host, Python with torch.
    own = Span(0.3e9, 0.5e9, 0.8e9) if setting.chip.gpu else Span(0.6e9, 1.0e9, 2.0e9)
    return share + lora + moving + own


def loading_bytes(
    shape: ModelShape, setting: Setting, *, processes: int, parallelism: Parallelism
) -> Span:
    """Return the host's bytes while the base is loaded onto GPUs.

    A process reads the weights into the host's memory first; files that lie in the right type are
    only mapped, and the system may let go of them. What is quantized, or split over several GPUs,
    passes piece by piece.
    """
    passes = setting.four_bit or parallelism == "model"
    weights = 0.0 if passes else weight_bytes(shape, setting.precision)
    one = Span(1.5e9, 2.5e9 + weights, 4e9 + 1.1 * weights)
    return one.scaled(processes)


def pack_seconds(shape: ModelShape, setting: Setting, nodes: float) -> Span:
    """Return the seconds that one pack takes on one chip.

    The slower of two: what the chip computes and moves, and what the host needs to ask for it,
    layer by layer, which is what small models wait for.
    """
    chip, wide = setting.chip, _BYTES[setting.precision]
    rate = chip.single if wide == 4 or not chip.half else chip.half
    flops = 2.0 * shape.linear * nodes
    if setting.dense:
        flops += 4.0 * nodes**2 * shape.attention * shape.layers  # the mask is dense, so all of it
    extra = 2.0 * setting.lora * nodes / chip.single
    moved = _moved(shape, setting, nodes) / chip.bandwidth
    host = 0.0
    if chip.gpu:
        layer = 1.0 + 1.5 * bool(setting.lora) + 1.2 * setting.four_bit  # milliseconds
        host = (4.0 + layer * shape.layers) / 1000
    best, likely, worst = chip.reach
    return Span(
        max(flops / rate / best + extra + moved, 0.5 * host),
        max(flops / rate / likely + 2 * extra + 1.3 * moved, host),
        max(flops / rate / worst + 4 * extra + 2 * moved, 2.5 * host),
    )


def _moved(shape: ModelShape, setting: Setting, nodes: float) -> float:
    """Return the bytes between chip and memory for one pack: norms, positions, weights, adapter."""
    wide = _BYTES[setting.precision]
    node = wide * shape.layers * (26 * shape.width + 15 * shape.attention + 6 * shape.inner)
    if setting.lora:
        node += 10 * shape.inputs + 28 * shape.outputs
    weights = shape.linear * (_FOUR_BIT + 2 * wide if setting.four_bit else wide)
    return node * nodes + weights


def encode_seconds(
    shape: ModelShape,
    setting: Setting,
    tokens: Span,
    *,
    packs: float,
    gpus: int,
    parallelism: Parallelism,
) -> Span:
    """Return the seconds that all packs take.

    Args:
        shape: the base.
        setting: how it runs.
        tokens: nodes of all packs.
        packs: how many there are for `tokens.expected` nodes.
        gpus: chips that share the packs, or with `model` take turns.
        parallelism: over several GPUs.
    """
    fill = tokens.expected / packs  # nodes of a pack
    one = pack_seconds(shape, setting, fill)
    whole = one.times(tokens.lower / fill, packs, tokens.upper / fill)
    if parallelism == "model" or gpus < 2:
        return whole
    return whole.scaled(-(-packs // gpus) / packs)  # whole packs are dealt


def grown(half: tuple[int, int], whole: tuple[int, int], queries: int) -> Span:
    """Return the packed tokens of more queries than were counted.

    Further queries share ever more of their prefixes, but the more are counted the less that
    changes: it grows as it last did (expected), as a power of their number (lower), or in
    proportion (upper); a tenth on either side for texts that are longer or shorter.

    >>> grown((100, 1000), (200, 2000), 400).expected
    4000.0

    Args:
        half: of half the queries, their number and their packed tokens.
        whole: of all of them.
        queries: how many there will be.
    """
    (fewer, less), (more, most) = half, whole
    level = most * queries / more
    if queries <= more or fewer == more:
        return exactly(level).times(0.9, 1.0, 1.1)
    straight = most + (most - less) / (more - fewer) * (queries - more)
    bent = most * (most / less) ** (_doublings(more, queries) / _doublings(fewer, more))
    return Span(0.9 * min(straight, bent), straight, 1.1 * max(straight, level))


def _doublings(start: float, stop: float) -> float:
    return log2(stop / start)
