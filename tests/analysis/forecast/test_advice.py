"""Which CV ranked runs as the leaderboard did: known orders, ties, too few."""

import json

import numpy as np
import pytest
from scipy import stats

from parity.analysis.forecast import advice
from parity.analysis.forecast.advice import Advice, EpochScore, Ranked

SCORES = (0.20, 0.25, 0.30, 0.32, 0.35, 0.38)


def runs(*orders: tuple[str, tuple[int, ...]], number: int = 1) -> list[EpochScore]:
    """Return runs with a score each, whose CV on each split stands in the given order."""
    return [
        EpochScore(f"run-{n}", split, number, {"all": 0.3 + 0.02 * place}, SCORES[n])
        for split, order in orders
        for n, place in enumerate(order)
    ]


def told(ranked: tuple[Ranked, ...], what: str) -> Ranked:
    return next(one for one in ranked if one.what == what)


def advised(epochs: list[EpochScore]) -> Advice:
    return Advice(
        sum(epoch.score is not None for epoch in epochs),
        advice.by_split(epochs),
        advice.by_choice(epochs),
        advice.within(epochs),
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
        one = told(ranked, f"{name} by all")
        assert one.spearman is not None
        assert one.kendall is not None
        assert (one.spearman.value, one.kendall.value) == pytest.approx((rho, tau))
        assert one.kendall.low <= one.kendall.value <= one.kendall.high
    assert advice.best_of(ranked) == "good by all"
    assert "good by all" in advised(epochs).line


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_those_of_scipy_with_ties_too(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = (generator.integers(6, size=12).astype(np.float64) for _ in range(2))
    found = advice.correlate(x, y, [str(n) for n in range(12)])
    assert found is not None
    assert found[0].value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found[1].value == pytest.approx(stats.kendalltau(x, y).statistic)


def test_the_interval_draws_whole_trainings() -> None:
    """Ten epochs of one training are no ten witnesses."""
    x = np.repeat(np.random.default_rng(0).normal(size=20), 5)
    y = x + np.repeat(np.random.default_rng(1).normal(size=20), 5)
    alone = advice.correlate(x, y, [str(n) for n in range(100)])
    again = advice.correlate(x, y, [str(n // 5) for n in range(100)])
    assert alone is not None
    assert again is not None
    assert again[0].value == alone[0].value
    assert again[0].high - again[0].low > 1.5 * (alone[0].high - alone[0].low)


def test_all_ties_rank_nothing() -> None:
    tied = [EpochScore(f"run-{n}", "s", 1, {"all": 0.3}, SCORES[n]) for n in range(6)]
    (one,) = advice.by_split(tied)
    assert (one.pairs, one.kendall) == (6, None)
    assert "all ties" in advice.text(advised(tied))
    assert advice.best_of((one,)) == ""


def test_what_may_do_as_well_is_told_beside_the_first() -> None:
    """Of six runs, one wrong order is chance; all of them wrong is not."""
    epochs = runs(
        ("good", (0, 1, 2, 3, 4, 5)), ("near", (0, 1, 2, 3, 5, 4)), ("bad", (5, 4, 3, 2, 1, 0))
    )
    found = advised(epochs)
    assert advice.as_good(found.splits) == ("near by all",)
    assert "good by all (but near by all may do as well)" in found.line


def test_the_first_is_told_without_a_splits_own_part() -> None:
    """Tuned runs alone are in order here; with the base, a split of its own is as good."""
    tuned = runs(("s", (0, 1, 2, 3, 4, 5)))
    found = advised([*tuned, EpochScore("base", "s", 0, {"all": 0.9}, 0.1)])
    assert [split.what for split in found.splits] == ["s by all", "s by all, tuned"]
    assert "did: s by all;" in found.line


def test_below_five_pairs_a_split_has_no_number() -> None:
    (one,) = advice.by_split(runs(("s", (0, 1, 2, 3))))
    assert (one.pairs, one.spearman, one.kendall) == (4, None, None)


def test_bare_bases_are_left_out_in_a_line_of_its_own() -> None:
    epochs = [*runs(("s", (0, 1, 2, 4, 3))), EpochScore("base", "s", 0, {"all": 0.1}, 0.1)]
    ranked = advice.by_split(epochs)
    assert [(one.what, one.pairs) for one in ranked] == [("s by all", 6), ("s by all, tuned", 5)]
    both, tuned = (one.kendall for one in ranked)
    assert both is not None
    assert tuned is not None
    assert both.value > tuned.value


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
    assert [one.what for one in ranked] == names
    last, _, projection, unseen = (one.kendall for one in ranked)
    assert last is not None
    assert projection is not None
    assert (last.value, projection.value, unseen) == (-1, 1, None)
    assert advice.best_of(ranked) == "best epoch by projection"


def test_a_bare_base_has_no_choice_of_epoch() -> None:
    """That a base is worse than what was tuned is no merit of a choice."""
    epochs = [*runs(("s", (0, 1, 2, 4, 3))), EpochScore("base", "s", 0, {"all": 0.1}, 0.1)]
    assert {one.pairs for one in advice.by_choice(epochs)} == {5}


def test_twos_of_epochs_of_one_training_are_counted() -> None:
    cvs = ((1, 0.3, 0.3), (2, 0.4, 0.4), (3, 0.5, 0.35), (4, 0.5, 0.2))
    epochs = [EpochScore("a", "s", number, {"all": cv}, score) for number, cv, score in cvs]
    other = EpochScore("b", "s", 1, {"all": 0.1}, 0.9)
    assert advice.within([*epochs, other]) == (2, 5)  # of six, one is a tie by CV


def test_the_text_fits_eighty_columns_and_a_machine_reads_it() -> None:
    found = advised(runs(("a-split-with-a-long-name-s0-v0.25-f1of5", (0, 1, 2, 3, 4, 5))))
    assert max(map(len, advice.text(found).splitlines())) <= 80
    assert json.loads(json.dumps(found.as_json()))["pairs"] == 6
