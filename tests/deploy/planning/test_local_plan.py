"""Plans of this machine: a table of 80 columns, and bounds that follow measurements."""

import json
from dataclasses import replace

import pytest

from parity.deploy.planning import devices, local_plan
from parity.deploy.planning.local_plan import LocalJob, MeasuredSpeed, TextList
from parity.retrieval.models.shape import ModelShape
from parity.run.config.encoder import EncoderConfig
from parity.run.config.training import TrainingConfig

SEVEN = ModelShape(
    linear=6_979_321_856,
    other=262_409_216,
    inputs=32 * 38_912,
    outputs=32 * 43_008,
    largest=58_720_256,
    layers=32,
    width=4096,
    inner=14_336,
    heads=32,
    attention=4096,
    stored=14_483_000_000,
)
H100 = devices.local_machine("NVIDIA H100 80GB HBM3, 81559 MiB", cpus=16, ram=128 << 30)
LISTS = (
    TextList("mine corpus", "base", 2_587, 38_805, 33_120, 3, 16_384),
    TextList("mine queries", "base", 1_000_000, 200_000_000, 41_000_000, 2_510, 16_384),
    TextList("train epoch", "train", 40_000, 9_876_543, 1_234_567, 250, 6_000),
)


@pytest.fixture
def job() -> LocalJob:
    training = TrainingConfig(r=32)
    encoder = EncoderConfig(precision="bf16", token_budget=16_384)
    lora = 32 * (SEVEN.inputs + SEVEN.outputs)
    return LocalJob("seven, round 0", H100, encoder, training, SEVEN, lora, LISTS)


def test_the_table_has_at_most_80_columns_and_real_durations(job: LocalJob) -> None:
    seconds = {"mine corpus": -1.0, "mine queries": 5400.0}
    text = local_plan.build_plan(
        replace(job, actual_seconds=seconds, notes=("words " * 40,))
    ).as_text()
    assert max(map(len, text.splitlines())) <= 80
    (corpus,) = (line for line in text.splitlines() if "mine corpus" in line)
    assert corpus.split()[2:7] == ["2,587", "38,805", "33,120", "3", "1.2×"]
    assert corpus.endswith("cached")
    (queries,) = (line for line in text.splitlines() if "mine queries" in line)
    assert queries.endswith("1.5 h")
    assert "encode mem" in text
    assert "train mem" in text


def test_gradcache_costs_one_more_forward(job: LocalJob) -> None:
    step = LISTS[2]
    twice = replace(step, recomputed_tokens=step.packed_tokens)
    forward = replace(step, kind="adapter")
    with_gradcache, without_gradcache, forward_seconds = (
        local_plan._seconds(job, item).expected for item in (twice, step, forward)
    )
    assert with_gradcache == pytest.approx(without_gradcache + forward_seconds)
    assert forward_seconds > 0.2 * without_gradcache


def test_the_plan_is_plain_json(job: LocalJob) -> None:
    result = json.loads(json.dumps(local_plan.build_plan(job).as_json()))
    assert [item["packed_tokens"] for item in result["lists"]] == [33_120, 41_000_000, 1_234_567]
    assert result["seconds"]["train epoch"]["expected"] > 0
    assert {requirement["fits"] for requirement in result["requirements"]} <= {
        "yes",
        "unsure",
        "no",
    }


def test_a_measured_speed_replaces_the_paper_speed(job: LocalJob) -> None:
    paper = local_plan.build_plan(job)
    assert "not measured on this machine" in " ".join(paper.notes)
    measured = MeasuredSpeed("mine", "base", 100_000, 10, 50.0)
    plan = local_plan.build_plan(replace(job, measurements=(measured,)))
    expected = plan.seconds["mine queries"].expected
    assert expected == pytest.approx(41_000_000 / 2_000, rel=0.2)
    assert expected > 5 * paper.seconds["mine queries"].expected
    assert any(
        "2,000 tokens a second, measured in mine on this machine" in note for note in plan.notes
    )
    few = replace(measured, tokens=100, packs=1)
    assert local_plan.build_plan(replace(job, measurements=(few,))).seconds == paper.seconds


def test_a_training_step_costs_three_forwards_and_four_with_checkpointing(
    job: LocalJob,
) -> None:
    lists = (LISTS[0], replace(LISTS[0], name="train", kind="train"))
    plain = local_plan.build_plan(replace(job, lists=lists, lora_values=0)).seconds
    assert plain["train"].expected == pytest.approx(3 * plain["mine corpus"].expected)
    checkpointing = TrainingConfig(r=32, gradient_checkpointing=True)
    with_checkpointing = local_plan.build_plan(
        replace(job, lists=lists, lora_values=0, training=checkpointing)
    )
    assert with_checkpointing.seconds["train"].expected == pytest.approx(
        4 * plain["mine corpus"].expected
    )


def test_a_measured_training_predicts_training_but_not_encoding(job: LocalJob) -> None:
    encoding = MeasuredSpeed("mine", "base", 100_000, 10, 50.0)
    training = MeasuredSpeed("train", "train", 900_000, 180, 600.0)
    from_encoding = local_plan.build_plan(replace(job, measurements=(encoding,)))
    from_both = local_plan.build_plan(replace(job, measurements=(encoding, training)))
    expected = from_both.seconds["train epoch"]
    assert expected.expected == pytest.approx(1_234_567 / 1_500, rel=0.2)
    assert from_encoding.seconds["train epoch"].expected > 1.5 * expected.expected
    assert expected.upper < 1.5 * expected.expected  # margins of a measured speed
    assert from_both.seconds["mine queries"] == from_encoding.seconds["mine queries"]
    from_training = local_plan.build_plan(replace(job, measurements=(training,)))
    assert (
        from_training.seconds["mine queries"] == local_plan.build_plan(job).seconds["mine queries"]
    )
    assert "not measured on this machine" in " ".join(from_training.notes)


def test_checkpointing_takes_less_memory(job: LocalJob) -> None:
    _, plain = local_plan.build_plan(job).requirements
    checkpointing = TrainingConfig(r=32, gradient_checkpointing=True)
    _, with_checkpointing = local_plan.build_plan(replace(job, training=checkpointing)).requirements
    assert with_checkpointing.amount.upper < plain.amount.lower


def test_measured_bytes_replace_computed_ones(job: LocalJob) -> None:
    computed = local_plan.build_plan(job).requirements[0].amount
    plan = local_plan.build_plan(replace(job, bytes_per_token={"base": 4e6}))
    measured = plan.requirements[0].amount
    weights = 2 * (SEVEN.linear + SEVEN.other)
    # Vectors of a million texts, while they are put in order, are larger than a pack.
    assert measured.expected >= weights + 4e6 * 16_384
    assert measured.expected != computed.expected
    assert "measured on this machine" in " ".join(plan.notes)


def test_the_largest_budget_that_fits_at_the_upper_bound_is_printed(job: LocalJob) -> None:
    lists = (replace(LISTS[0], peak_tokens=1 << 20),)
    over = replace(job, lists=lists, bytes_per_token={"base": 1e6})
    plan = local_plan.build_plan(over)
    assert plan.requirements[0].fits == "no"
    assert any("packs of up to 32,768 tokens fit" in note for note in plan.notes)
    impossible = local_plan.build_plan(replace(over, bytes_per_token={"base": 1e12}))
    assert any("no pack fits" in note for note in impossible.notes)
