"""Intervals against scipy and against resampling written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import Interval, estimate
from parity.run.config.scoring import ScoringConfig
from parity.run.errors import BadData

MANY = ScoringConfig(bootstrap=20_000, seen_share=0.25)


def rows_of(seed: int, questions: int) -> tuple[dict[QueryId, float], frozenset[QueryId]]:
    """Return questions whose rows are alike, so that drawing rows would look too sure."""
    generator = np.random.default_rng(seed)
    values = {}
    for question in range(questions):
        level = generator.random()
        for answer in "ABCD"[: generator.integers(1, 4)]:
            values[QueryId(f"{question}_{answer}")] = float(level + generator.normal(0, 0.05))
    unseen = frozenset(row for row in values if generator.random() < 0.5)
    return values, unseen


def question_sums(rows: dict[QueryId, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sums: dict[str, list[float]] = {}
    for row, value in rows.items():
        sums.setdefault(row.split("_")[0], []).append(value)
    return (
        np.array([sum(part) for part in sums.values()]),
        np.array([float(len(part)) for part in sums.values()]),
    )


def test_the_interval_over_all_rows_is_that_of_scipy() -> None:
    values, unseen = rows_of(1, 40)
    sums, counts = question_sums(values)
    outside = stats.bootstrap(
        (sums, counts),
        lambda total, rows, axis: total.sum(axis=axis) / rows.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(5),
    ).confidence_interval
    result = estimate(values, unseen, MANY).all
    assert result.value == pytest.approx(np.mean(list(values.values())), abs=1e-12)
    assert result.low == pytest.approx(outside.low, abs=0.004)
    assert result.high == pytest.approx(outside.high, abs=0.004)


def test_slices_and_projection_are_those_of_resampling_written_out() -> None:
    values, unseen = rows_of(2, 30)
    questions = sorted({row.split("_")[0] for row in values})
    generator = np.random.default_rng(9)
    drawn: dict[str, list[float]] = {"seen": [], "unseen": [], "projection": []}
    for _ in range(3_000):
        picked = [questions[index] for index in generator.integers(30, size=30)]
        rows = [row for name in picked for row in values if row.startswith(f"{name}_")]
        seen = float(np.mean([values[row] for row in rows if row not in unseen]))
        new = float(np.mean([values[row] for row in rows if row in unseen]))
        drawn["seen"].append(seen)
        drawn["unseen"].append(new)
        drawn["projection"].append(0.25 * seen + 0.75 * new)
    result = estimate(values, unseen, MANY)
    for name, sample in drawn.items():
        interval = getattr(result, name)
        low, high = np.percentile(sample, [2.5, 97.5])
        assert interval.low == pytest.approx(low, abs=0.015)
        assert interval.high == pytest.approx(high, abs=0.015)


def test_drawing_questions_is_wider_than_drawing_rows() -> None:
    values, unseen = rows_of(3, 60)
    ungrouped = {QueryId(f"{index}_A"): value for index, value in enumerate(values.values())}
    together = estimate(values, unseen, MANY).all
    apart = estimate(ungrouped, frozenset(), MANY).all
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    values, unseen = rows_of(4, 25)
    first = estimate(values, unseen, ScoringConfig(seed=1))
    assert estimate(dict(reversed(values.items())), unseen, ScoringConfig(seed=1)) == first
    assert estimate(values, unseen, ScoringConfig(seed=2)) != first


@pytest.mark.parametrize("marked", [True, False])
def test_an_empty_slice_leaves_no_projection(marked: bool) -> None:
    values, _ = rows_of(5, 10)
    result = estimate(values, frozenset(values) if marked else frozenset(), ScoringConfig())
    assert result.projection is None
    assert (result.seen is None, result.unseen is None) == (marked, not marked)
    assert result.fewest == 10


def test_a_slice_of_one_question_is_counted_as_one() -> None:
    values, _ = rows_of(6, 20)
    result = estimate(values, frozenset([QueryId("3_A")]), ScoringConfig())
    assert result.fewest == 1
    assert result.unseen is not None
    assert result.unseen.low == result.unseen.high == values[QueryId("3_A")]
    assert estimate(values, frozenset([QueryId("3_A")]), ScoringConfig(seen_share=1.0)).fewest >= 19


@given(*[st.floats(allow_nan=False, allow_infinity=False)] * 3)
def test_an_interval_survives_json(value: float, low: float, high: float) -> None:
    interval = Interval(value, low, high)
    assert Interval.from_json(interval.as_json()) == interval


def test_an_interval_with_a_missing_end_is_refused() -> None:
    with pytest.raises(BadData, match="an interval needs the keys"):
        Interval.from_json({"value": 1.0, "low": 0.5})
