"""Costs of encoding: bytes on each GPU and on the host, and seconds, computed from shapes.

Checked against 36 measurements on one H100 in fp16 (tests/deploy/planning/test_costs.py): decoders
shaped like Mistral-7B (8 layers), Qwen3-0.6B and SmolLM2, packs of 512 to 8,192 tokens, with and
without LoRA and 4-bit weights. Weights in 4 bits were exact to 0.1 %. Peak bytes and seconds were
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
_LORA_BYTES = 4  # PEFT keeps the adapter's weights in fp32, also when the base is not
_FOUR_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of one value in nf4: half a byte, one for each block of 64, four for 256 of those.

Source: QLoRA (arXiv 2305.14314), section 3, "Double Quantization"."""


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """A number with its margin of error.

    Attributes:
        lower: lower bound.
        expected: most likely value.
        upper: upper bound.
    """

    lower: float
    expected: float
    upper: float

    def __add__(self, other: "CostEstimate") -> "CostEstimate":
        """Return the sum. Margins add up because the same cause slows down every step."""
        return CostEstimate(
            self.lower + other.lower, self.expected + other.expected, self.upper + other.upper
        )

    def times(self, lower: float, expected: float, upper: float) -> "CostEstimate":
        """Return each bound times its own factor."""
        return CostEstimate(self.lower * lower, self.expected * expected, self.upper * upper)

    def scaled(self, factor: float) -> "CostEstimate":
        """Return all three bounds times one factor."""
        return self.times(factor, factor, factor)


def exact(value: float) -> CostEstimate:
    """Return a number without a margin."""
    return CostEstimate(value, value, value)


@dataclass(frozen=True, slots=True)
class ComputeSetting:
    """How a model runs on one chip.

    Attributes:
        chip: GPU or CPU that computes.
        precision: dtype of the computation.
        is_four_bit: whether the layers' matrices are stored in 4 bits.
        lora_values: number of values in the adapter's matrices; 0 when all weights were trained.
        has_dense_mask: whether attention covers all pairs of a pack's tokens under one mask.
        bytes_per_token: measured bytes of one packed token; 0 without a measurement.
    """

    chip: Chip
    precision: Precision
    is_four_bit: bool = False
    lora_values: int = 0
    has_dense_mask: bool = True
    bytes_per_token: float = 0.0


def weight_bytes(shape: ModelShape, precision: Precision, *, is_four_bit: bool = False) -> float:
    """Return the bytes of the base's weights in memory."""
    width = _BYTES[precision]
    return shape.linear * (_FOUR_BIT if is_four_bit else width) + shape.other * width


def pack_bytes(shape: ModelShape, setting: ComputeSetting, tokens: int) -> CostEstimate:
    """Return the peak bytes of one pack, without the weights.

    The lower bound is what is allocated. The upper bound includes what a fragmented allocator
    reserves. The dense mask of `attention.mask` grows with the square of the pack: 134 MB for 8,192
    tokens in fp16, and four times that while the mask of a model with windows is built.
    """
    if setting.bytes_per_token:
        return exact(setting.bytes_per_token * tokens).times(0.9, 1.0, 1.15)
    width = _BYTES[setting.precision]
    if setting.lora_values:  # cast to fp32, added and cast back, next to the layer's own result
        token_bytes = 6 * width * (shape.inner + shape.width)
    else:
        token_bytes = width * (3 * shape.inner + 4 * shape.width)
    token_bytes = max(token_bytes, width * (6 * shape.attention + 3 * shape.width))
    peak = float(token_bytes * tokens)
    if setting.has_dense_mask:
        square = float(tokens) ** 2
        masks = width * (2 if shape.windowed else 1) * square
        scores = shape.heads * (2 * width + 4) * square if shape.capped else 0.0
        mask_peak = (width + 9 if shape.windowed else width + 2) * square
        peak = max(peak + masks + scores, mask_peak)
    unpacked = width * shape.largest if setting.is_four_bit else 0  # one matrix at a time
    return CostEstimate(0.9 * peak, 1.15 * (peak + unpacked), 1.5 * (peak + unpacked))


def running_bytes(
    shape: ModelShape,
    setting: ComputeSetting,
    *,
    tokens: int,
    rows: int,
    gpus: int,
    parallelism: Parallelism,
) -> CostEstimate:
    """Return the bytes taken on each GPU, or on the host of a machine without a GPU.

    Args:
        shape: the base model's.
        setting: how the model runs.
        tokens: number in the largest pack.
        rows: number of embeddings in memory at the end, each (width,) float32.
        gpus: number of GPUs; `model` splits the layers among them; 0 without a GPU.
        parallelism: `queries` puts a copy of the model on each GPU.
    """
    weights = weight_bytes(shape, setting.precision, is_four_bit=setting.is_four_bit)
    share = exact(weights)
    lora = exact(_LORA_BYTES * setting.lora_values)
    if parallelism == "model" and gpus > 1:
        embeddings = _BYTES[setting.precision] * shape.other
        largest_share = -(-shape.layers // gpus) / shape.layers  # layers are not divided
        largest = embeddings + (weights - embeddings) * largest_share  # embeddings: first GPU
        share = CostEstimate(weights / gpus, max(weights / gpus, largest), largest * 1.05)
        lora = lora.times(1 / gpus, largest_share, largest_share)
    vectors = 4.0 * rows * shape.width  # later concatenated, then sorted
    pack = pack_bytes(shape, setting, tokens)
    activations = CostEstimate(
        max(pack.lower + vectors, 3 * vectors),
        max(pack.expected + vectors, 3 * vectors),
        max(pack.upper + vectors, 3.2 * vectors),
    )
    # On a GPU: CUDA's context, loaded kernels and workspaces. On a host: Python with torch.
    if setting.chip.is_gpu:
        overhead = CostEstimate(0.3e9, 0.5e9, 0.8e9)
    else:
        overhead = CostEstimate(0.6e9, 1.0e9, 2.0e9)
    return share + lora + activations + overhead


def loading_bytes(
    shape: ModelShape, setting: ComputeSetting, *, processes: int, parallelism: Parallelism
) -> CostEstimate:
    """Return the host's bytes while the base is loaded onto GPUs.

    A process first reads the weights into the host's memory. Files of the right dtype are only
    memory-mapped, and the system may drop those pages. Quantized weights, or weights split over
    several GPUs, are loaded piece by piece.
    """
    is_streamed = setting.is_four_bit or parallelism == "model"
    weights = 0.0 if is_streamed else weight_bytes(shape, setting.precision)
    process = CostEstimate(1.5e9, 2.5e9 + weights, 4e9 + 1.1 * weights)
    return process.scaled(processes)


def pack_seconds(shape: ModelShape, setting: ComputeSetting, tokens: float) -> CostEstimate:
    """Return the seconds of one pack on one chip.

    The slower of two: what the chip computes and moves, and the host's time to launch the kernels,
    layer by layer, which bounds small models.
    """
    chip, width = setting.chip, _BYTES[setting.precision]
    rate = chip.fp32_flops if width == 4 or not chip.fp16_flops else chip.fp16_flops
    flops = 2.0 * shape.linear * tokens
    if setting.has_dense_mask:
        flops += 4.0 * tokens**2 * shape.attention * shape.layers  # masked pairs are computed too
    lora = 2.0 * setting.lora_values * tokens / chip.fp32_flops
    moved = _moved_bytes(shape, setting, tokens) / chip.bandwidth
    host = 0.0
    if chip.is_gpu:
        layer = 1.0 + 1.5 * bool(setting.lora_values) + 1.2 * setting.is_four_bit  # milliseconds
        host = (4.0 + layer * shape.layers) / 1000
    best, likely, worst = chip.efficiency
    return CostEstimate(
        max(flops / rate / best + lora + moved, 0.5 * host),
        max(flops / rate / likely + 2 * lora + 1.3 * moved, host),
        max(flops / rate / worst + 4 * lora + 2 * moved, 2.5 * host),
    )


def _moved_bytes(shape: ModelShape, setting: ComputeSetting, tokens: float) -> float:
    """Return the bytes between chip and memory for one pack: norms, positions, weights, adapter."""
    width = _BYTES[setting.precision]
    token_bytes = width * shape.layers * (26 * shape.width + 15 * shape.attention + 6 * shape.inner)
    if setting.lora_values:
        token_bytes += 10 * shape.inputs + 28 * shape.outputs
    weights = shape.linear * (_FOUR_BIT + 2 * width if setting.is_four_bit else width)
    return token_bytes * tokens + weights


def encode_seconds(
    shape: ModelShape,
    setting: ComputeSetting,
    tokens: CostEstimate,
    *,
    packs: float,
    gpus: int,
    parallelism: Parallelism,
) -> CostEstimate:
    """Return the seconds of all packs.

    Args:
        shape: the base model's.
        setting: how the model runs.
        tokens: packed tokens of all packs.
        packs: number of packs that hold `tokens.expected`.
        gpus: number of chips that share the packs, or with `model` take turns.
        parallelism: over several GPUs.
    """
    tokens_per_pack = tokens.expected / packs
    pack = pack_seconds(shape, setting, tokens_per_pack)
    total = pack.times(tokens.lower / tokens_per_pack, packs, tokens.upper / tokens_per_pack)
    if parallelism == "model" or gpus < 2:
        return total
    return total.scaled(-(-packs // gpus) / packs)  # packs are not divided


def extrapolate_tokens(
    half: tuple[int, int], sample: tuple[int, int], queries: int
) -> CostEstimate:
    """Return the packed tokens of more queries than were counted.

    Each further query shares more of its prefix, but this effect levels off as queries are added.
    The count grows as from half to all of the sample (expected), as a power of the queries (lower),
    or in proportion (upper), with 10 % on either side for shorter or longer texts.

    >>> extrapolate_tokens((100, 1000), (200, 2000), 400).expected
    4000.0

    Args:
        half: number of queries in half of the sample, and their packed tokens.
        sample: the same of the entire sample.
        queries: number to estimate.
    """
    (half_queries, half_tokens), (sample_queries, sample_tokens) = half, sample
    proportional = sample_tokens * queries / sample_queries
    if queries <= sample_queries or half_queries == sample_queries:
        return exact(proportional).times(0.9, 1.0, 1.1)
    slope = (sample_tokens - half_tokens) / (sample_queries - half_queries)
    linear = sample_tokens + slope * (queries - sample_queries)
    exponent = _doublings(sample_queries, queries) / _doublings(half_queries, sample_queries)
    power = sample_tokens * (sample_tokens / half_tokens) ** exponent
    return CostEstimate(0.9 * min(linear, power), linear, 1.1 * max(linear, proportional))


def _doublings(start: float, stop: float) -> float:
    return log2(stop / start)
