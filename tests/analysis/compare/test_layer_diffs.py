"""Noise is what rounding explains: a bound on cosines, and swaps of scores that lie close."""

from dataclasses import replace

import numpy as np
import pytest
from analysis.records import KNOWN, PROMPT, Setup, measure

from parity.analysis.compare import layer_diffs
from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.competition.query import QueryId
from parity.competition.ranking import Ranking

A = measure(Setup())


def at(precision: str, quantized: str = "none") -> EvidenceRecord:
    layers = {**A.evidence.layers, "precision": f"{precision}/{quantized}"}
    return replace(A, evidence=replace(A.evidence, layers=layers))


@pytest.mark.parametrize(
    ("one", "other", "bound"),
    [
        (("float32", "none"), ("float32", "none"), 1e-5),
        (("float32", "none"), ("bfloat16", "none"), 5e-3),
        (("float16", "none"), ("bfloat16", "none"), 5e-3),
        (("float16", "none"), ("float32", "none"), 5e-4),
        (("bfloat16", "none"), ("bfloat16", "4bit"), 1e-5),
        (("bfloat16", "4bit"), ("bfloat16", "4bit"), 5e-3),
    ],
)
def test_the_coarser_precision_sets_the_bound(
    one: tuple[str, str], other: tuple[str, str], bound: float
) -> None:
    assert (
        layer_diffs.bound(at(*one), at(*other)) == layer_diffs.bound(at(*other), at(*one)) == bound
    )


def changed(ids: list[list[int]], scores: list[list[float]]) -> Ranking:
    rows = tuple(QueryId(f"{n}_A") for n in range(len(ids)))
    return Ranking(rows, np.array(ids), np.array(scores, dtype=np.float32))


def test_a_swap_of_near_ties_is_noise_and_one_of_others_is_real() -> None:
    mine = changed([[1, 2, 3], [1, 2, 3]], [[0.9, 0.9 - 1e-5, 0.5], [0.9, 0.8, 0.5]])
    near = changed([[2, 1, 3], [1, 2, 3]], mine.scores.tolist())
    found = layer_diffs._swaps(mine, near, 2e-5)
    assert (found.places, found.rows, found.real, found.first) == (2, 1, 0, None)
    far = changed([[1, 2, 3], [1, 3, 2]], mine.scores.tolist())
    found = layer_diffs._swaps(mine, far, 2e-5)
    assert (found.places, found.rows, found.real, found.first) == (2, 1, 2, QueryId("1_A"))


def test_an_id_that_left_the_ranking_was_no_near_tie_of_its_end() -> None:
    mine = changed([[1, 2, 3]], [[0.9, 0.8, 0.5]])
    other = changed([[1, 4, 3]], mine.scores.tolist())
    assert layer_diffs._swaps(mine, other, 0.2).real == 1
    assert layer_diffs._swaps(mine, other, 0.31).real == 0


def test_equal_prompts_over_another_corpus_are_told_so() -> None:
    layers = {**A.evidence.layers, "embeddings": "x"}
    b = replace(A, evidence=replace(A.evidence, layers=layers))
    found = layer_diffs.embeddings(A, b)
    assert found.state == "near"
    assert found.told == ("the prompts' are equal to the bit; the corpus' differ",)


def test_a_drift_that_nobody_can_measure_is_noise_only_where_rankings_agree() -> None:
    layers = {**A.evidence.layers, "embeddings": "x"}
    bare, other = EvidenceRecord(A.evidence), EvidenceRecord(replace(A.evidence, layers=layers))
    assert layer_diffs.embeddings(bare, other).state == "near"
    apart = EvidenceRecord(replace(A.evidence, layers={**layers, "ranking": "x"}))
    assert layer_diffs.embeddings(bare, apart).state == "differs"
    assert layer_diffs.ranking(bare, apart, KNOWN).state == "unknown"


def test_a_paired_interval_has_b_less_a() -> None:
    right = {row: min(ids) for row, ids in KNOWN.qrels.items()}
    rows = tuple(KNOWN.qrels)
    best = np.array([[right[row], *(n for n in range(100, 124))] for row in rows])
    worst = np.array([[*range(100, 124), right[row]] for row in rows])
    scores = np.zeros(best.shape, dtype=np.float32)
    one, other = Ranking(rows, best, scores), Ranking(rows, worst, scores)
    (line,) = layer_diffs.paired(one, other, KNOWN, what="the probe")
    assert "B less A -0.9" in line
    assert line.endswith("A is better")
    (line,) = layer_diffs.paired(other, one, KNOWN, what="the probe")
    assert "B less A +0.9" in line
    assert line.endswith("B is better")
    assert layer_diffs.paired(one, other, replace(KNOWN, qrels={}), what="it") == []


def test_a_score_equal_to_the_last_digit_of_two_adapters_is_flagged() -> None:
    """D26: two trainings, the same score to the 17th digit."""
    layers = {**A.evidence.layers, "adapter": "another"}
    b = replace(A, evidence=replace(A.evidence, layers=layers))
    found = layer_diffs.score(A, b, KNOWN, "equal")
    assert found.state == "equal"
    assert "scored twice?" in found.told[0]


def test_a_submission_may_change_as_far_as_noise_goes() -> None:
    b = measure(Setup(drift=1e-7))
    assert A.submission is not None
    ids = A.submission.ids.copy()
    ids[0, [23, 24]] = ids[0, [24, 23]]
    layers = {**b.evidence.layers, "submission": "x"}
    swapped = replace(
        b,
        submission=replace(A.submission, ids=ids),
        evidence=replace(b.evidence, layers=layers),
    )
    assert layer_diffs.submission(A, swapped, "near").state == "near"
    assert layer_diffs.submission(A, swapped, "equal").state == "differs"
    assert "1 of 11 rows differ, first 10_B" in layer_diffs.submission(A, swapped, "near").told[0]


def test_two_bare_bases_that_were_asked_otherwise_lack_no_adapter() -> None:
    other = PROMPT.model_copy(update={"instruction": "Say what went wrong."})
    one, two = measure(Setup(adapter=0)), measure(Setup(adapter=0, prompt=other))
    found = layer_diffs.embeddings(one, two)
    assert found.state == "differs"
    assert not any("adapter" in line for line in found.told)
    assert not found.sure


def test_rankings_with_little_in_common_are_no_noise_however_wide_the_margin() -> None:
    two = measure(Setup(adapter=2, precision="bfloat16"))
    found = layer_diffs.ranking(A, two, KNOWN)
    assert found.state == "differs"
