"""Which CV ranked runs as the leaderboard did: known orders, ties, too few."""

import json

import numpy as np
import pytest
from scipy import stats

from parity.analysis.forecast import advice
from parity.analysis.forecast.advice import Advice, EpochScore, RankCorrelation

SCORES = (0.20, 0.25, 0.30, 0.32, 0.35, 0.38)


def runs(*orders: tuple[str, tuple[int, ...]], number: int = 1) -> list[EpochScore]:
    """Return runs with a score each, whose CVs on each split are in the given order."""
    return [
        EpochScore(f"run-{n}", split, number, {"all": 0.3 + 0.02 * position}, SCORES[n])
        for split, order in orders
        for n, position in enumerate(order)
    ]


def find(ranked: tuple[RankCorrelation, ...], name: str) -> RankCorrelation:
    return next(item for item in ranked if item.name == name)


def advised(epochs: list[EpochScore]) -> Advice:
    return Advice(
        sum(epoch.score is not None for epoch in epochs),
        advice.by_split(epochs),
        advice.by_choice(epochs),
        advice.concordant_epochs(epochs),
        (),
        ("a note",),
        "invoke eval",
    )


def test_the_split_in_the_leaderboards_order_is_named() -> None:
    epochs = runs(
        ("good", (0, 1, 2, 3, 4, 5)), ("bad", (5, 4, 3, 2, 1, 0)), ("half", (0, 2, 1, 4, 3, 5))
    )
    ranked = advice.by_split(epochs)
    for name, rho, tau in (("good", 1, 1), ("bad", -1, -1), ("half", 31 / 35, 11 / 15)):
        item = find(ranked, f"{name} by all")
        assert item.spearman is not None
        assert item.kendall is not None
        assert (item.spearman.value, item.kendall.value) == pytest.approx((rho, tau))
        assert item.kendall.low <= item.kendall.value <= item.kendall.high
    assert advice.best_of(ranked) == "good by all"
    assert "good by all" in advised(epochs).line


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_those_of_scipy_with_ties_too(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = (generator.integers(6, size=12).astype(np.float64) for _ in range(2))
    result = advice.correlate(x, y, [str(n) for n in range(12)])
    assert result is not None
    assert result[0].value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert result[1].value == pytest.approx(stats.kendalltau(x, y).statistic)


def test_the_interval_draws_whole_trainings() -> None:
    """Epochs of one training are not independent."""
    x = np.repeat(np.random.default_rng(0).normal(size=20), 5)
    y = x + np.repeat(np.random.default_rng(1).normal(size=20), 5)
    single = advice.correlate(x, y, [str(n) for n in range(100)])
    grouped = advice.correlate(x, y, [str(n // 5) for n in range(100)])
    assert single is not None
    assert grouped is not None
    assert grouped[0].value == single[0].value
    assert grouped[0].high - grouped[0].low > 1.5 * (single[0].high - single[0].low)


def test_all_ties_rank_nothing() -> None:
    tied = [EpochScore(f"run-{n}", "s", 1, {"all": 0.3}, SCORES[n]) for n in range(6)]
    (item,) = advice.by_split(tied)
    assert (item.pairs, item.kendall) == (6, None)
    assert "all equal" in advice.text(advised(tied))
    assert advice.best_of((item,)) == ""


def test_splits_that_may_be_as_good_are_named() -> None:
    """Of six runs, one swapped pair may be chance; the reverse order is not."""
    epochs = runs(
        ("good", (0, 1, 2, 3, 4, 5)), ("near", (0, 1, 2, 3, 5, 4)), ("bad", (5, 4, 3, 2, 1, 0))
    )
    result = advised(epochs)
    assert advice.as_good(result.splits) == ("near by all",)
    assert "good by all (near by all may be as good)" in result.line


def test_the_best_split_is_chosen_with_its_base_models() -> None:
    """Only the tuned runs are in order; the result without the base model is not compared."""
    tuned = runs(("s", (0, 1, 2, 3, 4, 5)))
    result = advised([*tuned, EpochScore("base", "s", 0, {"all": 0.9}, 0.1)])
    assert [split.name for split in result.splits] == ["s by all", "s by all, tuned"]
    assert "pairs: s by all;" in result.line


def test_below_five_pairs_a_split_has_no_number() -> None:
    (item,) = advice.by_split(runs(("s", (0, 1, 2, 3))))
    assert (item.pairs, item.spearman, item.kendall) == (4, None, None)


def test_tuned_runs_have_a_result_without_base_models() -> None:
    epochs = [*runs(("s", (0, 1, 2, 4, 3))), EpochScore("base", "s", 0, {"all": 0.1}, 0.1)]
    ranked = advice.by_split(epochs)
    assert [(item.name, item.pairs) for item in ranked] == [("s by all", 6), ("s by all, tuned", 5)]
    untuned_included, tuned = (item.kendall for item in ranked)
    assert untuned_included is not None
    assert tuned is not None
    assert untuned_included.value > tuned.value


def test_the_choice_of_epoch_that_ranked_trainings_is_named() -> None:
    """Projection rises with the score in the best epoch; the last is in the opposite order."""
    epochs = [
        EpochScore(f"run-{n}", "s", number, {"all": cv, "projection": p, "unseen": 0.1}, score)
        for n in range(6)
        for number, cv, p, score in (
            (1, 0.30 + (n % 2) / 10, 0.2 + n / 100, SCORES[n]),
            (2, 0.25 - n / 100, 0.1, None),
        )
    ]
    ranked = advice.by_choice(epochs)
    names = ["last epoch", *(f"best epoch by {name}" for name in advice.MEASURES)]
    assert [item.name for item in ranked] == names
    last, _, projection, unseen = (item.kendall for item in ranked)
    assert last is not None
    assert projection is not None
    assert (last.value, projection.value, unseen) == (-1, 1, None)
    assert advice.best_of(ranked) == "best epoch by projection"


def test_a_base_model_has_no_choice_of_epoch() -> None:
    """A base model scores lowest by any rule, so it does not count."""
    epochs = [*runs(("s", (0, 1, 2, 4, 3))), EpochScore("base", "s", 0, {"all": 0.1}, 0.1)]
    assert {item.pairs for item in advice.by_choice(epochs)} == {5}


def test_pairs_of_epochs_of_one_training_are_counted() -> None:
    cvs = ((1, 0.3, 0.3), (2, 0.4, 0.4), (3, 0.5, 0.35), (4, 0.5, 0.2))
    epochs = [EpochScore("a", "s", number, {"all": cv}, score) for number, cv, score in cvs]
    other = EpochScore("b", "s", 1, {"all": 0.1}, 0.9)
    assert advice.concordant_epochs([*epochs, other]) == (2, 5)  # of six, one is a tie by CV


def test_the_text_fits_eighty_columns_and_a_machine_reads_it() -> None:
    result = advised(runs(("a-split-with-a-long-name-s0-v0.25-f1of5", (0, 1, 2, 3, 4, 5))))
    assert max(map(len, advice.text(result).splitlines())) <= 80
    assert json.loads(json.dumps(result.as_json()))["pairs"] == 6
