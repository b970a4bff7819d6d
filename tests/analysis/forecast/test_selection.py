"""The luck of the best of several epochs is estimated and taken off a CV."""

from collections.abc import Sequence

import numpy as np
import pytest

from parity.analysis.forecast import score_slices, selection
from parity.competition.query import Position, QueryId

QUESTIONS, SHARE = 60, 0.25
ROWS = [QueryId(f"{number}_{answer}") for number in range(QUESTIONS) for answer in "AB"]
UNSEEN = frozenset(ROWS[: len(ROWS) * 3 // 4])


def epochs(generator: np.random.Generator, means: Sequence[float]) -> list[dict[QueryId, float]]:
    """Return row scores of epochs that share most of their noise, with these true means."""
    shared = 0.15 * generator.standard_normal(len(ROWS))
    return [
        dict(zip(ROWS, mean + shared + 0.15 * generator.standard_normal(len(ROWS)), strict=True))
        for mean in means
    ]


def projection(values: dict[QueryId, float]) -> float:
    slices = [[v for row, v in values.items() if (row in UNSEEN) == part] for part in (False, True)]
    return float(SHARE * np.mean(slices[0]) + (1 - SHARE) * np.mean(slices[1]))


@pytest.mark.parametrize("count", [2, 5, 12])
def test_the_mean_of_the_best_of_equal_epochs_is_right_after_the_correction(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_RESAMPLES", 200)
    generator = np.random.default_rng(count)
    naive, corrected = [], []
    for draw in range(120):
        candidates = epochs(generator, [0.5] * count)
        best = max(candidates, key=projection)
        gain = selection.optimism(candidates, UNSEEN, SHARE, seed=draw)
        truth = 0.5 + np.mean([projection(item) - 0.5 for item in candidates])
        naive.append(projection(best) - truth)
        corrected.append(projection(best) - SHARE * gain[0] - (1 - SHARE) * gain[1] - truth)
    assert np.mean(naive) > 0.004
    assert abs(np.mean(corrected)) < 0.25 * np.mean(naive)


def test_an_epoch_that_is_clearly_the_best_was_not_lucky() -> None:
    candidates = epochs(np.random.default_rng(0), [0.5, 0.9, 0.4])
    assert np.abs(selection.optimism(candidates, UNSEEN, SHARE)).max() < 2e-3


def test_one_epoch_was_not_chosen() -> None:
    candidates = epochs(np.random.default_rng(0), [0.5])
    assert selection.optimism(candidates, UNSEEN, SHARE).tolist() == [0.0, 0.0]


def test_the_order_of_rows_and_epochs_does_not_matter() -> None:
    candidates = epochs(np.random.default_rng(0), [0.5, 0.5, 0.5])
    turned = [dict(reversed(item.items())) for item in reversed(candidates)]
    first, second = (selection.optimism(item, UNSEEN, SHARE) for item in (candidates, turned))
    np.testing.assert_allclose(first, second, atol=1e-12)


def test_a_corrected_mean_stays_in_its_range() -> None:
    values = dict.fromkeys(ROWS, 0.01)
    labels = {row: frozenset({Position(number % 7)}) for number, row in enumerate(ROWS)}
    cv = score_slices.of(values, labels, UNSEEN, {row: row for row in ROWS})
    corrected = selection.corrected(cv, np.array([0.5, -2.0]))
    assert corrected.mean.tolist() == [0.0, 1.0]
    assert corrected.variance.tolist() == cv.variance.tolist()
