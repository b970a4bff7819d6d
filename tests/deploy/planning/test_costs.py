"""Computed bytes and seconds match measurements and file sizes."""

from dataclasses import replace
from pathlib import Path

import models
import pytest
from deploy.bundle import sparse_checkpoints
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.deploy.planning import costs
from parity.deploy.planning.costs import ComputeSetting, CostEstimate, exact
from parity.deploy.planning.devices import DEVICES
from parity.retrieval.models import shape as weights
from parity.retrieval.models.shape import ModelShape

H100, T4 = DEVICES["h100"].chip, DEVICES["t4x2"].chip


def decoder(*sizes: int) -> ModelShape:
    """Return the shape of a decoder: width, inner, heads, groups, head, layers, vocabulary."""
    width, inner, heads, groups, head, layers, vocabulary = sizes
    query_width, key_width = heads * head, groups * head
    attention = [(query_width, width), (key_width, width), (key_width, width), (width, query_width)]
    matrices = [*attention, (inner, width), (inner, width), (width, inner)]
    return ModelShape(
        linear=layers * sum(rows * columns for rows, columns in matrices),
        other=vocabulary * width + (2 * layers + 1) * width,
        inputs=layers * sum(columns for _, columns in matrices),
        outputs=layers * sum(rows for rows, _ in matrices),
        largest=inner * width,
        layers=layers,
        width=width,
        inner=inner,
        heads=heads,
        attention=query_width,
    )


DECODERS = {
    "mistral": decoder(4096, 14336, 32, 8, 128, 8, 32003),
    "smollm2": decoder(576, 1536, 9, 3, 64, 30, 49152),
    "qwen3": decoder(1024, 3072, 16, 8, 128, 28, 151669),
}
MEASURED = """\
mistral        512    61603840 .01123
mistral       1024   124256256 .01343
mistral       4096   522190848 .03840
mistral       8192  1111490560 .08928
mistral-L      512   114032640 .01817
mistral-L     1024   229113856 .01733
mistral-L     4096   941621248 .06179
mistral-L     8192  1950351360 .13247
mistral-4      512   172728320 .01469
mistral-4     1024   220725248 .01965
mistral-4     4096   530554880 .04096
mistral-4     8192  1111990272 .09171
mistral-4L    1024   229113856 .02955
mistral-4L    8192  1950351360 .13268
smollm2        512     7733248 .02344
smollm2       1024    17825792 .02012
smollm2       4096    91226112 .02140
smollm2       8192   268566528 .03564
smollm2-L      512    13959168 .04711
smollm2-L     1024    30015488 .04924
smollm2-L     4096   138412032 .05856
smollm2-L     8192   343932928 .06191
smollm2-4     1024    16515072 .04471
smollm2-4     8192   268566528 .04817
smollm2-4L    1024    28311552 .08146
smollm2-4L    8192   344981504 .07748
qwen3          512    15466496 .02340
qwen3         1024    30015488 .02622
qwen3         4096   145227776 .06258
qwen3         8192   357564416 .09512
qwen3-L        512    27000832 .08893
qwen3-L       1024    52953088 .09411
qwen3-L       4096   236978176 .06341
qwen3-L       8192   541065216 .15463
qwen3-4       1024    30277632 .08226
qwen3-4       8192   357564416 .11012
"""
"""Decoder (L: LoRA of rank 32 in fp32; 4: nf4), tokens, peak bytes less weights, seconds a pack.

One H100, fp16, torch 2.11 with CUDA 13, transformers 5.17, peft 0.19.1, bitsandbytes 0.50.2, SDPA
with a dense mask, inference mode, mean of 3 (large packs) or 10 after 2; 2026-11-25."""


def parse_measurement(line: str) -> tuple[ModelShape, ComputeSetting, int, int, float]:
    name, tokens, peak, seconds = line.split()
    family, _, marks = name.partition("-")
    shape = DECODERS[family]
    lora = 32 * (shape.inputs + shape.outputs) if "L" in marks else 0
    setting = ComputeSetting(H100, "fp16", is_four_bit="4" in marks, lora_values=lora)
    return shape, setting, int(tokens), int(peak), float(seconds)


@pytest.mark.parametrize("line", MEASURED.splitlines())
def test_gpu_measurements_lie_within_the_margins(line: str) -> None:
    shape, setting, tokens, peak, seconds = parse_measurement(line)
    estimate = costs.pack_bytes(shape, setting, tokens)
    assert estimate.lower <= 1.01 * peak
    assert peak <= estimate.upper
    assert estimate.expected <= 2 * peak
    pace = costs.pack_seconds(shape, setting, tokens)
    assert pace.lower <= seconds <= pace.upper


@pytest.mark.parametrize(
    ("tokens", "peak", "seconds"),
    [
        (4_079, 589_705_216, 0.17835),
        (8_076, 1_120_962_560, 0.32143),
        (16_326, 2_233_411_072, 0.61696),
    ],
)
def test_block_attention_takes_the_measured_bytes_and_seconds(
    tokens: int, peak: int, seconds: float
) -> None:
    # The same machine and versions; all 32 layers in nf4, attention in blocks, queries behind 640
    # tokens that they share, 14 GiB allowed.
    shape = decoder(4096, 14336, 32, 8, 128, 32, 32000)
    setting = ComputeSetting(H100, "fp16", is_four_bit=True, has_dense_mask=False)
    estimate = costs.pack_bytes(shape, setting, tokens)
    assert estimate.lower <= peak <= estimate.upper
    pace = costs.pack_seconds(shape, setting, tokens)
    assert pace.lower <= seconds <= pace.upper


def test_four_bit_weights_take_the_measured_bytes() -> None:
    result = costs.weight_bytes(DECODERS["mistral"], "fp16", is_four_bit=True)
    assert result == pytest.approx(1_163_053_056, rel=2e-3)


@pytest.mark.parametrize(("dtype", "precision"), [("F32", "fp32"), ("F16", "fp16")])
def test_weight_bytes_equal_the_file_size(
    dtype: str, precision: costs.Precision, tmp_path: Path
) -> None:
    models.write(tmp_path, "llama")
    tensors = weights.read_header(tmp_path / "model.safetensors")
    sparse_checkpoints.save(
        tmp_path / "model.safetensors",
        {name: (dtype, item.shape) for name, item in tensors.items()},
    )
    size = sum(item.size for item in weights.read_header(tmp_path / "model.safetensors").values())
    assert costs.weight_bytes(weights.read_shape(tmp_path), precision) == size


def running(
    shape: ModelShape, setting: ComputeSetting, tokens: int = 4096, **changes: int | str
) -> CostEstimate:
    arguments = {"rows": 16000, "gpus": 2, "parallelism": "queries", **changes}
    return costs.running_bytes(shape, setting, tokens=tokens, **arguments)  # type: ignore[arg-type]


def test_a_7b_model_fits_a_t4_in_four_bits_or_over_two_t4_but_not_in_fp16(tmp_path: Path) -> None:
    shape = weights.read_shape(
        sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.MISTRAL_7B)
    )
    lora = 32 * (shape.inputs + shape.outputs)
    half, four = (
        ComputeSetting(T4, "fp16", lora_values=lora),
        ComputeSetting(T4, "fp16", is_four_bit=True, lora_values=lora),
    )
    assert costs.weight_bytes(shape, "fp16") == pytest.approx(14.22e9, rel=1e-3)
    assert running(shape, half).lower > T4.usable_memory
    assert running(shape, half, parallelism="model").upper < T4.usable_memory
    assert running(shape, four).upper < T4.usable_memory


def test_a_14b_model_fits_two_t4_in_four_bits_only(tmp_path: Path) -> None:
    shape = weights.read_shape(
        sparse_checkpoints.write(tmp_path / "base", sparse_checkpoints.QWEN_14B)
    )
    assert (
        running(shape, ComputeSetting(T4, "fp16"), parallelism="model").expected
        > 0.9 * T4.usable_memory
    )
    assert running(shape, ComputeSetting(T4, "fp16", is_four_bit=True)).upper < T4.usable_memory


def test_a_dense_mask_grows_with_the_square_of_the_pack() -> None:
    shape, dense = DECODERS["smollm2"], ComputeSetting(H100, "fp16")
    small, large = (costs.pack_bytes(shape, dense, tokens).lower for tokens in (20_000, 40_000))
    assert large == pytest.approx(4 * small, rel=0.01)
    blocks = ComputeSetting(H100, "fp16", has_dense_mask=False)
    small, large = (costs.pack_bytes(shape, blocks, tokens).lower for tokens in (20_000, 40_000))
    assert large == pytest.approx(2 * small)


def test_windows_and_capped_scores_take_more_memory() -> None:
    plain, setting = DECODERS["smollm2"], ComputeSetting(H100, "fp16")
    unwindowed = costs.pack_bytes(plain, setting, 8192).lower
    windowed = costs.pack_bytes(replace(plain, windowed=True), setting, 8192).lower
    capped = costs.pack_bytes(replace(plain, capped=True), setting, 8192).lower
    assert unwindowed < windowed < capped


def test_embeddings_of_many_rows_add_memory() -> None:
    shape, setting = DECODERS["mistral"], ComputeSetting(H100, "fp16")
    few, many = (running(shape, setting, rows=rows).lower for rows in (1000, 1_001_000))
    assert many - few > 4 * 4096 * 1_000_000


def test_two_gpus_halve_the_time_with_queries_but_not_with_model_parallelism() -> None:
    shape, setting = DECODERS["mistral"], ComputeSetting(T4, "fp16")

    def expected_seconds(gpus: int, parallelism: costs.Parallelism) -> float:
        return costs.encode_seconds(
            shape, setting, exact(1e6), packs=200, gpus=gpus, parallelism=parallelism
        ).expected

    assert expected_seconds(1, "queries") == pytest.approx(2 * expected_seconds(2, "queries"))
    assert expected_seconds(1, "queries") == expected_seconds(2, "model")


def test_packs_are_not_divided_among_gpus() -> None:
    shape, setting = DECODERS["mistral"], ComputeSetting(T4, "fp16")
    single, triple = (
        costs.encode_seconds(
            shape, setting, exact(4096.0 * packs), packs=packs, gpus=2, parallelism="queries"
        ).expected
        for packs in (1, 3)
    )
    assert triple == pytest.approx(2 * single)


@settings(deadline=None)
@given(
    st.integers(1, 5000),
    st.floats(0.05, 1.0),
    st.integers(1, 500_000),
)
def test_estimates_for_more_queries_have_ordered_bounds(
    count: int, bend: float, queries: int
) -> None:
    sample = (2 * count, round(100 * (2 * count) ** bend) + 1)
    half = (count, min(sample[1], round(100 * count**bend) + 1))
    estimate = costs.extrapolate_tokens(half, sample, queries)
    assert 0 < estimate.lower <= estimate.expected <= estimate.upper


def test_the_true_growth_lies_within_the_bounds() -> None:
    def shared(queries: int) -> int:
        return 600 + 30 * queries + int(40 * queries**0.8)

    estimate = costs.extrapolate_tokens((1000, shared(1000)), (2000, shared(2000)), 16_000)
    assert estimate.lower < shared(16_000) < estimate.upper
    assert estimate.upper < 1.6 * estimate.lower


def test_counted_queries_have_only_the_margin_of_text_length() -> None:
    assert costs.extrapolate_tokens((50, 600), (100, 1000), 100) == exact(1000).times(0.9, 1.0, 1.1)
    assert costs.extrapolate_tokens((1, 70), (1, 70), 3).expected == 210
