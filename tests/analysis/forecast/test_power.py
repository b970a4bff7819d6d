"""Rows that decide: the formula against simulated competitions, the spread against a bootstrap."""

import numpy as np
import pytest

from parity.analysis.forecast import power
from parity.competition.query import QueryId
from parity.run.config.run_file import ScoringConfig

SCORING = ScoringConfig(bootstrap=400)


def drawn(seed: int, questions: int, rows: int = 2, mean: float = 0.0) -> dict[QueryId, float]:
    """Draw differences of rows: part of each is its question's own."""
    generator = np.random.default_rng(seed)
    own = generator.normal(0, 0.3, (questions, 1))
    found = mean + own + generator.normal(0, 0.2, (questions, rows))
    return {QueryId(f"{n}_{'ABCD'[m]}"): found[n, m] for n, m in np.ndindex(questions, rows)}


def test_the_needed_rows_show_the_difference_four_times_in_five() -> None:
    """Simulated: so many rows in questions of two, and a 95 % interval each time."""
    deviation = float(np.sqrt(2 * (0.3**2 + 0.2**2 / 2)))  # of a row's part in the mean's error
    rows = power.needed(deviation, 0.1)
    assert rows is not None
    shown = 0
    for seed in range(400):
        apart = drawn(seed, rows // 2, mean=0.1)
        half = 1.96 * power.spread(apart) / len(apart) ** 0.5
        shown += np.mean(list(apart.values())) - half > 0
    assert shown / 400 == pytest.approx(power.POWER, abs=0.05)


def test_the_spread_is_that_of_the_bootstrap_over_questions() -> None:
    apart = drawn(3, 300)
    other = dict.fromkeys(apart, 0.0)
    found = power.compare(("a", apart), ("b", other), ScoringConfig(bootstrap=2000)).difference
    wide = (found.high - found.low) / (2 * 1.96) * len(apart) ** 0.5
    assert power.spread(apart) == pytest.approx(wide, rel=0.06)
    rows = float(np.std(list(apart.values())))
    assert power.spread(apart) > 1.2 * rows  # rows of one question go together


def test_a_difference_is_decided_where_its_interval_leaves_nothing_out() -> None:
    a = drawn(0, 200, mean=0.2)
    zero = dict.fromkeys(a, 0.0)
    sure = power.compare(("a", a), ("b", zero), SCORING)
    unsure = power.compare(("a", drawn(1, 20)), ("b", dict.fromkeys(drawn(1, 20), 0.0)), SCORING)
    assert (sure.decided, unsure.decided) == (True, False)
    assert sure.needed is not None
    assert sure.needed < sure.rows < 1000
    assert "?" in power.text([unsure])
    assert "1 of 2 not decided" in power.text([sure, unsure])


def test_equal_runs_are_decided_by_no_number_of_rows() -> None:
    a = drawn(0, 20)
    found = power.compare(("a", a), ("b", a), SCORING)
    assert (found.needed, found.decided) == (None, False)
    assert "over 1e6 ?" in power.text([found])


def test_scores_alone_are_taken_as_of_other_rows() -> None:
    found = power.unpaired(("a", 0.4716), ("b", 0.4516), 864, 0.4)
    assert found.difference.high - found.difference.value == pytest.approx(0.0377, abs=1e-4)
    assert not found.decided
    assert found.needed == power.needed(0.4 * 2**0.5, found.difference.value) == 6280


def test_long_names_that_begin_alike_are_told_apart() -> None:
    names = ("icl-unified-zeroshot-with", "icl-unified-zeroshot-none")
    told = power.text([power.unpaired((names[0], 0.4), (names[1], 0.3), 864, 0.4)])
    assert "icl-uni..hot-with icl-uni..hot-none " in told


def test_the_table_fits_eighty_columns() -> None:
    found = power.unpaired(("a" * 40, 0.9), ("b" * 40, 0.1000001), 123_456, 0.4)
    near = power.unpaired(("a" * 40, 0.1000001), ("b" * 40, 0.1), 12_345, 0.4)
    assert max(map(len, power.text([found, near]).splitlines())) <= 80
