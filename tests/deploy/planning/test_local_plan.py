"""What this machine will be asked: a table of 80 columns, bounds that follow what was seen."""

import json
from dataclasses import replace

import pytest

from parity.deploy.planning import devices, local_plan
from parity.deploy.planning.local_plan import LocalJob, MeasuredSpeed, TextList
from parity.retrieval.models.shape import ModelShape
from parity.run.config.run_file import EncoderConfig, TrainingConfig

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
H100 = devices.machine("NVIDIA H100 80GB HBM3, 81559 MiB", cpus=16, ram=128 << 30)
LISTS = (
    TextList("mine corpus", "base", 2_587, 38_805, 33_120, 3, 16_384),
    TextList("mine queries", "base", 1_000_000, 200_000_000, 41_000_000, 2_510, 16_384),
    TextList("train epoch", "train", 40_000, 9_876_543, 1_234_567, 250, 6_000),
)


@pytest.fixture
def work() -> LocalJob:
    training = TrainingConfig(r=32)
    encoder = EncoderConfig(precision="bf16", token_budget=16_384)
    lora = 32 * (SEVEN.inputs + SEVEN.outputs)
    return LocalJob("seven, round 0", H100, encoder, training, SEVEN, lora, LISTS)


def test_it_is_a_table_of_at_most_80_columns_with_what_it_took(work: LocalJob) -> None:
    took = {"mine corpus": -1.0, "mine queries": 5400.0}
    text = local_plan.make(replace(work, took=took, notes=("words " * 40,))).as_text()
    assert max(map(len, text.splitlines())) <= 80
    (corpus,) = (line for line in text.splitlines() if "mine corpus" in line)
    assert corpus.split()[2:7] == ["2,587", "38,805", "33,120", "3", "1.2×"]
    assert corpus.endswith("kept")
    (asked,) = (line for line in text.splitlines() if "mine queries" in line)
    assert asked.endswith("1.5 h")
    assert "encode mem" in text
    assert "train mem" in text


def test_what_gradcache_embeds_first_takes_a_forward_more(work: LocalJob) -> None:
    step = LISTS[2]
    twice = replace(step, again=step.packed)
    forward = replace(step, kind="adapter")
    whole, once, more = (local_plan._seconds(work, one).expected for one in (twice, step, forward))
    assert whole == pytest.approx(once + more)
    assert more > 0.2 * once


def test_it_is_told_to_a_program(work: LocalJob) -> None:
    told = json.loads(json.dumps(local_plan.make(work).as_json()))
    assert [one["packed"] for one in told["lists"]] == [33_120, 41_000_000, 1_234_567]
    assert told["seconds"]["train epoch"]["expected"] > 0
    assert {need["fits"] for need in told["needs"]} <= {"yes", "unsure", "no"}


def test_a_speed_seen_here_takes_the_place_of_paper(work: LocalJob) -> None:
    paper = local_plan.make(work)
    assert "not measured here" in " ".join(paper.notes)
    seen = MeasuredSpeed("mine", "base", 100_000, 10, 50.0)
    found = local_plan.make(replace(work, seen=(seen,)))
    expected = found.seconds["mine queries"].expected
    assert expected == pytest.approx(41_000_000 / 2_000, rel=0.2)
    assert expected > 5 * paper.seconds["mine queries"].expected
    assert any("2,000 tokens a second in mine, seen here" in note for note in found.notes)
    few = replace(seen, tokens=100, packs=1)
    assert local_plan.make(replace(work, seen=(few,))).seconds == paper.seconds


def test_a_training_step_costs_its_backward_and_once_more_with_checkpointing(
    work: LocalJob,
) -> None:
    lists = (LISTS[0], replace(LISTS[0], name="train", kind="train"))
    plain = local_plan.make(replace(work, lists=lists, lora=0)).seconds
    assert plain["train"].expected == pytest.approx(3 * plain["mine corpus"].expected)
    again = TrainingConfig(r=32, gradient_checkpointing=True)
    more = local_plan.make(replace(work, lists=lists, lora=0, training=again))
    assert more.seconds["train"].expected == pytest.approx(4 * plain["mine corpus"].expected)


def test_a_training_seen_here_tells_of_training_and_not_of_encoding(work: LocalJob) -> None:
    encoding = MeasuredSpeed("mine", "base", 100_000, 10, 50.0)
    training = MeasuredSpeed("train", "train", 900_000, 180, 600.0)
    from_encoding = local_plan.make(replace(work, seen=(encoding,)))
    both = local_plan.make(replace(work, seen=(encoding, training)))
    expected = both.seconds["train epoch"]
    assert expected.expected == pytest.approx(1_234_567 / 1_500, rel=0.2)
    assert from_encoding.seconds["train epoch"].expected > 1.5 * expected.expected
    assert expected.upper < 1.5 * expected.expected  # margins of a speed that was seen
    assert both.seconds["mine queries"] == from_encoding.seconds["mine queries"]
    alone = local_plan.make(replace(work, seen=(training,)))
    assert alone.seconds["mine queries"] == local_plan.make(work).seconds["mine queries"]
    assert "not measured here" in " ".join(alone.notes)


def test_checkpointing_holds_less(work: LocalJob) -> None:
    _, plain = local_plan.make(work).needs
    again = TrainingConfig(r=32, gradient_checkpointing=True)
    _, less = local_plan.make(replace(work, training=again)).needs
    assert less.takes.upper < plain.takes.lower


def test_bytes_seen_here_take_the_place_of_shapes(work: LocalJob) -> None:
    guessed = local_plan.make(work).needs[0].takes
    found = local_plan.make(replace(work, nodes={"base": 4e6}))
    seen = found.needs[0].takes
    weights = 2 * (SEVEN.linear + SEVEN.other)
    # Vectors of a million texts, while they are put in order, are more than a pack is.
    assert seen.expected >= weights + 4e6 * 16_384
    assert seen.expected != guessed.expected
    assert "seen here" in " ".join(found.notes)


def test_the_largest_budget_that_fits_for_certain_is_named(work: LocalJob) -> None:
    lists = (replace(LISTS[0], held=1 << 20),)
    over = replace(work, lists=lists, nodes={"base": 1e6})
    found = local_plan.make(over)
    assert found.needs[0].fits == "no"
    assert any("packs of up to 32,768 tokens fit" in note for note in found.notes)
    none = local_plan.make(replace(over, nodes={"base": 1e12}))
    assert any("no pack fits" in note for note in none.notes)
