"""Noise is what rounding explains: cosines within a bound, and swaps of nearly equal scores."""

from dataclasses import replace

import numpy as np
import pytest
from analysis.records import ARTIFACTS, PROMPT, Setup, measure

from parity.analysis.compare import layer_diffs
from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.competition.query import QueryId
from parity.competition.ranking import Ranking

A = measure(Setup())


def with_layers(record: EvidenceRecord, **layers: str) -> EvidenceRecord:
    evidence = replace(record.evidence, layers={**record.evidence.layers, **layers})
    return replace(record, evidence=evidence)


def without_artifacts(record: EvidenceRecord) -> EvidenceRecord:
    return EvidenceRecord(record.evidence)


@pytest.mark.parametrize(
    ("a", "b", "bound"),
    [
        ("float32/none", "float32/none", 1e-5),
        ("float32/none", "bfloat16/none", 5e-3),
        ("float16/none", "bfloat16/none", 5e-3),
        ("float16/none", "float32/none", 5e-4),
        ("bfloat16/none", "bfloat16/4bit", 1e-5),
        ("bfloat16/4bit", "bfloat16/4bit", 5e-3),
    ],
)
def test_the_coarser_precision_sets_the_bound(a: str, b: str, bound: float) -> None:
    records = with_layers(A, precision=a), with_layers(A, precision=b)
    assert layer_diffs.bound(*records) == layer_diffs.bound(*reversed(records)) == bound


def ranking(positions: list[list[int]], scores: list[list[float]]) -> Ranking:
    rows = tuple(QueryId(f"{n}_A") for n in range(len(positions)))
    return Ranking(rows, np.array(positions), np.array(scores, dtype=np.float32))


def test_a_swap_of_nearly_equal_scores_is_within_the_margin() -> None:
    a = ranking([[1, 2, 3], [1, 2, 3]], [[0.9, 0.9 - 1e-5, 0.5], [0.9, 0.8, 0.5]])
    near = ranking([[2, 1, 3], [1, 2, 3]], a.scores.tolist())
    swaps = layer_diffs._count_swaps(a, near, 2e-5)
    assert (swaps.ranks, swaps.rows, swaps.beyond, swaps.first) == (2, 1, 0, None)
    far = ranking([[1, 2, 3], [1, 3, 2]], a.scores.tolist())
    swaps = layer_diffs._count_swaps(a, far, 2e-5)
    assert (swaps.ranks, swaps.rows, swaps.beyond, swaps.first) == (2, 1, 2, QueryId("1_A"))


def test_a_passage_that_dropped_out_is_compared_with_the_lowest_score() -> None:
    a = ranking([[1, 2, 3]], [[0.9, 0.8, 0.5]])
    b = ranking([[1, 4, 3]], a.scores.tolist())
    assert layer_diffs._count_swaps(a, b, 0.2).beyond == 1
    assert layer_diffs._count_swaps(a, b, 0.31).beyond == 0


def test_equal_prompts_over_another_corpus_are_reported() -> None:
    result = layer_diffs.embeddings(A, with_layers(A, embeddings="x"))
    assert result.state == "near"
    assert result.lines == ("prompt embeddings are bitwise equal; corpus embeddings differ",)


def test_an_unmeasured_drift_is_noise_only_if_rankings_agree() -> None:
    a, b = without_artifacts(A), without_artifacts(with_layers(A, embeddings="x"))
    assert layer_diffs.embeddings(a, b).state == "near"
    b = with_layers(b, ranking="x")
    assert layer_diffs.embeddings(a, b).state == "differs"
    assert layer_diffs.ranking(a, b, ARTIFACTS).state == "unknown"


def test_a_paired_interval_is_b_minus_a() -> None:
    right = {row: min(positions) for row, positions in ARTIFACTS.qrels.items()}
    rows = tuple(ARTIFACTS.qrels)
    best = np.array([[right[row], *range(100, 124)] for row in rows])
    worst = np.array([[*range(100, 124), right[row]] for row in rows])
    scores = np.zeros(best.shape, dtype=np.float32)
    a, b = Ranking(rows, best, scores), Ranking(rows, worst, scores)
    (line,) = layer_diffs.paired(a, b, ARTIFACTS, rows="the probe")
    assert "B minus A -0.9" in line
    assert line.endswith("A is better")
    (line,) = layer_diffs.paired(b, a, ARTIFACTS, rows="the probe")
    assert "B minus A +0.9" in line
    assert line.endswith("B is better")
    assert layer_diffs.paired(a, b, replace(ARTIFACTS, qrels={}), rows="the probe") == []


def test_d26_two_adapters_with_exactly_the_same_score_are_flagged() -> None:
    """Two trainings never give the same score to the 17th digit."""
    result = layer_diffs.score(A, with_layers(A, adapter="another"), ARTIFACTS, "equal")
    assert result.state == "equal"
    assert "scored twice?" in result.lines[0]


def test_a_submission_may_change_as_far_as_noise_goes() -> None:
    b = with_layers(measure(Setup(drift=1e-7)), submission="x")
    assert A.submission is not None
    positions = A.submission.positions.copy()
    positions[0, [23, 24]] = positions[0, [24, 23]]
    b = replace(b, submission=replace(A.submission, positions=positions))
    result = layer_diffs.submission(A, b, "near")
    assert result.state == "near"
    assert "1 of 11 rows differ, first 10_B" in result.lines[0]
    assert layer_diffs.submission(A, b, "equal").state == "differs"


def test_two_base_models_with_other_prompts_are_not_called_adapter_faults() -> None:
    other = PROMPT.model_copy(update={"instruction": "Say what went wrong."})
    a, b = measure(Setup(adapter=0)), measure(Setup(adapter=0, prompt=other))
    result = layer_diffs.embeddings(a, b)
    assert result.state == "differs"
    assert not any("adapter" in line for line in result.lines)
    assert not result.is_conclusive


def test_rankings_with_little_overlap_are_never_noise() -> None:
    b = measure(Setup(adapter=2, precision="bfloat16"))
    assert layer_diffs.ranking(A, b, ARTIFACTS).state == "differs"
