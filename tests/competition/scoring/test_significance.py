"""Paired comparison: what it must find and what it must not."""

import numpy as np
import pytest

from parity.competition.query import MisconceptionId, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.metrics import average_precisions, evaluate
from parity.competition.scoring.significance import Difference, compare
from parity.run.config.run_file import ScoringConfig
from parity.run.errors import BadData, Mismatch

SCORING = ScoringConfig(bootstrap=500)
DEPTH = 25


def world(seed: int, questions: int) -> tuple[list[QueryId], Qrels, frozenset[QueryId]]:
    generator = np.random.default_rng(seed)
    rows = [QueryId(f"{number}_{answer}") for number in range(questions) for answer in "AB"]
    qrels = {row: frozenset([MisconceptionId(int(generator.integers(100)))]) for row in rows}
    return rows, qrels, frozenset(rows[: len(rows) // 2 : 2]) | frozenset(rows[len(rows) // 2 :])


def at_places(qrels: Qrels, places: dict[QueryId, int]) -> Ranking:
    """Rank each row's right id at the given place (from 1)."""
    rows = []
    for row, right in qrels.items():
        others = [found for found in range(100) if found not in right][: DEPTH - 1]
        others.insert(places[row] - 1, next(iter(right)))
        rows.append(others)
    ids = np.array(rows, dtype=np.int64)
    return Ranking(tuple(qrels), ids, np.zeros(ids.shape, dtype=np.float32))


def random_places(rows: list[QueryId], seed: int) -> dict[QueryId, int]:
    generator = np.random.default_rng(seed)
    return {row: int(generator.integers(2, 12)) for row in rows}


def test_equal_rankings_differ_by_zero_and_are_named() -> None:
    """Pitfall 26: two trainings with one score to the last digit."""
    rows, qrels, unseen = world(1, 30)
    ranking = at_places(qrels, random_places(rows, 1))
    difference = compare(ranking, ranking, qrels, unseen, SCORING)
    for gain in (difference.all, difference.seen, difference.unseen, difference.projection):
        assert gain is not None
        assert (gain.value, gain.low, gain.high) == (0.0, 0.0, 0.0)
    assert difference.verdict == "no difference shown"
    assert difference.identical
    assert "same weights scored twice" in difference.findings[0]


def test_a_truly_better_ranking_is_found_either_way_round() -> None:
    rows, qrels, unseen = world(2, 60)
    places = random_places(rows, 2)
    worse = at_places(qrels, places)
    better = at_places(qrels, {row: place - 1 for row, place in places.items()})
    found = compare(better, worse, qrels, unseen, SCORING)
    assert found.verdict == "a is better"
    assert not found.identical
    assert found.findings == ()
    assert compare(worse, better, qrels, unseen, SCORING).verdict == "b is better"


def test_chance_alone_shows_no_difference() -> None:
    """Pitfall 4: a gap within the noise of few rows is not progress."""
    shown = 0
    for seed in range(40):
        rows, qrels, unseen = world(seed, 40)
        a, b = (at_places(qrels, random_places(rows, 100 * seed + side)) for side in (1, 2))
        shown += compare(a, b, qrels, unseen, SCORING).verdict != "no difference shown"
    assert shown <= 6  # 2 expected of 40; more than 6 in under 1 % of worlds


def test_values_are_the_differences_of_the_two_scores() -> None:
    rows, qrels, unseen = world(3, 30)
    a, b = (at_places(qrels, random_places(rows, seed)) for seed in (7, 8))
    first, second = (evaluate(ranking, qrels, unseen, SCORING) for ranking in (a, b))
    difference = compare(a, b, qrels, unseen, SCORING)
    assert first.projection is not None
    assert second.projection is not None
    assert difference.projection is not None
    assert difference.projection.value == pytest.approx(
        first.projection.value - second.projection.value, abs=1e-12
    )
    assert difference.rows == first.all.rows


def test_pairing_sees_a_small_steady_gain_that_two_intervals_cannot() -> None:
    rows, qrels, unseen = world(4, 60)
    places = random_places(rows, 4)
    a = at_places(qrels, {row: place - 1 if place > 5 else place for row, place in places.items()})
    b = at_places(qrels, places)
    difference = compare(a, b, qrels, unseen, SCORING)
    first, second = (evaluate(ranking, qrels, unseen, SCORING).projection for ranking in (a, b))
    assert first is not None
    assert second is not None
    assert first.low < second.high  # apart, the two overlap
    assert difference.verdict == "a is better"


def test_the_order_of_rows_changes_no_bit() -> None:
    rows, qrels, unseen = world(5, 30)
    a, b = (at_places(qrels, random_places(rows, seed)) for seed in (5, 6))
    order = np.random.default_rng(0).permutation(len(rows))
    mixed = Ranking(tuple(b.query_ids[place] for place in order), b.ids[order], b.scores[order])
    assert compare(a, mixed, qrels, unseen, SCORING) == compare(a, b, qrels, unseen, SCORING)


def test_rankings_of_different_rows_are_refused() -> None:
    rows, qrels, unseen = world(6, 10)
    a = at_places(qrels, random_places(rows, 1))
    part = Ranking(a.query_ids[1:], a.ids[1:], a.scores[1:])
    with pytest.raises(Mismatch, match="1 labeled rows are not ranked"):
        compare(a, part, qrels, unseen, SCORING)
    with pytest.raises(Mismatch, match="1 labeled rows are not ranked"):
        compare(part, a, qrels, unseen, SCORING)
    with pytest.raises(Mismatch, match="too few for MAP@50"):
        compare(a, a, qrels, unseen, SCORING, k=50)


def test_a_gain_on_seen_rows_only_is_named() -> None:
    """Pitfall 2: later epochs raised CV by seen misconceptions and the leaderboard by nothing."""
    rows, qrels, unseen = world(7, 60)
    places = random_places(rows, 7)
    worse = at_places(qrels, places)
    better = at_places(qrels, {row: p if row in unseen else 1 for row, p in places.items()})
    for a, b, words in ((better, worse, "a's gain over b"), (worse, better, "b's gain over a")):
        findings = compare(a, b, qrels, unseen, SCORING).findings
        assert findings[0].startswith(f"{words} is shown on seen misconceptions only")


def test_five_questions_show_nothing_however_large_the_gap() -> None:
    rows, qrels, unseen = world(8, 5)
    best = at_places(qrels, dict.fromkeys(rows, 1))
    worst = at_places(qrels, dict.fromkeys(rows, 20))
    difference = compare(best, worst, qrels, unseen, SCORING)
    assert difference.all.low > 0
    assert difference.verdict == "no difference shown"
    assert "too few to show" in difference.findings[-1]


def test_without_a_projection_all_rows_decide() -> None:
    rows, qrels, _ = world(9, 20)
    best = at_places(qrels, dict.fromkeys(rows, 1))
    worst = at_places(qrels, dict.fromkeys(rows, 9))
    difference = compare(best, worst, qrels, frozenset(), SCORING)
    assert difference.projection is None
    assert difference.unseen is None
    assert difference.verdict == "a is better"


def test_a_difference_survives_json_bit_for_bit() -> None:
    rows, qrels, unseen = world(10, 20)
    a, b = (at_places(qrels, random_places(rows, seed)) for seed in (1, 2))
    for marked in (unseen, frozenset[QueryId]()):
        difference = compare(a, b, qrels, marked, SCORING)
        record = difference.as_json()
        assert Difference.from_json(record) == difference
        assert record["verdict"] == difference.verdict
    with pytest.raises(BadData, match="difference@24"):
        Difference.from_json({**record, "k": 24})


def test_the_accessor_gives_each_rows_own_value() -> None:
    rows, qrels, _ = world(11, 3)
    places = random_places(rows, 3)
    values = average_precisions(at_places(qrels, places), qrels)
    assert values == {row: 1 / places[row] for row in rows}
