"""Correct a CV for a choice: the best of k epochs is in part the luckiest on these rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.analysis.forecast.score_slices import SEEN, UNSEEN, Floats, ScoreSlices
from parity.competition.query import QueryId, unit_of

_RESAMPLES = 2000
# A resample's noise comes on top of the noise that is in the means already, so that a choice among
# equal candidates has sqrt(2) times the spread of a first sample, and shows 1/sqrt(2) of its luck.
_FACTOR = np.sqrt(2)


def optimism(
    candidates: Sequence[Mapping[QueryId, float]],
    unseen: frozenset[QueryId],
    seen_share: float,
    seed: int = 0,
) -> Floats:
    """Return by how much the chosen candidate's seen and unseen means are too high, (2,) float64.

    In each resample of units the best candidate is chosen again; its mean there less its mean on
    all rows is what the choice gained by luck. One candidate, or one that is always the best, has
    no optimism.

    Args:
        candidates: score of each row for every candidate of the choice, all of the same rows.
        unseen: rows whose label train never shows.
        seen_share: p of the projection that the candidates are chosen by.
        seed: seed of the resamples.

    Source: the bootstrap estimate of optimism, Efron and Tibshirani 1993, ch. 17, for a choice.
    """
    if len(candidates) < 2:
        return np.zeros(2)
    rows = sorted(candidates[0])
    values = np.array([[candidate[row] for row in rows] for candidate in candidates])  # (k, n)
    column = np.array([UNSEEN if row in unseen else SEEN for row in rows])
    numbers: dict[str, int] = {}
    unit = np.array([numbers.setdefault(unit_of(row), len(numbers)) for row in rows])
    sums = np.zeros((len(numbers), len(candidates), 2))  # (u, k, 2)
    counts = np.zeros((len(numbers), 2))
    for part in (SEEN, UNSEEN):
        rows_of = column == part
        np.add.at(sums[:, :, part], unit[rows_of], values[:, rows_of].T)
        np.add.at(counts[:, part], unit[rows_of], 1)
    means = sums.sum(axis=0) / counts.sum(axis=0)  # (k, 2)
    generator = np.random.default_rng(seed)
    gains = []
    for _ in range(_RESAMPLES):
        drawn = generator.integers(len(numbers), size=len(numbers))
        rows_drawn = counts[drawn].sum(axis=0)
        if not rows_drawn.all():
            continue  # it says nothing about an empty slice
        resampled = sums[drawn].sum(axis=0) / rows_drawn  # (k, 2)
        chosen = int(
            np.argmax(seen_share * resampled[:, SEEN] + (1 - seen_share) * resampled[:, UNSEEN])
        )
        gains.append(resampled[chosen] - means[chosen])
    gain: Floats = _FACTOR * np.mean(gains, axis=0)
    return gain


def corrected(cv: ScoreSlices, optimism: Floats) -> ScoreSlices:
    """Return the slices of a CV without the gain of a choice; a mean stays in 0 to 1."""
    return replace(cv, mean=np.clip(cv.mean - optimism, 0.0, 1.0))
