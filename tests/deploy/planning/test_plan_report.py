"""A plan answers yes, unsure or no, with reasons, as text and as JSON."""

import json

import pytest

from parity.deploy.planning.costs import CostEstimate
from parity.deploy.planning.plan_report import KernelPlan, Requirement, refusal


def plan(*requirements: Requirement, fixes: tuple[str, ...] = ()) -> KernelPlan:
    steps = {"start": CostEstimate(20, 60, 200), "encode": CostEstimate(5400, 7200, 90_000)}
    return KernelPlan(
        "small, round 0: 16,000 queries on t4x2 (2 × T4, queries), fp16",
        CostEstimate(180_000, 205_000, 1_234_567_890),
        steps,
        requirements,
        ("speed: not measured; " + "words " * 30,),
        fixes,
    )


def hours(lower: float, likely: float, upper: float) -> Requirement:
    return Requirement("time", "s", CostEstimate(lower, likely, upper).scaled(3600), 9 * 3600)


def bytes_(lower: float, likely: float, upper: float) -> Requirement:
    return Requirement("GPU memory", "B", CostEstimate(lower, likely, upper).scaled(1e9), 15.68e9)


FITTING, UNSURE, OVER = hours(1, 2, 8.9), bytes_(12, 15, 17), bytes_(15.9, 17, 20)


@pytest.mark.parametrize(
    ("requirements", "fits"),
    [
        ((FITTING,), "yes"),
        ((FITTING, UNSURE), "unsure"),
        ((OVER, FITTING, UNSURE), "no"),
        ((hours(9, 9, 9),), "yes"),
        ((hours(9, 9, 9.1),), "unsure"),
        ((hours(9.1, 9.2, 9.3),), "no"),
    ],
)
def test_a_plan_fits_as_well_as_its_worst_requirement(
    requirements: tuple[Requirement, ...], fits: str
) -> None:
    assert plan(*requirements).fits == fits


def test_a_plan_over_a_limit_at_its_lower_bound_is_refused_in_one_line() -> None:
    assert refusal(plan(FITTING, UNSURE)) == ""
    fixes = ("--set=encoder.quantize=4bit", "--set=encoder.parallelism=model")
    message = refusal(plan(hours(12, 13, 14), OVER, fixes=fixes))
    assert message == (
        "small, round 0: 16,000 queries on t4x2 (2 × T4, queries), fp16: time is at least "
        "12.0 h of 9.0 h and GPU memory is at least 15.90 GB of 15.68 GB. It may fit with "
        "--set=encoder.quantize=4bit or with --set=encoder.parallelism=model"
    )
    assert refusal(plan(OVER)).endswith(". It may fit with a smaller base")


def test_the_table_has_at_most_80_columns() -> None:
    text = plan(FITTING, UNSURE, OVER).as_text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("small, round 0: 16,000 queries on t4x2")
    assert lines[-1] == "fits: no"
    (encode,) = (line for line in lines if "encode" in line)
    assert encode.split() == ["encode", "1.5", "h", "2.0", "h", "25.0", "h"]
    results = [line.split()[-1] for line in lines if line.startswith(("  time", "  GPU"))]
    assert results == ["yes", "unsure", "no"]


def test_json_has_seconds_and_bytes() -> None:
    result = json.loads(json.dumps(plan(FITTING, UNSURE).as_json()))
    assert result["fits"] == "unsure"
    assert result["steps"]["start"] == {"lower": 20, "expected": 60, "upper": 200}
    assert result["tokens"]["expected"] == 205_000
    assert [(item["resource"], item["unit"], item["fits"]) for item in result["requirements"]] == [
        ("time", "s", "yes"),
        ("GPU memory", "B", "unsure"),
    ]
    assert result["requirements"][1]["limit"] == 15.68e9
