"""Plans of real sizes: computed values, values scaled from a measurement, and fixes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deploy.bundle import sparse_checkpoints

from parity.deploy.planning import costs, kernel_plan
from parity.deploy.planning.devices import DEVICES
from parity.deploy.planning.kernel_plan import KernelJob, MeasuredKernel, TokenCounts
from parity.deploy.planning.plan_report import KernelPlan, Requirement, refusal
from parity.retrieval.models import shape as weights
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig

# Three examples shared by all, Mistral's vocabulary, all queries of the first competition.
COUNTED = TokenCounts(
    half=(2185, 103_500), sample=(4370, 206_000), fixed=32_000, packs=52, longest=900, seconds=6.0
)
CPU, T4, L4, H100 = (DEVICES[name].chip for name in ("cpu", "t4x2", "l4x1", "h100"))


@pytest.fixture(scope="module")
def seven_b(tmp_path_factory: pytest.TempPathFactory) -> KernelJob:
    """Return a job of a 7B decoder with LoRA of rank 32 on two T4."""
    folder = sparse_checkpoints.write(
        tmp_path_factory.mktemp("seven") / "base", sparse_checkpoints.MISTRAL_7B
    )
    shape = weights.read_shape(folder)
    return KernelJob(
        name="seven, round 0",
        device=DEVICES["t4x2"],
        encoder=encoder(precision="bf16", token_budget=4096),
        shape=shape,
        lora_values=32 * (shape.inputs + shape.outputs),
        counts=COUNTED,
        queries=16_000,
        hours=9.0,
    )


def encoder(**changes: Any) -> EncoderConfig:
    return EncoderConfig.model_validate({"base": "none", **changes})


def with_encoder(job: KernelJob, **changes: Any) -> KernelJob:
    """Return the job with its encoder changed."""
    return replace(job, encoder=job.encoder.model_copy(update=changes))


def requirement_of(plan: KernelPlan, resource: str) -> Requirement:
    (requirement,) = (item for item in plan.requirements if item.resource == resource)
    return requirement


def likely(job: KernelJob) -> float:
    return kernel_plan.build_plan(job).steps["encode"].expected


def test_a_7b_model_in_fp16_does_not_fit_one_t4_and_the_fixes_are_listed(
    seven_b: KernelJob,
) -> None:
    plan = kernel_plan.build_plan(seven_b)
    assert (plan.fits, requirement_of(plan, "GPU memory").fits) == ("no", "no")
    assert plan.fixes == (
        "--set=encoder.parallelism=model",
        "--set=encoder.parallelism=model --set=encoder.token_budget=1024",
        "--set=encoder.quantize=4bit",
    )
    assert "GPU memory is at least 15." in refusal(plan)
    for fix in ({"parallelism": "model"}, {"quantize": "4bit"}):
        fixed = kernel_plan.build_plan(with_encoder(seven_b, **fix))
        assert requirement_of(fixed, "GPU memory").fits == "yes"
        assert (fixed.fits != "no", fixed.fixes, refusal(fixed)) == (True, (), "")


def test_two_fp16_copies_may_not_fit_the_host_memory(
    seven_b: KernelJob,
) -> None:
    assert requirement_of(kernel_plan.build_plan(seven_b), "host memory").fits == "unsure"
    assert (
        requirement_of(
            kernel_plan.build_plan(with_encoder(seven_b, parallelism="model")), "host memory"
        ).fits
        == "yes"
    )
    assert (
        requirement_of(
            kernel_plan.build_plan(with_encoder(seven_b, quantize="4bit")), "host memory"
        ).fits
        == "yes"
    )


def test_a_faster_device_fixes_too_many_queries(seven_b: KernelJob) -> None:
    job = replace(with_encoder(seven_b, quantize="4bit"), queries=50_000, hours=0.15)
    plan = kernel_plan.build_plan(job)
    assert [item.fits for item in plan.requirements] == ["no", "yes", "yes"]
    assert plan.fixes
    assert all("shipping.device=" in fix for fix in plan.fixes)


def test_bf16_becomes_fp16_on_a_gpu_without_bf16_units(seven_b: KernelJob) -> None:
    plan = kernel_plan.build_plan(with_encoder(seven_b, quantize="4bit"))
    assert "fp16, weights in 4 bits" in plan.title
    assert [note for note in plan.notes if "instead of bf16" in note]
    on_l4 = kernel_plan.build_plan(replace(seven_b, device=DEVICES["l4x4"]))
    assert on_l4.title.endswith("bf16")
    assert not [note for note in on_l4.notes if "instead of" in note]


@pytest.mark.parametrize(
    ("precision", "on_cpu", "on_t4", "on_l4"),
    [
        ("auto", "fp32", "fp16", "bf16"),
        ("bf16", "bf16", "fp16", "bf16"),
        ("fp16", "fp16", "fp16", "fp16"),
        ("fp32", "fp32", "fp32", "fp32"),
    ],
)
def test_the_precision_fits_the_chip(precision: str, on_cpu: str, on_t4: str, on_l4: str) -> None:
    config = encoder(precision=precision)
    assert [kernel_plan.compute_precision(config, chip) for chip in (CPU, T4, L4)] == [
        on_cpu,
        on_t4,
        on_l4,
    ]


def test_fp8_is_refused_on_a_gpu_without_fp8_units(seven_b: KernelJob) -> None:
    rounded = with_encoder(seven_b, quantize="fp8")
    with pytest.raises(BadConfig, match=r"T4 does not have\. Add --set=encoder\.quantize=none"):
        kernel_plan.build_plan(rounded)
    assert not kernel_plan.can_fit(rounded)
    late = replace(rounded, device=DEVICES["l4x1"], queries=50_000, hours=0.15)
    fixes = kernel_plan.build_plan(late).fixes
    assert [fix for fix in fixes if "h100" in fix]
    assert not [fix for fix in fixes if "t4x2" in fix or "a100" in fix]


def test_a_cpu_uses_only_host_memory(seven_b: KernelJob) -> None:
    plan = kernel_plan.build_plan(
        replace(with_encoder(seven_b, precision="auto"), device=DEVICES["cpu"])
    )
    assert [item.resource for item in plan.requirements] == ["time", "host memory"]
    assert plan.title.endswith("on cpu, fp32")


def test_without_a_measurement_the_speed_is_a_share_of_the_paper_speed(seven_b: KernelJob) -> None:
    plan = kernel_plan.build_plan(with_encoder(seven_b, quantize="4bit"))
    assert plan.notes[0] == "speed: not measured; 15% to 55% of that on paper"
    encode = plan.steps["encode"]
    flops = 2 * seven_b.shape.linear * plan.tokens.expected
    assert flops / T4.fp16_flops / 2 < encode.lower < encode.expected < encode.upper
    assert encode.upper > 2 * encode.lower


def with_measurement(seven_b: KernelJob, seconds: float, **changes: Any) -> KernelJob:
    """Return the job on 4-bit weights with one measurement of them on one T4."""
    plain: dict[str, Any] = {"precision": "fp16", "is_four_bit": True, "chip": T4, **changes}
    measurement = MeasuredKernel(source="follow", tokens=80_000, packs=20, seconds=seconds, **plain)
    return replace(with_encoder(seven_b, quantize="4bit"), measurements=(measurement,))


def test_a_speed_measured_on_the_same_chip_is_not_scaled(seven_b: KernelJob) -> None:
    job = with_measurement(seven_b, seconds=40.0)
    plan = kernel_plan.build_plan(job)
    encode = plan.steps["encode"]
    assert "2,000 tokens a second in follow on T4" in plan.notes[0]
    # Two GPUs, each 2,000 tokens a second; packs are as full as the measured ones.
    assert encode.expected == pytest.approx(plan.tokens.expected / 4000, rel=0.05)
    spread = [getattr(plan.tokens, name) / plan.tokens.expected for name in ("lower", "upper")]
    assert encode.lower == pytest.approx(0.9 * spread[0] * encode.expected)
    assert encode.upper == pytest.approx(1.2 * spread[1] * encode.expected)
    assert likely(with_measurement(seven_b, seconds=80.0)) == pytest.approx(2 * encode.expected)


def test_a_speed_measured_on_another_chip_is_scaled_by_paper_speeds(
    seven_b: KernelJob,
) -> None:
    job = with_measurement(seven_b, seconds=2.0, chip=H100)
    plan = kernel_plan.build_plan(job)
    assert plan.notes[0].endswith("in follow on H100, scaled")
    encode = plan.steps["encode"]
    assert encode.upper / encode.lower > 4
    slow = likely(with_measurement(seven_b, seconds=4.0, chip=H100))
    assert slow == pytest.approx(2 * encode.expected)
    assert encode.expected > 5 * 2.0 * plan.tokens.expected / 80_000 / 2


def test_two_measured_processes_count_as_two_gpus(seven_b: KernelJob) -> None:
    single, double = (
        likely(with_measurement(seven_b, seconds=40.0, processes=count)) for count in (1, 2)
    )
    assert double == pytest.approx(2 * single)


def test_a_cpus_speed_does_not_predict_a_gpus(seven_b: KernelJob) -> None:
    plain = with_encoder(seven_b, quantize="4bit")
    job = with_measurement(seven_b, seconds=4000.0, chip=CPU, precision="fp32", is_four_bit=False)
    assert kernel_plan.build_plan(job).steps == kernel_plan.build_plan(plain).steps
    assert "a CPU's speed does not predict" in kernel_plan.build_plan(job).notes[0]


def test_a_measurement_of_few_tokens_is_ignored(seven_b: KernelJob) -> None:
    job = with_measurement(seven_b, seconds=40.0)
    few = replace(job, measurements=(replace(job.measurements[0], tokens=300),))
    assert kernel_plan.build_plan(few).notes[0].startswith("speed: not measured")


def test_the_same_chip_counts_before_more_tokens_on_another_chip(seven_b: KernelJob) -> None:
    job = with_measurement(seven_b, seconds=40.0)
    other = replace(job.measurements[0], chip=H100, tokens=8_000_000, packs=2000, seconds=60.0)
    with_two = replace(job, measurements=(other, *job.measurements))
    assert kernel_plan.build_plan(with_two).notes == kernel_plan.build_plan(job).notes


def test_the_package_is_hashed_too(seven_b: KernelJob) -> None:
    job = replace(with_encoder(seven_b, quantize="4bit"), package_bytes=10 * 10**9)
    with_package = kernel_plan.build_plan(job).steps["hash"] + costs.exact(0)
    without_package = kernel_plan.build_plan(replace(job, package_bytes=0)).steps["hash"]
    assert with_package.lower - without_package.lower == pytest.approx(10 / 1.2)


def test_a_base_stored_in_four_bits_is_planned_in_four_bits(
    seven_b: KernelJob, tmp_path: Path
) -> None:
    packed = replace(seven_b, shape=replace(seven_b.shape, packed=True))
    assert "weights in 4 bits" in kernel_plan.build_plan(packed).title
