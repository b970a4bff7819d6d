"""Paired comparison: real differences are found, and noise is not."""

import numpy as np
import pytest

from parity.competition.query import Position, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.metrics import evaluate, row_scores
from parity.competition.scoring.row_metrics import Metric
from parity.competition.scoring.significance import Difference, compare
from parity.run.config.scoring import ScoringConfig
from parity.run.errors import BadData, Mismatch

SCORING = ScoringConfig(bootstrap=500)
DEPTH = 25
MAP25 = Metric("map", DEPTH)


def world(seed: int, questions: int) -> tuple[list[QueryId], Qrels, frozenset[QueryId]]:
    generator = np.random.default_rng(seed)
    rows = [QueryId(f"{number}_{answer}") for number in range(questions) for answer in "AB"]
    qrels = {row: frozenset([Position(int(generator.integers(100)))]) for row in rows}
    return rows, qrels, frozenset(rows[: len(rows) // 2 : 2]) | frozenset(rows[len(rows) // 2 :])


def at_ranks(qrels: Qrels, ranks: dict[QueryId, int]) -> Ranking:
    """Return a ranking with each row's right id at a rank (from 1)."""
    rows = []
    for row, right in qrels.items():
        passages = [item for item in range(100) if item not in right][: DEPTH - 1]
        passages.insert(ranks[row] - 1, next(iter(right)))
        rows.append(passages)
    ids = np.array(rows, dtype=np.int64)
    return Ranking(tuple(qrels), ids, np.zeros(ids.shape, dtype=np.float32))


def random_ranks(rows: list[QueryId], seed: int) -> dict[QueryId, int]:
    generator = np.random.default_rng(seed)
    return {row: int(generator.integers(2, 12)) for row in rows}


def test_equal_rankings_differ_by_zero_and_are_named() -> None:
    """Pitfall 26: two trainings with one score to the last digit."""
    rows, qrels, unseen = world(1, 30)
    ranking = at_ranks(qrels, random_ranks(rows, 1))
    difference = compare(ranking, ranking, qrels, unseen, SCORING, MAP25)
    for gain in (difference.all, difference.seen, difference.unseen, difference.projection):
        assert gain is not None
        assert (gain.value, gain.low, gain.high) == (0.0, 0.0, 0.0)
    assert difference.result == "no difference shown"
    assert difference.identical
    assert "same weights scored twice" in difference.findings[0]


def test_a_better_ranking_is_found_in_either_order() -> None:
    rows, qrels, unseen = world(2, 60)
    ranks = random_ranks(rows, 2)
    worse = at_ranks(qrels, ranks)
    better = at_ranks(qrels, {row: rank - 1 for row, rank in ranks.items()})
    difference = compare(better, worse, qrels, unseen, SCORING, MAP25)
    assert difference.result == "a is better"
    assert not difference.identical
    assert difference.findings == ()
    assert compare(worse, better, qrels, unseen, SCORING, MAP25).result == "b is better"


def test_chance_alone_shows_no_difference() -> None:
    """Pitfall 4: a gap within the noise of few rows is not progress."""
    shown = 0
    for seed in range(40):
        rows, qrels, unseen = world(seed, 40)
        a, b = (at_ranks(qrels, random_ranks(rows, 100 * seed + side)) for side in (1, 2))
        shown += compare(a, b, qrels, unseen, SCORING, MAP25).result != "no difference shown"
    assert shown <= 6  # 2 expected of 40; more than 6 in under 1 % of worlds


def test_values_are_the_differences_of_the_two_scores() -> None:
    rows, qrels, unseen = world(3, 30)
    a, b = (at_ranks(qrels, random_ranks(rows, seed)) for seed in (7, 8))
    first, second = (evaluate(ranking, qrels, unseen, SCORING, MAP25) for ranking in (a, b))
    difference = compare(a, b, qrels, unseen, SCORING, MAP25)
    assert first.projection is not None
    assert second.projection is not None
    assert difference.projection is not None
    assert difference.projection.value == pytest.approx(
        first.projection.value - second.projection.value, abs=1e-12
    )
    assert difference.rows == first.all.rows


def test_pairing_sees_a_small_steady_gain_that_two_intervals_cannot() -> None:
    rows, qrels, unseen = world(4, 60)
    ranks = random_ranks(rows, 4)
    a = at_ranks(qrels, {row: rank - 1 if rank > 5 else rank for row, rank in ranks.items()})
    b = at_ranks(qrels, ranks)
    difference = compare(a, b, qrels, unseen, SCORING, MAP25)
    first, second = (
        evaluate(ranking, qrels, unseen, SCORING, MAP25).projection for ranking in (a, b)
    )
    assert first is not None
    assert second is not None
    assert first.low < second.high  # apart, the two overlap
    assert difference.result == "a is better"


def test_the_order_of_rows_changes_no_bit() -> None:
    rows, qrels, unseen = world(5, 30)
    a, b = (at_ranks(qrels, random_ranks(rows, seed)) for seed in (5, 6))
    order = np.random.default_rng(0).permutation(len(rows))
    mixed = Ranking(tuple(b.query_ids[row] for row in order), b.positions[order], b.scores[order])
    assert compare(a, mixed, qrels, unseen, SCORING, MAP25) == compare(
        a, b, qrels, unseen, SCORING, MAP25
    )


def test_rankings_of_different_rows_are_refused() -> None:
    rows, qrels, unseen = world(6, 10)
    a = at_ranks(qrels, random_ranks(rows, 1))
    part = Ranking(a.query_ids[1:], a.positions[1:], a.scores[1:])
    with pytest.raises(Mismatch, match="1 labeled rows are not ranked"):
        compare(a, part, qrels, unseen, SCORING, MAP25)
    with pytest.raises(Mismatch, match="1 labeled rows are not ranked"):
        compare(part, a, qrels, unseen, SCORING, MAP25)
    with pytest.raises(Mismatch, match="too few for MAP@50"):
        compare(a, a, qrels, unseen, SCORING, Metric("map", 50))


def test_a_gain_on_seen_rows_only_is_named() -> None:
    """Pitfall 2: later epochs raised CV by seen misconceptions and the leaderboard by nothing."""
    rows, qrels, unseen = world(7, 60)
    ranks = random_ranks(rows, 7)
    worse = at_ranks(qrels, ranks)
    better = at_ranks(qrels, {row: p if row in unseen else 1 for row, p in ranks.items()})
    for a, b, words in ((better, worse, "a's gain over b"), (worse, better, "b's gain over a")):
        findings = compare(a, b, qrels, unseen, SCORING, MAP25).findings
        assert findings[0].startswith(f"{words} is shown on seen labels only")


def test_five_questions_show_no_difference_at_any_gap() -> None:
    rows, qrels, unseen = world(8, 5)
    best = at_ranks(qrels, dict.fromkeys(rows, 1))
    worst = at_ranks(qrels, dict.fromkeys(rows, 20))
    difference = compare(best, worst, qrels, unseen, SCORING, MAP25)
    assert difference.all.low > 0
    assert difference.result == "no difference shown"
    assert "too few to show" in difference.findings[-1]


def test_without_a_projection_all_rows_decide() -> None:
    rows, qrels, _ = world(9, 20)
    best = at_ranks(qrels, dict.fromkeys(rows, 1))
    worst = at_ranks(qrels, dict.fromkeys(rows, 9))
    difference = compare(best, worst, qrels, frozenset(), SCORING, MAP25)
    assert difference.projection is None
    assert difference.unseen is None
    assert difference.result == "a is better"


def test_a_difference_survives_json_bit_for_bit() -> None:
    rows, qrels, unseen = world(10, 20)
    a, b = (at_ranks(qrels, random_ranks(rows, seed)) for seed in (1, 2))
    for marked in (unseen, frozenset[QueryId]()):
        difference = compare(a, b, qrels, marked, SCORING, MAP25)
        record = difference.as_json()
        assert Difference.from_json(record) == difference
        assert record["result"] == difference.result
    with pytest.raises(BadData, match="difference@24"):
        Difference.from_json({**record, "k": 24})


def test_the_accessor_gives_each_rows_own_value() -> None:
    rows, qrels, _ = world(11, 3)
    ranks = random_ranks(rows, 3)
    values = row_scores(at_ranks(qrels, ranks), qrels, MAP25)
    assert values == {row: 1 / ranks[row] for row in rows}
