"""The effect of sampling on MAP: statistics, and packs without prefix sharing."""

from statistics import fmean
from typing import Any

import numpy as np
import pytest

from benchmarks.arms import ARMS
from benchmarks.effects import effect, effects, markdown
from benchmarks.trial import apart
from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import estimate
from parity.retrieval.engine import trie
from parity.run.config.run_file import Config
from parity.run.config.scoring import ScoringConfig
from parity.run.errors import Mismatch

SCORING = ScoringConfig(bootstrap=200)
ROWS = [QueryId(f"{question}_{answer}") for question in range(20) for answer in "AB"]


def outcome(arm: str, seed: int, gain: float) -> dict[str, Any]:
    draws = np.random.default_rng(seed).uniform(0.2, 0.6, len(ROWS))
    return {
        "arm": arm,
        "seed": seed,
        "precisions": {"own": dict(zip(ROWS, (draws + gain).tolist(), strict=True))},
        "unseen": ROWS[:30],
        "steps": 2,
        "rows": 40,
        "packed_tokens": 50,
        "plain_tokens": 100,
        "seconds_per_step": None,
        "peak_gib": 0.0,
        "held_gib": 0.0,
    }


def arm(name: str, *gains: float) -> list[dict[str, Any]]:
    return [outcome(name, seed, gain) for seed, gain in enumerate(gains, start=1)]


def test_a_difference_is_the_mean_over_seeds_resampled_by_question() -> None:
    arm_outcomes, reference = arm("E", 0.1, 0.2, 0.0), arm("D", 0.0, 0.0, 0.03)
    result = effect(arm_outcomes, reference[::-1], "own", SCORING)
    by_row = {
        row: fmean(
            item["precisions"]["own"][row] - other["precisions"]["own"][row]
            for item, other in zip(arm_outcomes, reference, strict=True)
        )
        for row in ROWS
    }
    expected = estimate(by_row, frozenset(ROWS[:30]), SCORING)
    assert result.gain.all.value == pytest.approx(0.09)
    assert (result.gain.all.low, result.gain.all.high) == pytest.approx(
        (expected.all.low, expected.all.high)
    )
    assert result.by_seed == pytest.approx({1: 0.1, 2: 0.2, 3: -0.03})
    assert result.shown == "no difference shown"  # a seed disagrees


@pytest.mark.parametrize(("gain", "expected"), [(0.1, "better"), (-0.1, "worse")])
def test_a_difference_is_shown_where_every_seed_agrees(gain: float, expected: str) -> None:
    assert effect(arm("E", gain, gain, gain), arm("D", 0, 0, 0), "own", SCORING).shown == expected
    few = effect(arm("E", gain, gain), arm("D", 0, 0), "own", SCORING)
    assert few.shown.startswith("fewer than 3 seeds")


def test_arms_are_compared_over_the_seeds_that_both_have() -> None:
    (result,) = effects([*arm("E", 0.1, 0.1, 0.1), *arm("D", 0.0, 0.0)], SCORING)
    assert (result.arm, result.reference, sorted(result.by_seed)) == ("E", "D", [1, 2])
    assert "E − D" in markdown([*arm("E", 0.1), *arm("D", 0.0)], SCORING)


def test_other_seeds_rows_or_splits_are_refused() -> None:
    with pytest.raises(Mismatch, match="seeds"):
        effect(arm("E", 0.1, 0.1), arm("D", 0.0), "own", SCORING)
    other = arm("D", 0.0)
    del other[0]["precisions"]["own"][ROWS[0]]
    with pytest.raises(Mismatch, match="rows"):
        effect(arm("E", 0.1), other, "own", SCORING)
    with pytest.raises(Mismatch, match="split"):
        effect(arm("E", 0.1), [{**arm("D", 0.0)[0], "unseen": []}], "own", SCORING)


def test_sequences_apart_share_nothing_and_are_restored() -> None:
    sequences = [[1, 2, 3], [1, 2, 4], [1, 2, 3], [5] * 9]
    packs = apart(sequences, 6)
    assert trie.unpack(packs) == dict(enumerate(sequences))
    assert [len(pack) for pack in packs] == [6, 3, 9]
    assert sum(map(len, packs)) > sum(map(len, trie.pack(sequences, 6)))


def test_every_arm_is_a_run_and_is_compared_with_arms() -> None:
    for arm_ in ARMS.values():
        assert set(arm_.against) <= set(ARMS)
        assert f"training.lora_dropout={arm_.dropout}" in arm_.sets(1, Config(name="x"))
