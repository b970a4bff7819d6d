"""MAP@k and Recall@k against hand work, a brute-force twin and an outside library."""

import random
import time

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.competition.query import Position, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.metrics import Scores, Slice, evaluate, row_scores
from parity.competition.scoring.row_metrics import Metric, average_precision, recall
from parity.run.config.scoring import ScoringConfig
from parity.run.errors import BadData, Mismatch

SCORING = ScoringConfig(bootstrap=100)
MAP25 = Metric("map", 25)


def ranking_of(rows: dict[str, list[int]]) -> Ranking:
    width = len(next(iter(rows.values())))
    scores = np.tile(-np.arange(width, dtype=np.float32), (len(rows), 1))
    ids = np.array(list(rows.values()), dtype=np.int64)
    return Ranking(tuple(map(QueryId, rows)), ids, scores)


def qrels_of(rows: dict[str, set[int]]) -> Qrels:
    return {QueryId(row): frozenset(map(Position, ids)) for row, ids in rows.items()}


def marks(*rows: str) -> frozenset[QueryId]:
    return frozenset(map(QueryId, rows))


def random_world(
    seed: int, *, questions: int, corpus: int, depth: int
) -> tuple[Ranking, Qrels, frozenset[QueryId]]:
    generator = random.Random(seed)
    rows = [f"{number}_{answer}" for number in range(questions) for answer in "ABC"]
    rankings = {row: generator.sample(range(corpus), depth) for row in rows}
    labels = {row: set(generator.sample(range(corpus), generator.randint(1, 3))) for row in rows}
    unseen = marks(*(row for row in rows if generator.random() < 0.6))
    return ranking_of(rankings), qrels_of(labels), unseen


def twin(ids: list[int], relevant: frozenset[int], k: int) -> tuple[float, float]:
    """Compute both measures from their definitions, one rank at a time."""
    distinct: list[int] = []
    for passage in ids:
        if passage not in distinct:
            distinct.append(passage)
    total = 0.0
    for index in range(1, min(k, len(distinct)) + 1):
        if distinct[index - 1] in relevant:
            total += sum(passage in relevant for passage in distinct[:index]) / index
    found_in_all = sum(right in distinct[:k] for right in relevant)
    return total / min(k, len(relevant)), found_in_all / len(relevant)


@pytest.mark.parametrize(
    ("ids", "relevant", "k", "expected"),
    [
        ([5, 1, 2], {5}, 25, 1.0),
        ([1, 5, 2], {5}, 25, 0.5),
        ([1, 2, 5], {5}, 2, 0.0),
        ([1, 2, 3], {5}, 25, 0.0),
        ([5, 1, 6], {5, 6}, 25, (1 + 2 / 3) / 2),
        ([1, 5, 6], {5, 6, 7}, 2, (1 / 2) / 2),
        ([5, 5, 5], {5}, 25, 1.0),
        ([1, 1, 5], {5}, 25, 0.5),
        ([1, 1, 5], {5}, 2, 0.5),
        ([], {5}, 25, 0.0),
    ],
)
def test_average_precision_equals_hand_computed_values(
    ids: list[int], relevant: set[int], k: int, expected: float
) -> None:
    assert average_precision(ids, frozenset(relevant), k) == expected


def test_recall_counts_each_right_id_once_within_the_depth() -> None:
    assert recall([1, 5, 5, 6], frozenset({5, 6}), 3) == 1.0
    assert recall([1, 5, 2, 6], frozenset({5, 6}), 3) == 0.5
    assert recall([1], frozenset({5}), 3) == 0.0


def test_a_row_without_a_right_id_has_no_score() -> None:
    with pytest.raises(BadData, match="without a right passage"):
        average_precision([1], frozenset(), 25)
    with pytest.raises(BadData, match="without a right passage"):
        recall([1], frozenset(), 25)


@given(
    st.lists(st.integers(0, 12), max_size=20),
    st.frozensets(st.integers(0, 12), min_size=1),
    st.integers(1, 25),
)
def test_both_measures_equal_the_brute_force_twin(
    ids: list[int], relevant: frozenset[int], k: int
) -> None:
    expected = twin(ids, relevant, k)
    assert average_precision(ids, relevant, k) == pytest.approx(expected[0], abs=1e-15)
    assert recall(ids, relevant, k) == pytest.approx(expected[1], abs=1e-15)


@pytest.mark.parametrize("k", [5, 25])
def test_scores_equal_ir_measures(k: int) -> None:
    ranking, qrels, unseen = random_world(1, questions=60, corpus=60, depth=30)
    run = {
        str(row): {str(passage): 100.0 - index for index, passage in enumerate(ids)}
        for row, ids in zip(ranking.query_ids, ranking.positions.tolist(), strict=True)
    }
    labels = {str(row): {str(passage): 1 for passage in ids} for row, ids in qrels.items()}
    measures = [ir_measures.AP @ k, ir_measures.R @ k]
    outside = ir_measures.calc_aggregate(measures, labels, run)
    scores = evaluate(ranking, qrels, unseen, SCORING, Metric("map", k))
    assert scores.all.score is not None
    assert scores.all.recall is not None
    assert scores.all.score.value == pytest.approx(outside[ir_measures.AP @ k], abs=1e-12)
    assert scores.all.recall.value == pytest.approx(outside[ir_measures.R @ k], abs=1e-12)
    rows = {
        (metric.query_id, metric.measure): metric.value
        for metric in ir_measures.iter_calc(measures, labels, run)
    }
    for row, value in row_scores(ranking, qrels, Metric("map", k)).items():
        assert value == pytest.approx(rows[row, ir_measures.AP @ k], abs=1e-12)


def test_slices_and_projection_equal_hand_computed_values() -> None:
    ranking = ranking_of({"1_A": [1, 2, 3], "1_B": [1, 2, 3], "2_A": [3, 2, 1]})
    qrels = qrels_of({"1_A": {1}, "1_B": {2}, "2_A": {1}})
    scores = evaluate(ranking, qrels, marks("1_B", "2_A"), SCORING, Metric("map", 3))
    assert (scores.all.rows, scores.seen.rows, scores.unseen.rows) == (3, 1, 2)
    assert (scores.all.questions, scores.seen.questions, scores.unseen.questions) == (2, 1, 2)
    assert [
        part.score and part.score.value for part in (scores.all, scores.seen, scores.unseen)
    ] == [
        pytest.approx((1 + 1 / 2 + 1 / 3) / 3),
        1.0,
        pytest.approx((1 / 2 + 1 / 3) / 2),
    ]
    assert scores.projection is not None
    assert scores.projection.value == pytest.approx(0.25 + 0.75 * (1 / 2 + 1 / 3) / 2)
    assert scores.all.recall is not None
    assert scores.all.recall.value == 1.0


def test_an_empty_slice_has_no_number_and_no_projection() -> None:
    ranking, qrels, _ = random_world(2, questions=8, corpus=20, depth=10)
    scores = evaluate(ranking, qrels, frozenset(), SCORING, Metric("map", 10))
    assert scores.unseen == Slice(0, 0, None, None)
    assert scores.projection is None
    result = evaluate(ranking, qrels, frozenset(), ScoringConfig(seen_share=1.0), Metric("map", 10))
    assert result.projection == result.all.score


def test_the_order_of_rows_changes_no_bit() -> None:
    ranking, qrels, unseen = random_world(3, questions=40, corpus=40, depth=25)
    order = np.random.default_rng(0).permutation(len(ranking.query_ids))
    shuffled = Ranking(
        tuple(ranking.query_ids[index] for index in order),
        ranking.positions[order],
        ranking.scores[order],
    )
    turned = dict(reversed(qrels.items()))
    assert evaluate(shuffled, turned, unseen, SCORING, MAP25) == evaluate(
        ranking, qrels, unseen, SCORING, MAP25
    )


def test_rows_must_be_exactly_the_labeled_ones() -> None:
    ranking, qrels, unseen = random_world(4, questions=5, corpus=30, depth=25)
    part = Ranking(ranking.query_ids[:9], ranking.positions[:9], ranking.scores[:9])
    with pytest.raises(Mismatch, match=r"6 labeled rows are not ranked .*first: 3_A"):
        evaluate(part, qrels, unseen, SCORING, MAP25)
    fewer = {row: ids for row, ids in qrels.items() if row != "4_C"}
    with pytest.raises(Mismatch, match=r"1 of 15 ranked rows have no label .*first: 4_C"):
        evaluate(ranking, fewer, unseen - {QueryId("4_C")}, SCORING, MAP25)
    with pytest.raises(Mismatch, match="0 labeled rows"):
        evaluate(
            Ranking((), ranking.positions[:0], ranking.scores[:0]), {}, frozenset(), SCORING, MAP25
        )


def test_a_row_ranked_twice_is_refused() -> None:
    ranking = ranking_of({"1_A": [1, 2], "1_B": [2, 1]})
    twice = Ranking((QueryId("1_A"), QueryId("1_A")), ranking.positions, ranking.scores)
    with pytest.raises(Mismatch, match="each query must be ranked once"):
        evaluate(twice, qrels_of({"1_A": {1}}), frozenset(), SCORING, Metric("map", 2))


def test_marks_of_another_split_are_refused() -> None:
    ranking = ranking_of({"1_A": [1, 2]})
    with pytest.raises(Mismatch, match=r"marked unseen are not among .*9_A"):
        evaluate(ranking, qrels_of({"1_A": {1}}), marks("9_A"), SCORING, Metric("map", 2))


def test_an_id_ranked_twice_in_a_row_is_refused() -> None:
    ranking = ranking_of({"1_A": [1, 2, 1], "1_B": [1, 2, 2]})
    labels = qrels_of({"1_A": {1}, "1_B": {1}})
    with pytest.raises(Mismatch, match="1_A: the ranking repeats an id"):
        evaluate(ranking, labels, frozenset(), SCORING, Metric("map", 3))


def test_a_ranking_narrower_than_k_is_refused_and_the_depth_of_a_small_corpus_is_named() -> None:
    ranking = ranking_of({"1_A": [1, 2, 3], "2_A": [2, 3, 1]})
    qrels = qrels_of({"1_A": {3}, "2_A": {1, 2}})
    with pytest.raises(Mismatch, match="holds 3 ids a row, too few for MAP@25"):
        evaluate(ranking, qrels, frozenset(), SCORING, MAP25)
    record = evaluate(ranking, qrels, frozenset(), SCORING, Metric("map", 3)).as_json()
    assert record["all"]["map@3"]["value"] == pytest.approx((1 / 3 + (1 + 2 / 3) / 2) / 2)


def test_a_key_at_25_never_holds_a_deeper_score() -> None:
    """Pitfall 12: a loop over depths kept MAP@100 under the key of 25."""
    ranking, qrels, unseen = random_world(5, questions=30, corpus=120, depth=100)
    records = {
        k: evaluate(ranking, qrels, unseen, SCORING, Metric("map", k)).as_json() for k in (25, 100)
    }
    assert records[25]["all"]["map@25"]["value"] < records[100]["all"]["map@100"]["value"]
    assert evaluate(ranking.top(25), qrels, unseen, SCORING, MAP25).as_json() == records[25]
    assert not [key for key in records[100]["all"] if key.endswith("@25")]
    with pytest.raises(BadData, match="projection@25"):
        Scores.from_json({**records[100], "k": 25})
    relabeled = {**records[100], "k": 25, "projection@25": records[100]["projection@100"]}
    del relabeled["projection@100"]
    with pytest.raises(BadData, match="map@25"):
        Scores.from_json(relabeled)


@given(st.integers(0, 10_000), st.booleans())
def test_scores_survive_json_bit_for_bit(seed: int, split: bool) -> None:
    ranking, qrels, unseen = random_world(seed, questions=4, corpus=12, depth=10)
    marked = unseen if split else frozenset[QueryId]()
    scores = evaluate(ranking, qrels, marked, SCORING, Metric("map", 10))
    assert Scores.from_json(scores.as_json()) == scores


def test_a_record_with_a_missing_or_unknown_key_is_refused() -> None:
    ranking, qrels, unseen = random_world(6, questions=4, corpus=12, depth=10)
    record = evaluate(ranking, qrels, unseen, SCORING, Metric("map", 10)).as_json()
    with pytest.raises(BadData, match="depth k"):
        Scores.from_json([record])
    with pytest.raises(BadData, match="scores needs the keys"):
        Scores.from_json({**record, "mrr": 1.0})
    with pytest.raises(BadData, match="seen needs the keys"):
        Scores.from_json({**record, "seen": None})


def test_a_whole_competition_is_scored_within_a_second() -> None:
    ranking, qrels, unseen = random_world(7, questions=1_150, corpus=2_500, depth=25)
    start = time.process_time()
    evaluate(ranking, qrels, unseen, ScoringConfig(bootstrap=1000), MAP25)
    assert time.process_time() - start < 1.0
