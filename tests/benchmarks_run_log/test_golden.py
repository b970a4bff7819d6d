"""The backtest on the golden log, and that no training tells on itself."""

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
"""First digits of the table's digest: it was fixed before anything was fitted."""
SEED = Path(__file__).parents[4] / "shared" / "seed" / "runs.csv"
Floats = NDArray[np.float64]


def made(
    cv: Floats, lb: Floats, shift: Floats, families: list[str] | None = None
) -> dict[str, Backtest]:
    names = families or [f"f{n}" for n in range(len(cv))]
    return golden.backtest(Pairs(np.array(names), cv, lb, shift))


def test_the_table_is_the_one_that_was_fixed() -> None:
    assert digest.of_file(golden.TABLE)[:8] == FIXED


@pytest.mark.skipif(not SEED.is_file(), reason="the golden log lies beside the checkout")
def test_its_figures_are_those_of_the_log() -> None:
    with SEED.open(encoding="utf-8", newline="") as file:
        log = list(csv.DictReader(file))
    with golden.TABLE.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["row"]) for row in table] == [
        n for n, row in enumerate(log) if row["lb_public"]
    ]
    for row in table:
        there = log[int(row["row"])]
        assert (row["run"], row["lb"], row["cv"]) == (
            there["run"],
            there["lb_public"],
            there["cv_map25"],
        )


def test_pins_the_backtest() -> None:
    found = golden.backtest(golden.read())
    told = {
        name: (round(one.rmse, 4), *(round(part, 3) for part in one.covered))
        for name, one in found.items()
    }
    assert told == {
        "LB = CV": (0.1022, 0.357, 1.0),
        "line on CV": (0.0282, 0.643, 0.929),
        "seen share": (0.0316, 0.75, 0.893),
        SECOND: (0.0218, 0.607, 0.857),
    }


def test_pins_what_parts_the_models() -> None:
    pairs = golden.read()
    found = golden.backtest(pairs)
    second = golden.gap(pairs, found[SECOND], found[golden.LINE])
    assert second.value == pytest.approx(0.0064, abs=1e-4)
    assert second.low < 0 < second.high  # not shown by so few trainings
    assert second.needed > len(np.unique(pairs.family))


def test_covers_what_it_promises_where_the_model_is_true() -> None:
    draw = np.random.default_rng(0)
    cv, shift = draw.uniform(0.2, 0.6, 120), draw.uniform(0, 0.2, 120)
    lb = cv - 0.7 * shift + draw.normal(0, 0.02, 120)
    found = made(cv, lb, shift)["seen share"]
    assert found.rmse == pytest.approx(0.02, abs=0.002)
    assert found.covered == pytest.approx((0.5, 0.9), abs=0.06)


def test_factors_by_model_cover_what_they_promise_and_beat_the_line_where_they_are_true() -> None:
    draw = np.random.default_rng(0)
    cv, shift = draw.uniform(0.2, 0.6, 80), draw.uniform(0, 0.2, 80)
    families = [f"{'abcdefgh'[n % 8]}-{n}" for n in range(80)]
    own = np.exp(draw.normal(0, 0.1, 8))[np.arange(80) % 8]
    lb = 0.9 * own * (cv - 0.7 * shift) * np.exp(draw.normal(0, 0.03, 80))
    found = made(cv, lb, shift, families)
    assert found[SECOND].rmse < 0.5 * found["line on CV"].rmse
    assert found[SECOND].rmse < 0.7 * found["seen share"].rmse
    assert found[SECOND].covered == pytest.approx((0.5, 0.9), abs=0.1)


def test_factors_are_those_of_the_whole_covariance() -> None:
    """Generalised least squares with every pair's covariance written out."""
    draw = np.random.default_rng(2)
    model = np.array([0, 0, 0, 1, 1, 2])
    off, weight, ratio = draw.normal(0, 0.1, 6), draw.uniform(0.2, 1.0, 6), 0.7
    alike = (model[:, None] == model[None, :]).astype(float)
    law = np.diag(1 / weight) + ratio * alike
    inverse = np.linalg.inv(law)
    common = float(inverse.sum(axis=0) @ off / inverse.sum())
    rest = inverse @ (off - common)
    spread = (off - common) @ rest
    cross = ratio * (model[None, :] == np.arange(4)[:, None])  # the fourth has no pair
    left = ratio - np.sum((cross @ inverse) * cross, axis=1)
    far = (1 - (cross @ inverse).sum(axis=1)) ** 2 / inverse.sum()
    kept = 1 / (1 + ratio * np.bincount(model, weight, minlength=4))
    cost, factor, scale = golden._factors(off, weight, model, ratio * kept)
    assert factor == pytest.approx(common + cross @ rest)
    assert scale == pytest.approx(np.sqrt(spread / (weight.sum() - 2) * (1 + left + far)))
    whole = 6 * np.log(spread) + np.linalg.slogdet(law)[1]
    assert cost - np.log(kept).sum() - np.log(weight).sum() == pytest.approx(whole)


def test_no_training_tells_on_itself() -> None:
    cv = np.array([0.3, 0.3, 0.3, 0.4, 0.5, 0.6])
    lb = cv - np.array([0.1, 0.1, 0, 0, 0, 0])
    found = made(cv, lb, np.full(6, 0.1), ["a", "a", "b", "c", "d", "e"])["seen share"]
    errors = np.array([0.1, 0.1, 0.025, 0.025, 0.025, 0.025])  # fits 0 without a, 0.025 with it
    assert found.rmse == pytest.approx(float(np.sqrt(np.mean(errors**2))))


@pytest.mark.parametrize("name", ["line on CV", "seen share", SECOND])
def test_a_left_out_score_does_not_move_its_own_prediction(name: str) -> None:
    draw = np.random.default_rng(1)
    cv, shift = draw.uniform(0.2, 0.6, 12), draw.uniform(0, 0.2, 12)
    families = [f"{'ab'[n % 2]}-{n // 2}" for n in range(12)]
    lb = cv - 0.7 * shift + draw.normal(0, 0.02, 12)
    other = lb.copy()
    other[0] += 0.05
    moved = made(cv, other, shift, families)[name].error - made(cv, lb, shift, families)[name].error
    assert moved[0] == pytest.approx(0.05)
    assert np.abs(moved[1:]).max() > 0


def test_a_gap_of_a_model_that_errs_less_everywhere_is_shown() -> None:
    pairs = Pairs(np.array(list("aabbccdd")), *np.zeros((3, 8)))
    small, large = (Backtest(np.full(8, error), (1.0, 1.0)) for error in (0.01, 0.03))
    found = golden.gap(pairs, small, large)
    assert found.low == pytest.approx(0.02)
    assert golden.gap(pairs, large, small).high == pytest.approx(-0.02)
    assert golden.gap(pairs, small, small).needed == 0


def test_the_table_fits_a_terminal() -> None:
    pairs = golden.read()
    lines = golden.text(pairs, golden.backtest(pairs)).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("by model    0.0218") for line in lines)


def test_refuses_too_few_trainings() -> None:
    three = np.array([0.3, 0.4, 0.5])
    with pytest.raises(BadData, match="at least 4 trainings"):
        made(three, three, three)


def test_refuses_a_pair_without_a_family(tmp_path: Path) -> None:
    table = tmp_path / "families.csv"
    table.write_text("row,run,family,untuned,cv,split,lb,excluded\n0,r,,,0.3,v1,0.3,\n")
    with pytest.raises(BadData, match="r needs a family"):
        golden.read(table)
