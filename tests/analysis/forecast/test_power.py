"""Needed rows against simulated competitions, and the spread against a bootstrap."""

import numpy as np
import pytest

from parity.analysis.forecast import power
from parity.competition.query import QueryId
from parity.run.config.scoring import ScoringConfig

SCORING = ScoringConfig(bootstrap=400)


def drawn(seed: int, questions: int, rows: int = 2, mean: float = 0.0) -> dict[QueryId, float]:
    """Draw differences of rows, which are correlated within a question."""
    generator = np.random.default_rng(seed)
    of_question = generator.normal(0, 0.3, (questions, 1))
    values = mean + of_question + generator.normal(0, 0.2, (questions, rows))
    return {QueryId(f"{n}_{'ABCD'[m]}"): values[n, m] for n, m in np.ndindex(questions, rows)}


def test_the_needed_rows_show_the_difference_with_the_stated_power() -> None:
    """Each simulated competition has the needed rows, in questions of two."""
    deviation = float(np.sqrt(2 * (0.3**2 + 0.2**2 / 2)))  # of a row's part in the mean's error
    rows = power.needed(deviation, 0.1)
    assert rows is not None
    shown = 0
    for seed in range(400):
        differences = drawn(seed, rows // 2, mean=0.1)
        half = 1.96 * power.spread(differences) / len(differences) ** 0.5
        shown += np.mean(list(differences.values())) - half > 0
    assert shown / 400 == pytest.approx(power.POWER, abs=0.05)


def test_the_spread_is_that_of_the_bootstrap_over_questions() -> None:
    differences = drawn(3, 300)
    other = dict.fromkeys(differences, 0.0)
    result = power.compare(
        ("a", differences), ("b", other), ScoringConfig(bootstrap=2000)
    ).difference
    wide = (result.high - result.low) / (2 * 1.96) * len(differences) ** 0.5
    assert power.spread(differences) == pytest.approx(wide, rel=0.06)
    rows = float(np.std(list(differences.values())))
    assert power.spread(differences) > 1.2 * rows  # rows of one question are correlated


def test_a_difference_is_decided_where_its_interval_excludes_zero() -> None:
    a = drawn(0, 200, mean=0.2)
    zero = dict.fromkeys(a, 0.0)
    sure = power.compare(("a", a), ("b", zero), SCORING)
    unsure = power.compare(("a", drawn(1, 20)), ("b", dict.fromkeys(drawn(1, 20), 0.0)), SCORING)
    assert (sure.is_decided, unsure.is_decided) == (True, False)
    assert sure.needed is not None
    assert sure.needed < sure.rows < 1000
    assert "?" in power.text([unsure])
    assert "1 of 2 not decided" in power.text([sure, unsure])


def test_no_number_of_rows_decides_between_equal_runs() -> None:
    a = drawn(0, 20)
    result = power.compare(("a", a), ("b", a), SCORING)
    assert (result.needed, result.is_decided) == (None, False)
    assert "over 1e6 ?" in power.text([result])


def test_scores_without_rows_count_as_independent() -> None:
    result = power.unpaired(("a", 0.4716), ("b", 0.4516), 864, 0.4)
    assert result.difference.high - result.difference.value == pytest.approx(0.0377, abs=1e-4)
    assert not result.is_decided
    assert result.needed == power.needed(0.4 * 2**0.5, result.difference.value) == 6280


def test_long_names_keep_their_end() -> None:
    names = ("icl-unified-zeroshot-with", "icl-unified-zeroshot-none")
    text = power.text([power.unpaired((names[0], 0.4), (names[1], 0.3), 864, 0.4)])
    assert "icl-uni..hot-with icl-uni..hot-none " in text


def test_the_table_fits_eighty_columns() -> None:
    result = power.unpaired(("a" * 40, 0.9), ("b" * 40, 0.1000001), 123_456, 0.4)
    near = power.unpaired(("a" * 40, 0.1000001), ("b" * 40, 0.1), 12_345, 0.4)
    assert max(map(len, power.text([result, near]).splitlines())) <= 80
