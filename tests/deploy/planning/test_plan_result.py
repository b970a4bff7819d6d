"""A plan says yes, unsure or no, and why, to a person and to a program."""

import json

import pytest

from parity.deploy.planning.costs import Span
from parity.deploy.planning.plan_result import Need, Plan, refusal


def plan(*needs: Need, mends: tuple[str, ...] = ()) -> Plan:
    parts = {"start": Span(20, 60, 200), "encode": Span(5400, 7200, 90_000)}
    return Plan(
        "small, round 0: 16,000 queries on t4x2 (2 × T4, queries), fp16",
        Span(180_000, 205_000, 1_234_567_890),
        parts,
        needs,
        ("speed: not measured; " + "words " * 30,),
        mends,
    )


def hours(lower: float, likely: float, upper: float) -> Need:
    return Need("time", "s", Span(lower, likely, upper).scaled(3600), 9 * 3600)


def bytes_(lower: float, likely: float, upper: float) -> Need:
    return Need("GPU memory", "B", Span(lower, likely, upper).scaled(1e9), 15.68e9)


FITTING, UNSURE, OVER = hours(1, 2, 8.9), bytes_(12, 15, 17), bytes_(15.9, 17, 20)


@pytest.mark.parametrize(
    ("needs", "fits"),
    [
        ((FITTING,), "yes"),
        ((FITTING, UNSURE), "unsure"),
        ((OVER, FITTING, UNSURE), "no"),
        ((hours(9, 9, 9),), "yes"),
        ((hours(9, 9, 9.1),), "unsure"),
        ((hours(9.1, 9.2, 9.3),), "no"),
    ],
)
def test_it_fits_as_well_as_the_worst_of_its_needs(needs: tuple[Need, ...], fits: str) -> None:
    assert plan(*needs).fits == fits


def test_only_what_is_over_at_its_lower_bound_is_refused_in_one_line() -> None:
    assert refusal(plan(FITTING, UNSURE)) == ""
    mends = ("--set=encoder.quantize=4bit", "--set=encoder.parallelism=model")
    said = refusal(plan(hours(12, 13, 14), OVER, mends=mends))
    assert said == (
        "small, round 0: 16,000 queries on t4x2 (2 × T4, queries), fp16: time is at least "
        "12.0 h of 9.0 h and GPU memory is at least 15.90 GB of 15.68 GB; it may fit with "
        "--set=encoder.quantize=4bit or with --set=encoder.parallelism=model"
    )
    assert refusal(plan(OVER)).endswith("; it may fit with a smaller base")


def test_a_person_reads_it_in_eighty_columns() -> None:
    text = plan(FITTING, UNSURE, OVER).as_text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("small, round 0: 16,000 queries on t4x2")
    assert lines[-1] == "fits: no"
    (encode,) = (line for line in lines if "encode" in line)
    assert encode.split() == ["encode", "1.5", "h", "2.0", "h", "25.0", "h"]
    verdicts = [line.split()[-1] for line in lines if line.startswith(("  time", "  GPU"))]
    assert verdicts == ["yes", "unsure", "no"]


def test_a_program_reads_seconds_and_bytes() -> None:
    told = json.loads(json.dumps(plan(FITTING, UNSURE).as_json()))
    assert told["fits"] == "unsure"
    assert told["parts"]["start"] == {"lower": 20, "expected": 60, "upper": 200}
    assert told["tokens"]["expected"] == 205_000
    assert [(one["what"], one["unit"], one["fits"]) for one in told["needs"]] == [
        ("time", "s", "yes"),
        ("GPU memory", "B", "unsure"),
    ]
    assert told["needs"][1]["limit"] == 15.68e9
