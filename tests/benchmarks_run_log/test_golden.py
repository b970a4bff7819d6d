"""The backtest on the diary's log: its numbers, and that no training predicts itself."""

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.run_log import golden
from benchmarks.run_log.golden import SECOND, Backtest, Pairs
from parity.run import digest
from parity.run.errors import BadData

FIXED = "ade15b7b"
"""First digits of the table's digest: it was fixed before any model was fitted."""
SEED = Path(__file__).parents[3] / "shared" / "seed" / "runs.csv"
Floats = NDArray[np.float64]


def run_backtest(
    cv: Floats, lb: Floats, shift: Floats, families: list[str] | None = None
) -> dict[str, Backtest]:
    names = families or [f"f{n}" for n in range(len(cv))]
    return golden.backtest(Pairs(np.array(names), cv, lb, shift))


def test_the_table_is_the_one_that_was_fixed() -> None:
    assert digest.of_file(golden.TABLE)[:8] == FIXED


@pytest.mark.skipif(not SEED.is_file(), reason="the seed data is missing")
def test_its_scores_are_those_of_the_log() -> None:
    with SEED.open(encoding="utf-8", newline="") as file:
        log = list(csv.DictReader(file))
    with golden.TABLE.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["row"]) for row in table] == [
        n for n, row in enumerate(log) if row["lb_public"]
    ]
    for row in table:
        logged = log[int(row["row"])]
        assert (row["run"], row["lb"], row["cv"]) == (
            logged["run"],
            logged["lb_public"],
            logged["cv_map25"],
        )


def test_the_backtest_gives_the_published_numbers() -> None:
    results = golden.backtest(golden.read_pairs())
    rounded = {
        name: (round(result.rmse, 4), *(round(share, 3) for share in result.covered))
        for name, result in results.items()
    }
    assert rounded == {
        "LB = CV": (0.1022, 0.357, 1.0),
        "line on CV": (0.0282, 0.643, 0.929),
        "seen share": (0.0316, 0.75, 0.893),
        SECOND: (0.0218, 0.607, 0.857),
    }


def test_the_log_does_not_show_that_the_second_attempt_is_better() -> None:
    pairs = golden.read_pairs()
    results = golden.backtest(pairs)
    second = golden.gap(pairs, results[SECOND], results[golden.LINE])
    assert second.value == pytest.approx(0.0064, abs=1e-4)
    assert second.low < 0 < second.high
    assert second.needed > len(np.unique(pairs.family))


def test_the_intervals_cover_their_levels_where_the_model_is_true() -> None:
    draw = np.random.default_rng(0)
    cv, shift = draw.uniform(0.2, 0.6, 120), draw.uniform(0, 0.2, 120)
    lb = cv - 0.7 * shift + draw.normal(0, 0.02, 120)
    result = run_backtest(cv, lb, shift)["seen share"]
    assert result.rmse == pytest.approx(0.02, abs=0.002)
    assert result.covered == pytest.approx((0.5, 0.9), abs=0.06)


def test_factors_by_model_beat_the_line_where_the_model_is_true() -> None:
    draw = np.random.default_rng(0)
    cv, shift = draw.uniform(0.2, 0.6, 80), draw.uniform(0, 0.2, 80)
    families = [f"{'abcdefgh'[n % 8]}-{n}" for n in range(80)]
    effect = np.exp(draw.normal(0, 0.1, 8))[np.arange(80) % 8]
    lb = 0.9 * effect * (cv - 0.7 * shift) * np.exp(draw.normal(0, 0.03, 80))
    results = run_backtest(cv, lb, shift, families)
    assert results[SECOND].rmse < 0.5 * results["line on CV"].rmse
    assert results[SECOND].rmse < 0.7 * results["seen share"].rmse
    assert results[SECOND].covered == pytest.approx((0.5, 0.9), abs=0.1)


def test_factors_agree_with_generalized_least_squares() -> None:
    """The reference uses the full covariance of the pairs."""
    draw = np.random.default_rng(2)
    model = np.array([0, 0, 0, 1, 1, 2])
    off, weight, ratio = draw.normal(0, 0.1, 6), draw.uniform(0.2, 1.0, 6), 0.7
    same_model = (model[:, None] == model[None, :]).astype(float)
    covariance = np.diag(1 / weight) + ratio * same_model
    inverse = np.linalg.inv(covariance)
    common = float(inverse.sum(axis=0) @ off / inverse.sum())
    residual = inverse @ (off - common)
    spread = (off - common) @ residual
    cross = ratio * (model[None, :] == np.arange(4)[:, None])  # the fourth model has no pair
    remaining = ratio - np.sum((cross @ inverse) * cross, axis=1)
    shift = (1 - (cross @ inverse).sum(axis=1)) ** 2 / inverse.sum()
    shrinkage = 1 / (1 + ratio * np.bincount(model, weight, minlength=4))
    cost, factor, scale = golden._factors(off, weight, model, ratio * shrinkage)
    assert factor == pytest.approx(common + cross @ residual)
    assert scale == pytest.approx(np.sqrt(spread / (weight.sum() - 2) * (1 + remaining + shift)))
    expected = 6 * np.log(spread) + np.linalg.slogdet(covariance)[1]
    assert cost - np.log(shrinkage).sum() - np.log(weight).sum() == pytest.approx(expected)


def test_a_training_is_predicted_without_its_own_pairs() -> None:
    cv = np.array([0.3, 0.3, 0.3, 0.4, 0.5, 0.6])
    lb = cv - np.array([0.1, 0.1, 0, 0, 0, 0])
    result = run_backtest(cv, lb, np.full(6, 0.1), ["a", "a", "b", "c", "d", "e"])["seen share"]
    errors = np.array([0.1, 0.1, 0.025, 0.025, 0.025, 0.025])  # fits 0 without a, 0.025 with it
    assert result.rmse == pytest.approx(float(np.sqrt(np.mean(errors**2))))


@pytest.mark.parametrize("name", ["line on CV", "seen share", SECOND])
def test_a_score_does_not_change_its_own_prediction(name: str) -> None:
    draw = np.random.default_rng(1)
    cv, shift = draw.uniform(0.2, 0.6, 12), draw.uniform(0, 0.2, 12)
    families = [f"{'ab'[n % 2]}-{n // 2}" for n in range(12)]
    lb = cv - 0.7 * shift + draw.normal(0, 0.02, 12)
    changed = lb.copy()
    changed[0] += 0.05
    before = run_backtest(cv, lb, shift, families)[name].error
    difference = run_backtest(cv, changed, shift, families)[name].error - before
    assert difference[0] == pytest.approx(0.05)
    assert np.abs(difference[1:]).max() > 0


def test_the_gap_to_a_model_that_is_worse_on_every_pair_is_shown() -> None:
    pairs = Pairs(np.array(list("aabbccdd")), *np.zeros((3, 8)))
    small, large = (Backtest(np.full(8, error), (1.0, 1.0)) for error in (0.01, 0.03))
    result = golden.gap(pairs, small, large)
    assert result.low == pytest.approx(0.02)
    assert golden.gap(pairs, large, small).high == pytest.approx(-0.02)
    assert golden.gap(pairs, small, small).needed == 0


def test_the_table_fits_a_terminal() -> None:
    pairs = golden.read_pairs()
    lines = golden.text(pairs, golden.backtest(pairs)).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("by model    0.0218") for line in lines)


def test_too_few_trainings_are_refused() -> None:
    three = np.array([0.3, 0.4, 0.5])
    with pytest.raises(BadData, match="at least 4 trainings"):
        run_backtest(three, three, three)


def test_a_pair_without_a_family_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "families.csv"
    table.write_text("row,run,family,untuned,cv,split,lb,excluded\n0,r,,,0.3,v1,0.3,\n")
    with pytest.raises(BadData, match="r needs a family"):
        golden.read_pairs(table)
