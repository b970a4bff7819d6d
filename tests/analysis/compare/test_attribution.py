"""Parts of a gap add up exactly; rows of one side and the unseen share are parts of their own."""

import json
from fractions import Fraction

import numpy as np
import pytest

from parity.analysis.compare import attribution
from parity.analysis.compare.attribution import Attribution, Swap
from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import estimate
from parity.run.config.scoring import ScoringConfig

SCORING = ScoringConfig(bootstrap=200)
Rows = dict[QueryId, float]


def values(seed: int, rows: range = range(60), rise: float = 0.0) -> Rows:
    draws = np.random.default_rng(seed).random(200)
    return {QueryId(f"{n // 2}_{'AB'[n % 2]}"): draws[n] / 3 + rise for n in rows}


def attribute(a: Rows, b: Rows, *swaps: tuple[str, Rows]) -> Attribution:
    steps = [Swap(layer, layer, scores) for layer, scores in swaps]
    return attribution.attribute(a, b, steps, SCORING, metric="MAP@25")


def layers(result: Attribution) -> list[str]:
    return [step.layer for step in result.steps]


def is_exact(result: Attribution) -> bool:
    """Return whether parts add up to the gap in exact arithmetic, and in floats in both orders."""
    parts = [step.part.value for step in result.steps]
    adds_up = sum(map(Fraction, parts)) == Fraction(result.gap)
    return adds_up and sum(parts) == sum(reversed(parts)) == result.gap


@pytest.mark.parametrize("seed", range(20))
def test_parts_and_remainder_add_up_to_the_gap_exactly(seed: int) -> None:
    a, x, y, b = (values(seed + 1000 * n) for n in range(4))
    result = attribute(a, b, ("", a), ("base", x), ("adapter", y))
    assert layers(result) == ["base", "adapter", "remainder"]
    assert is_exact(result)
    assert result.steps[-1].after == result.end


def test_a_swap_without_effect_has_a_part_of_zero_width() -> None:
    a, b = values(0), values(0, rise=-0.1)
    result = attribute(a, b, ("", a), ("base", b), ("adapter", b))
    base, adapter, remainder = (step.part for step in result.steps)
    assert base.value == pytest.approx(-0.1)
    assert (base.low, base.high) == pytest.approx((-0.1, -0.1))
    assert (adapter.value, adapter.low, adapter.high) == (0, 0, 0)
    assert (remainder.value, remainder.low, remainder.high) == (0, 0, 0)


def test_the_interval_of_a_part_is_the_paired_one() -> None:
    a, b = values(0), values(1)
    part = attribute(a, b, ("", a), ("base", b)).steps[0].part
    paired = estimate({row: b[row] - a[row] for row in a}, frozenset(), SCORING).all
    assert (part.low, part.high) == (paired.low, paired.high)
    assert part.value == pytest.approx(paired.value, abs=1e-11)


def test_a_score_that_is_not_reproduced_goes_to_the_remainder() -> None:
    a, b, repeated = values(0), values(1), values(0, rise=0.01)
    result = attribute(a, b, ("", repeated), ("base", b))
    assert result.steps[-1].part.value == pytest.approx(0.01)
    assert is_exact(result)


def test_a_change_without_a_swap_goes_to_the_remainder() -> None:
    a, x, b = (values(n) for n in range(3))
    drift = {row: value + 0.01 for row, value in x.items()}
    result = attribute(a, b, ("", a), ("base", x), ("", drift), ("adapter", b))
    assert layers(result) == ["base", "adapter", "remainder"]
    part = result.steps[-1].part
    assert (part.low, part.value, part.high) == pytest.approx((0.01, 0.01, 0.01))
    assert is_exact(result)


def test_without_swaps_the_gap_is_the_remainder() -> None:
    result = attribute(values(0), values(1))
    assert [step.part.value for step in result.steps] == [result.gap]


def test_rows_of_one_side_are_left_out_first_or_added_last() -> None:
    a, b = values(0, range(60)), values(1, range(20, 80))
    common_a, common_b = ({row: rows[row] for row in a.keys() & b.keys()} for rows in (a, b))
    result = attribute(a, b, ("", common_a), ("base", common_b))
    assert layers(result) == ["rows", "base", "rows", "remainder"]
    assert result.rows == 40
    assert result.steps[0].after == pytest.approx(np.mean(list(common_a.values())))
    assert result.steps[1].after == pytest.approx(np.mean(list(common_b.values())))
    assert result.steps[-1].part.value == 0
    assert is_exact(result)


def test_the_interval_of_rows_left_out_is_that_of_a_plain_bootstrap() -> None:
    """The reference draws questions and computes both means for each draw."""
    a, common = values(0, range(120)), values(0, range(60))
    result = attribution.attribute(a, common, [], ScoringConfig(bootstrap=2000), metric="MAP@25")
    part = result.steps[0].part
    rows = np.array([[a[QueryId(f"{n}_{answer}")] for answer in "AB"] for n in range(60)])
    is_extra = np.arange(60) >= 30
    generator, draws = np.random.default_rng(5), []
    for _ in range(2000):
        units = generator.integers(60, size=60)
        means = [rows[units][mask].mean() for mask in (~is_extra[units], is_extra[units])]
        draws.append((means[0] - means[1]) / 2)
    low, high = np.percentile(draws, [2.5, 97.5])
    assert (part.low, part.high) == pytest.approx((low, high), abs=0.004)
    assert part.low < part.value < part.high


def test_a_leaderboard_score_has_the_unseen_share_as_a_part() -> None:
    a = values(0)
    unseen = frozenset(list(a)[:20])
    result = attribution.of_number(a, unseen, 0.1, SCORING, metric="MAP@25")
    projection = estimate(a, unseen, SCORING).projection
    assert projection is not None
    assert result.steps[0].after == pytest.approx(projection.value, abs=1e-11)
    part = result.steps[1].part
    assert (part.low, part.high) == (0.1 - projection.high, 0.1 - projection.low)
    assert is_exact(result)


@pytest.mark.parametrize("count", [0, 60])
def test_without_seen_or_unseen_rows_there_is_only_a_remainder(count: int) -> None:
    a = values(0)
    unseen = frozenset(list(a)[:count])
    result = attribution.of_number(a, unseen, 0.1, SCORING, metric="MAP@25")
    assert layers(result) == ["remainder"]
    assert result.notes[0].startswith("no projection")
    assert is_exact(result)


def test_an_attribution_fits_80_columns_and_is_plain_json() -> None:
    a, b = values(0, range(60)), values(1, range(20, 80))
    common_a, common_b = ({row: rows[row] for row in a.keys() & b.keys()} for rows in (a, b))
    swaps = [Swap("", "", common_a), Swap("template", "query and more " * 12, common_b)]
    result = attribution.attribute(a, b, swaps, SCORING, metric="MAP@25")
    name = "a-run-with-a-rather-long-name-that-goes-on-and-on/round-0/cv/best"
    lines = attribution.text(result, name, name).splitlines()
    assert max(map(len, lines)) <= 78
    assert json.loads(json.dumps(result.as_json()))["steps"][1]["layer"] == "template"
