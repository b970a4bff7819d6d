"""Plans of real sizes: what is computed, what is scaled from a measurement, and what mends them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deploy.bundle import sparse_checkpoints

from parity.deploy.planning import costs, kernel_plan
from parity.deploy.planning.devices import DEVICES
from parity.deploy.planning.kernel_plan import KernelJob, MeasuredKernel, TokenCounts
from parity.deploy.planning.plan_result import Need, Plan, refusal
from parity.retrieval.models import shape as weights
from parity.run.config.run_file import EncoderConfig
from parity.run.errors import BadConfig

# Three examples shared by all, Mistral's vocabulary, the whole of the first competition.
COUNTED = TokenCounts(
    half=(2185, 103_500), whole=(4370, 206_000), beside=32_000, packs=52, longest=900, seconds=6.0
)
CPU, T4, L4, H100 = (DEVICES[name].chip for name in ("cpu", "t4x2", "l4x1", "h100"))


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> KernelJob:
    """Return a job of a 7B decoder with LoRA of rank 32 on two T4."""
    folder = sparse_checkpoints.write(
        tmp_path_factory.mktemp("seven") / "base", sparse_checkpoints.MISTRAL_7B
    )
    shape = weights.shape(folder)
    return KernelJob(
        name="seven, round 0",
        device=DEVICES["t4x2"],
        encoder=encoder(precision="bf16", token_budget=4096),
        shape=shape,
        lora=32 * (shape.inputs + shape.outputs),
        counted=COUNTED,
        queries=16_000,
        hours=9.0,
    )


def encoder(**changes: Any) -> EncoderConfig:
    return EncoderConfig.model_validate({"base": "none", **changes})


def but(job: KernelJob, **changes: Any) -> KernelJob:
    """Return the job with its encoder changed."""
    return replace(job, encoder=job.encoder.model_copy(update=changes))


def need(plan: Plan, what: str) -> Need:
    (found,) = (one for one in plan.needs if one.what == what)
    return found


def likely(job: KernelJob) -> float:
    return kernel_plan.make(job).parts["encode"].expected


def test_seven_billion_in_fp16_do_not_fit_one_t4_and_what_mends_it_is_named(
    seven: KernelJob,
) -> None:
    found = kernel_plan.make(seven)
    assert (found.fits, need(found, "GPU memory").fits) == ("no", "no")
    assert found.mends == (
        "--set=encoder.parallelism=model",
        "--set=encoder.parallelism=model --set=encoder.token_budget=1024",
        "--set=encoder.quantize=4bit",
    )
    assert "GPU memory is at least 15." in refusal(found)
    for mend in ({"parallelism": "model"}, {"quantize": "4bit"}):
        mended = kernel_plan.make(but(seven, **mend))
        assert need(mended, "GPU memory").fits == "yes"
        assert (mended.fits != "no", mended.mends, refusal(mended)) == (True, (), "")


def test_a_copy_in_fp16_for_each_t4_is_more_than_the_host_can_surely_load(seven: KernelJob) -> None:
    assert need(kernel_plan.make(seven), "host memory").fits == "unsure"
    assert need(kernel_plan.make(but(seven, parallelism="model")), "host memory").fits == "yes"
    assert need(kernel_plan.make(but(seven, quantize="4bit")), "host memory").fits == "yes"


def test_too_many_queries_for_the_hours_are_mended_by_a_faster_device(seven: KernelJob) -> None:
    job = replace(but(seven, quantize="4bit"), queries=50_000, hours=0.15)
    found = kernel_plan.make(job)
    assert [one.fits for one in found.needs] == ["no", "yes", "yes"]
    assert found.mends
    assert all("shipping.device=" in mend for mend in found.mends)


def test_bf16_is_planned_as_fp16_where_there_are_no_units_for_it(seven: KernelJob) -> None:
    found = kernel_plan.make(but(seven, quantize="4bit"))
    assert "fp16, weights in 4 bits" in found.head
    assert [note for note in found.notes if "in place of bf16" in note]
    on_l4 = kernel_plan.make(replace(seven, device=DEVICES["l4x4"]))
    assert on_l4.head.endswith("bf16")
    assert not [note for note in on_l4.notes if "in place of" in note]


@pytest.mark.parametrize(
    ("wanted", "on_cpu", "on_t4", "on_l4"),
    [
        ("auto", "fp32", "fp16", "bf16"),
        ("bf16", "bf16", "fp16", "bf16"),
        ("fp16", "fp16", "fp16", "fp16"),
        ("fp32", "fp32", "fp32", "fp32"),
    ],
)
def test_the_precision_is_what_the_chip_can_do(
    wanted: str, on_cpu: str, on_t4: str, on_l4: str
) -> None:
    asked = encoder(precision=wanted)
    assert [kernel_plan.precision(asked, chip) for chip in (CPU, T4, L4)] == [on_cpu, on_t4, on_l4]


def test_8_bit_floats_are_refused_where_there_are_no_units_for_them(seven: KernelJob) -> None:
    rounded = but(seven, quantize="fp8")
    with pytest.raises(
        BadConfig, match=r"T4 has no units for it; add --set=encoder\.quantize=none"
    ):
        kernel_plan.make(rounded)
    assert not kernel_plan.may_fit(rounded)
    late = replace(rounded, device=DEVICES["l4x1"], queries=50_000, hours=0.15)
    mends = kernel_plan.make(late).mends
    assert [mend for mend in mends if "h100" in mend]
    assert not [mend for mend in mends if "t4x2" in mend or "a100" in mend]


def test_a_cpu_has_the_hosts_memory_alone(seven: KernelJob) -> None:
    found = kernel_plan.make(replace(but(seven, precision="auto"), device=DEVICES["cpu"]))
    assert [one.what for one in found.needs] == ["time", "host memory"]
    assert found.head.endswith("on cpu, fp32")


def test_what_was_not_measured_is_a_share_of_the_paper_speed(seven: KernelJob) -> None:
    found = kernel_plan.make(but(seven, quantize="4bit"))
    assert found.notes[0] == "speed: not measured; 15% to 55% of that on paper"
    encode = found.parts["encode"]
    flops = 2 * seven.shape.linear * found.tokens.expected
    assert flops / T4.half / 2 < encode.lower < encode.expected < encode.upper
    assert encode.upper > 2 * encode.lower


def measured(seven: KernelJob, seconds: float, **changes: Any) -> KernelJob:
    """Return the job on 4-bit weights with one measurement of them on one T4."""
    plain: dict[str, Any] = {"precision": "fp16", "four_bit": True, "chip": T4, **changes}
    one = MeasuredKernel(where="follow", tokens=80_000, packs=20, seconds=seconds, **plain)
    return replace(but(seven, quantize="4bit"), measured=(one,))


def test_a_speed_seen_on_the_same_chip_is_taken_as_it_is(seven: KernelJob) -> None:
    job = measured(seven, seconds=40.0)
    found = kernel_plan.make(job)
    encode = found.parts["encode"]
    assert "2,000 tokens a second in follow on T4" in found.notes[0]
    # Two GPUs, each 2,000 tokens a second; packs are as full as those that were seen.
    assert encode.expected == pytest.approx(found.tokens.expected / 4000, rel=0.05)
    spread = [getattr(found.tokens, name) / found.tokens.expected for name in ("lower", "upper")]
    assert encode.lower == pytest.approx(0.9 * spread[0] * encode.expected)
    assert encode.upper == pytest.approx(1.2 * spread[1] * encode.expected)
    assert likely(measured(seven, seconds=80.0)) == pytest.approx(2 * encode.expected)


def test_a_speed_seen_on_another_chip_is_scaled_by_what_both_are_on_paper(seven: KernelJob) -> None:
    job = measured(seven, seconds=2.0, chip=H100)
    found = kernel_plan.make(job)
    assert found.notes[0].endswith("in follow on H100, scaled")
    encode = found.parts["encode"]
    assert encode.upper / encode.lower > 4
    slow = likely(measured(seven, seconds=4.0, chip=H100))
    assert slow == pytest.approx(2 * encode.expected)
    assert encode.expected > 5 * 2.0 * found.tokens.expected / 80_000 / 2


def test_two_processes_that_were_seen_are_two_gpus(seven: KernelJob) -> None:
    one, two = (likely(measured(seven, seconds=40.0, processes=count)) for count in (1, 2))
    assert two == pytest.approx(2 * one)


def test_a_cpus_speed_says_nothing_of_a_gpu(seven: KernelJob) -> None:
    plain = but(seven, quantize="4bit")
    job = measured(seven, seconds=4000.0, chip=CPU, precision="fp32", four_bit=False)
    assert kernel_plan.make(job).parts == kernel_plan.make(plain).parts
    assert "a CPU's speed says nothing" in kernel_plan.make(job).notes[0]


def test_a_measurement_of_few_tokens_is_left_out(seven: KernelJob) -> None:
    job = measured(seven, seconds=40.0)
    few = replace(job, measured=(replace(job.measured[0], tokens=300),))
    assert kernel_plan.make(few).notes[0].startswith("speed: not measured")


def test_the_same_chip_counts_before_more_tokens_elsewhere(seven: KernelJob) -> None:
    job = measured(seven, seconds=40.0)
    other = replace(job.measured[0], chip=H100, tokens=8_000_000, packs=2000, seconds=60.0)
    both = replace(job, measured=(other, *job.measured))
    assert kernel_plan.make(both).notes == kernel_plan.make(job).notes


def test_what_is_carried_is_hashed_too(seven: KernelJob) -> None:
    job = replace(but(seven, quantize="4bit"), carried=10 * 10**9)
    more = kernel_plan.make(job).parts["hash"] + costs.exactly(0)
    less = kernel_plan.make(replace(job, carried=0)).parts["hash"]
    assert more.lower - less.lower == pytest.approx(10 / 1.2)


def test_a_base_that_lies_in_four_bits_is_planned_so(seven: KernelJob, tmp_path: Path) -> None:
    packed = replace(seven, shape=replace(seven.shape, packed=True))
    assert "weights in 4 bits" in kernel_plan.make(packed).head
