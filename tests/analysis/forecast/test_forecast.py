"""Forecasts on simulated leaderboards: coverage of the intervals and sources of their width."""

from dataclasses import replace

import numpy as np
import pytest

from parity.analysis.forecast.forecast import SOURCES, Forecast, forecast
from parity.analysis.forecast.leaderboard import (
    CvToLbNoise,
    HiddenTest,
    LeaderboardPrior,
    ScorePair,
    SeenShare,
)
from parity.analysis.forecast.score_slices import ScoreSlices
from parity.run.errors import BadData

CV = ScoreSlices(np.array([0.5, 0.3]), np.array([4e-4, 2e-4]), np.array([300, 400]))
SURE = replace(CV, variance=np.zeros(2))
KNOWN = LeaderboardPrior(SeenShare.fixed(0.25), HiddenTest(np.inf), (), CvToLbNoise(0.0, 1e-9))
USUAL = LeaderboardPrior(SeenShare.beta(0.25, 12), HiddenTest(870.0))
POINT = 0.25 * 0.5 + 0.75 * 0.3


def width(result: Forecast) -> float:
    return result.wide[1] - result.wide[0]


def test_without_uncertainty_the_forecast_is_a_point() -> None:
    result = forecast(SURE, KNOWN)
    assert result.median == pytest.approx(POINT)
    assert width(result) < 1e-6
    assert result.half == pytest.approx(result.wide)


@pytest.mark.parametrize(
    ("cv", "board", "source"),
    [
        (CV, KNOWN, "cv"),
        (CV, replace(KNOWN, hidden=HiddenTest(500.0)), "hidden"),
        (SURE, replace(KNOWN, share=SeenShare.uniform(0.1, 0.4)), "share"),
        (SURE, replace(KNOWN, transfer=CvToLbNoise(0.05, 1e-9)), "transfer"),
        (SURE, replace(KNOWN, transfer=CvToLbNoise(0.0, 0.05)), "transfer"),
    ],
    ids=["cv", "hidden", "share", "factor", "residual"],
)
def test_each_source_alone_is_named(cv: ScoreSlices, board: LeaderboardPrior, source: str) -> None:
    result = forecast(cv, board)
    assert width(result) > 0.01
    assert set(result.sources) == set(SOURCES)
    assert sum(result.sources.values()) == pytest.approx(1)
    remainder = 1 - result.sources[source]
    assert (
        remainder < 1e-6 if source != "hidden" else 0 < remainder < 0.6
    )  # rows of the CV count too


def test_the_spread_of_the_cv_is_that_of_its_projection() -> None:
    result = forecast(CV, KNOWN, draws=100_000)
    error = np.sqrt(0.25**2 * 4e-4 + 0.75**2 * 2e-4)
    assert width(result) == pytest.approx(2 * 1.645 * error, rel=0.03)


def test_a_hidden_test_of_the_cv_s_size_adds_the_same_uncertainty() -> None:
    equal = replace(CV, rows=np.array([175, 525]))  # a quarter of them seen
    result = forecast(equal, replace(KNOWN, hidden=HiddenTest(700.0)))
    assert result.sources["hidden"] == pytest.approx(0.5, abs=1e-3)


def test_labels_that_training_excluded_are_unseen_in_the_hidden_test() -> None:
    assert forecast(SURE, KNOWN, covered=0.5).median == pytest.approx(0.125 * 0.5 + 0.875 * 0.3)


def test_the_same_seed_gives_the_same_forecast() -> None:
    assert forecast(CV, USUAL, seed=3) == forecast(CV, USUAL, seed=3)
    assert forecast(CV, USUAL, seed=3) != forecast(CV, USUAL, seed=4)


def test_json_restores_the_forecast() -> None:
    result = forecast(CV, replace(USUAL, pairs=[ScorePair(0.4, 0.2, 0.25)]))
    assert Forecast.from_json(result.as_json()) == result
    with pytest.raises(BadData, match="a forecast needs the keys"):
        Forecast.from_json({"median": 0.3})


def test_pairs_estimate_the_common_factor_and_narrow_the_forecast() -> None:
    pairs = [
        ScorePair(seen, 0.3, 0.85 * (0.25 * seen + 0.75 * 0.3)) for seen in (0.35, 0.4, 0.45, 0.6)
    ]
    before = forecast(CV, replace(USUAL, share=SeenShare.fixed(0.25)))
    after = forecast(CV, replace(USUAL, share=SeenShare.fixed(0.25), pairs=pairs))
    assert after.pairs == 4
    assert after.median == pytest.approx(0.85 * POINT, rel=0.04)
    assert width(after) < 0.7 * width(before)


def test_a_pair_on_other_rows_narrows_less() -> None:
    board = replace(USUAL, pairs=[ScorePair(0.5, 0.3, 0.3)])
    other = replace(board, pairs=[ScorePair(0.5, 0.3, 0.3, other=True)])
    noisy = replace(CV, variance=CV.variance * 10)
    assert width(forecast(noisy, board)) < width(forecast(noisy, other))


def test_pairs_estimate_the_seen_share_where_seen_and_unseen_differ() -> None:
    wide = replace(USUAL, share=SeenShare.uniform(0, 1), transfer=CvToLbNoise(0.01, 0.01))
    pairs = [ScorePair(seen, 0.2, 0.4 * seen + 0.6 * 0.2) for seen in (0.3, 0.5, 0.8)]
    result = forecast(SURE, replace(wide, pairs=pairs, hidden=HiddenTest(1e6)))
    assert result.share[0] == pytest.approx(0.4, abs=0.02)


def test_intervals_cover_their_levels_where_the_model_is_true() -> None:
    """200 leaderboards drawn from the prior, three pairs on the CV's rows before each forecast."""
    draw, covered = np.random.default_rng(0), np.zeros(2)
    worlds = 200
    for seed in range(worlds):
        p, c = draw.beta(3, 9), 0.9
        shared = draw.normal(0, USUAL.transfer.factor)
        truth = np.array([draw.uniform(0.4, 0.6), draw.uniform(0.2, 0.3)])
        weight = np.array([c * p, 1 - c * p])
        common = weight @ (np.sqrt(CV.variance) * draw.normal(size=2))  # the CV's rows
        common += np.sqrt(weight @ (CV.variance * CV.rows) / 870) * draw.normal()  # hidden rows
        shared += common / (weight @ truth)
        spread = USUAL.transfer.residual * 2 ** draw.normal()
        scores = [
            (scale * truth, float(weight @ truth) * scale * np.exp(shared + spread * draw.normal()))
            for scale in (0.7, 0.8, 0.9, 1.0)
        ]
        pairs = [
            ScorePair(float(seen), float(unseen), score, c) for (seen, unseen), score in scores[:3]
        ]
        slices, score = scores[3]
        board = replace(USUAL, pairs=pairs)
        result = forecast(replace(CV, mean=slices), board, covered=c, seed=seed, draws=2000)
        covered += [low <= score <= high for low, high in (result.half, result.wide)]
    assert covered / worlds == pytest.approx((0.5, 0.9), abs=0.07)
