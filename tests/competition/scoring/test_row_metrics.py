"""Every metric of a competition against hand work and an outside library."""

import random

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.competition.scoring.row_metrics import Metric, f_beta, metric_of, reciprocal_rank
from parity.run.errors import BadData

METRICS = (
    Metric("map", 25),
    Metric("recall", 10),
    Metric("mrr", 5),
    Metric("fbeta", 10, beta=2.0, threshold=0.5),
    Metric("fbeta", 10, beta=0.5, count=3),
)


def test_each_metric_has_a_title_and_a_key_of_its_own() -> None:
    assert [metric.title for metric in METRICS] == [
        "MAP@25",
        "Recall@10",
        "MRR@5",
        "F2@10",
        "F0.5@10",
    ]
    assert [metric.key for metric in METRICS[:3]] == ["map@25", "recall@10", "mrr@5"]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.title)
def test_a_metric_survives_its_record(metric: Metric) -> None:
    assert metric_of({**metric.as_json(), "all": {}}) == metric


def test_a_record_without_a_metric_is_of_map() -> None:
    assert metric_of({"k": 10}) == Metric("map", 10)
    assert metric_of({"map@5": 0.5}) == Metric("map", 5)
    assert metric_of({"mrr@10": 0.5, "ref": 7}) == Metric("mrr", 10)
    assert metric_of({"recall@100": 0.5}) == Metric("recall", 100)
    assert metric_of({"f0.5@20": 0.5}) == Metric("fbeta", 20, 0.5)
    with pytest.raises(BadData, match="need a depth k"):
        metric_of({})


@given(st.integers(0, 1000), st.integers(1, 12))
def test_reciprocal_rank_equals_ir_measures(seed: int, k: int) -> None:
    draw = random.Random(seed)
    ranked = draw.sample(range(20), 12)
    relevant = frozenset(draw.sample(range(20), draw.randint(1, 3)))
    run = {"q": {str(item): 100.0 - rank for rank, item in enumerate(ranked)}}
    labels = {"q": {str(item): 1 for item in relevant}}
    expected = ir_measures.calc_aggregate([ir_measures.RR @ k], labels, run)
    value = Metric("mrr", k).value(ranked, [0.0] * 12, relevant)
    assert value == pytest.approx(expected[ir_measures.RR @ k], abs=1e-12)
    assert value == reciprocal_rank(ranked, relevant, k)


@pytest.mark.parametrize(
    ("beta", "expected"), [(1.0, 2 * 0.5 * 0.25 / 0.75), (2.0, 5 * 0.5 * 0.25 / (4 * 0.5 + 0.25))]
)
def test_f_beta_is_the_weighted_harmonic_mean(beta: float, expected: float) -> None:
    # Of two predictions one is right: precision 0.5; of four right passages one: recall 0.25.
    precision, recall = 0.5, 0.25
    weight = beta**2
    mean = (1 + weight) * precision * recall / (weight * precision + recall)
    value = f_beta([1, 9], frozenset({1, 2, 3, 4}), beta)
    assert value == pytest.approx(mean) == pytest.approx(expected)


def test_f_beta_predicts_by_threshold_or_count_and_never_nothing() -> None:
    ranked, scores = [4, 2, 7, 1], [0.9, 0.6, 0.4, 0.1]
    assert Metric("fbeta", 10, threshold=0.5).predicted(ranked, scores) == [4, 2]
    assert Metric("fbeta", 10, threshold=0.95).predicted(ranked, scores) == [4]
    assert Metric("fbeta", 3, threshold=0.0).predicted(ranked, scores) == [4, 2, 7]
    assert Metric("fbeta", 10, count=3).predicted(ranked, scores) == [4, 2, 7]
    assert Metric("map", 10).predicted([4, 2, -1], scores) == [4, 2]


def test_a_small_corpus_limits_the_depth() -> None:
    assert Metric("mrr", 10).within(4) == Metric("mrr", 4)
    assert Metric("mrr", 10).within(400) == Metric("mrr", 10)
