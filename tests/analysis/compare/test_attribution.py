"""A gap in parts: sums to the last digit, rows of one side, weights by the unseen share."""

import json
from fractions import Fraction

import numpy as np
import pytest

from parity.analysis.compare import attribution
from parity.analysis.compare.attribution import Attribution, Step
from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import estimate
from parity.run.config.run_file import ScoringConfig

SCORING = ScoringConfig(bootstrap=200)


def values(seed: int, rows: range = range(60), rise: float = 0.0) -> dict[QueryId, float]:
    drawn = np.random.default_rng(seed).random(200)
    return {QueryId(f"{n // 2}_{'AB'[n % 2]}"): drawn[n] / 3 + rise for n in rows}


def swaps(*told: tuple[str, dict[QueryId, float]]) -> list[Step]:
    return [Step(layer, layer, found) for layer, found in told]


def whole(found: Attribution) -> bool:
    """Return whether parts give the gap in exact arithmetic, and in floats in either order."""
    parts = [rung.part.value for rung in found.rungs]
    exact = sum(map(Fraction, parts)) == Fraction(found.gap)
    return exact and sum(parts) == sum(reversed(parts)) == found.gap


@pytest.mark.parametrize("seed", range(20))
def test_parts_and_remainder_are_the_gap_to_the_last_digit(seed: int) -> None:
    a, x, y, b = (values(seed + 1000 * n) for n in range(4))
    found = attribution.attribute(a, b, swaps(("", a), ("one", x), ("two", y)), SCORING)
    assert [rung.layer for rung in found.rungs] == ["one", "two", "remainder"]
    assert whole(found)
    assert found.rungs[-1].after == found.end


def test_a_step_that_changes_nothing_has_no_part_and_no_width() -> None:
    a, b = values(0), values(0, rise=-0.1)
    found = attribution.attribute(a, b, swaps(("", a), ("one", b), ("two", b)), SCORING)
    one, two, rest = (rung.part for rung in found.rungs)
    assert one.value == pytest.approx(-0.1)
    assert (one.low, one.high) == pytest.approx((-0.1, -0.1))
    assert (two.value, two.low, two.high) == (rest.value, rest.low, rest.high) == (0, 0, 0)


def test_the_interval_of_a_step_is_the_paired_one() -> None:
    a, b = values(0), values(1)
    found = attribution.attribute(a, b, swaps(("", a), ("one", b)), SCORING).rungs[0].part
    paired = estimate({row: b[row] - a[row] for row in a}, frozenset(), SCORING).all
    assert (found.low, found.high) == (paired.low, paired.high)
    assert found.value == pytest.approx(paired.value, abs=1e-11)


def test_what_scoring_anew_does_not_give_again_is_the_remainder() -> None:
    a, b, again = values(0), values(1), values(0, rise=0.01)
    found = attribution.attribute(a, b, swaps(("", again), ("one", b)), SCORING)
    assert found.rungs[-1].part.value == pytest.approx(0.01)
    assert whole(found)


def test_what_moves_between_a_swap_and_a_side_scored_anew_is_the_remainder() -> None:
    a, x, b = (values(n) for n in range(3))
    drift = {row: value + 0.01 for row, value in x.items()}
    steps = swaps(("", a), ("one", x), ("", drift), ("two", b))
    found = attribution.attribute(a, b, steps, SCORING)
    assert [rung.layer for rung in found.rungs] == ["one", "two", "remainder"]
    rest = found.rungs[-1].part
    assert (rest.low, rest.value, rest.high) == pytest.approx((0.01, 0.01, 0.01))
    assert whole(found)


def test_without_steps_all_of_it_is_the_remainder() -> None:
    a, b = values(0), values(1)
    found = attribution.attribute(a, b, [], SCORING)
    assert [rung.part.value for rung in found.rungs] == [found.gap]


def test_rows_of_one_side_leave_first_and_come_last() -> None:
    a, b = values(0, range(60)), values(1, range(20, 80))
    mine, theirs = ({row: one[row] for row in a.keys() & b.keys()} for one in (a, b))
    found = attribution.attribute(a, b, swaps(("", mine), ("one", theirs)), SCORING)
    assert [rung.layer for rung in found.rungs] == ["rows", "one", "rows", "remainder"]
    assert found.rows == 40
    mean = {name: np.mean(list(one.values())) for name, one in (("a", mine), ("b", theirs))}
    assert found.rungs[0].after == pytest.approx(mean["a"])
    assert found.rungs[1].after == pytest.approx(mean["b"])
    assert found.rungs[-1].part.value == 0
    assert whole(found)


def test_the_interval_of_left_out_rows_is_that_of_a_plain_bootstrap() -> None:
    """The slow twin draws questions and takes both means anew, weight and all."""
    a, kept = values(0, range(120)), values(0, range(60))
    part = attribution.attribute(a, kept, [], ScoringConfig(bootstrap=2000)).rungs[0].part
    rows = np.array([[a[QueryId(f"{n}_{side}")] for side in "AB"] for n in range(60)])
    outside = np.arange(60) >= 30
    generator, drawn = np.random.default_rng(5), []
    for _ in range(2000):
        one = generator.integers(60, size=60)
        drawn.append((rows[one][~outside[one]].mean() - rows[one][outside[one]].mean()) / 2)
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (part.low, part.high) == pytest.approx((low, high), abs=0.004)
    assert part.low < part.value < part.high


def test_a_number_is_weighed_by_p_and_the_rest_is_left() -> None:
    a = values(0)
    unseen = frozenset(list(a)[:20])
    found = attribution.of_number(a, unseen, 0.1, SCORING)
    projection = estimate(a, unseen, SCORING).projection
    assert projection is not None
    assert found.rungs[0].after == pytest.approx(projection.value, abs=1e-11)
    rest = found.rungs[1].part
    assert (rest.low, rest.high) == (0.1 - projection.high, 0.1 - projection.low)
    assert whole(found)


@pytest.mark.parametrize("count", [0, 60])
def test_a_number_without_seen_or_unseen_rows_has_only_a_remainder(count: int) -> None:
    a = values(0)
    found = attribution.of_number(a, frozenset(list(a)[:count]), 0.1, SCORING)
    assert [rung.layer for rung in found.rungs] == ["remainder"]
    assert found.notes[0].startswith("no projection")
    assert whole(found)


def test_the_ladder_fits_eighty_columns_and_a_machine_reads_it() -> None:
    a, b = values(0, range(60)), values(1, range(20, 80))
    mine, theirs = ({row: one[row] for row in a.keys() & b.keys()} for one in (a, b))
    steps = [Step("", "", mine), Step("template", "query and more " * 12, theirs)]
    found = attribution.attribute(a, b, steps, SCORING)
    name = "a-run-with-a-rather-long-name-that-goes-on-and-on/round-0/cv/best"
    lines = attribution.text(found, name, name).splitlines()
    assert max(map(len, lines)) <= 78
    assert json.loads(json.dumps(found.as_json()))["rungs"][1]["layer"] == "template"
