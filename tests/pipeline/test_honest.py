"""Two correct ways to score one adapter are the same, or the same within noise: no false alarm."""

from pathlib import Path
from typing import Any

import pair
import pytest
import torch
from pipeline import comparing
from pipeline.run_fixture import RunFixture

from parity.run import ledger

BF16, DENSE = "encoder.precision=bf16", "encoder.attention=dense"
BLOCKS = "encoder.attention=blocks"
PAIRS: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "once more": ((), 0, ()),
    "another bootstrap seed": (("scoring.seed=5",), 0, ()),
    "a third bootstrap seed": (("scoring.seed=11",), 0, ()),
    "more resamples": (("scoring.bootstrap=400",), 0, ()),
    "another seen share": (("scoring.seen_share=0.4",), 0, ()),
    "the least budget": (("encoder.token_budget=64",), 0, ("budget",)),
    "a small budget": (("encoder.token_budget=128",), 0, ("budget",)),
    "twice the budget": (("encoder.token_budget=1024",), 0, ("budget",)),
    "one pack": (("encoder.token_budget=16384",), 0, ("budget",)),
    "two threads": ((), 2, ("budget",)),
    "three threads": ((), 3, ("budget",)),
    "three threads, one pack": (("encoder.token_budget=16384",), 3, ("budget",)),
    "all pairs attended to": ((DENSE,), 0, ()),
    "attended to in blocks": ((BLOCKS,), 0, ()),
    "all pairs, a small budget": ((DENSE, "encoder.token_budget=128"), 0, ("budget",)),
    "blocks, two threads": ((BLOCKS,), 2, ("budget",)),
    "bf16": ((BF16,), 0, ("precision",)),
    "bf16, all pairs": ((BF16, DENSE), 0, ("precision",)),
    "bf16, a small budget": ((BF16, "encoder.token_budget=128"), 0, ("precision", "budget")),
    "bf16, four threads": ((BF16,), 4, ("precision", "budget")),
}
"""Difference in scoring → overrides, threads, and layers reported as harmless."""
HASH_SEEDS = ("1", "4242")
TOGETHER = """\
from parity.cli import main

raise SystemExit(main(["eval", "small.toml"]))
"""


def check_same(code: int, result: dict[str, Any], harmless: tuple[str, ...]) -> None:
    """Check that no layer differs beyond noise, and that the harmless ones are reported."""
    states = comparing.by_layer(result, "state")
    assert (code, result["layer"]) == (0, ""), result
    assert result["result"] in ("same", "same within numeric noise")
    assert {states[name] for name in harmless} <= {"near"}
    assert {states[name] for name in ("texts", "tokens", "adapter", "template")} == {"equal"}
    assert "differs" not in states.values()


@pytest.mark.parametrize("name", PAIRS)
def test_an_honest_pair_differs_by_noise_at_most(
    predicted_run: RunFixture, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, threads, harmless = PAIRS[name]
    threads_before = torch.get_num_threads()
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        torch.set_num_threads(threads)
    try:
        code, result = comparing.compare_rescored(predicted_run, monkeypatch, *overrides)
    finally:
        torch.set_num_threads(threads_before)
    check_same(code, result, harmless)
    if not overrides and not threads:
        assert result["result"] == "same"


@pytest.mark.slow
@pytest.mark.parametrize("seed", HASH_SEEDS)
def test_another_hash_seed_in_another_process_gives_the_same(
    predicted_run: RunFixture, seed: str
) -> None:
    answer = predicted_run.run_parity("eval", "small.toml", PYTHONHASHSEED=seed)
    assert answer.returncode == 0, answer.stderr
    code, result = comparing.reconcile_json(
        comparing.first_record(predicted_run), newest_record(predicted_run)
    )
    check_same(code, result, ())
    assert result["result"] == "same"


@pytest.mark.slow
def test_two_processes_give_the_same_as_one(predicted_run: RunFixture) -> None:
    program = Path("together.py")
    program.write_text(TOGETHER)
    pair.run(str(program))
    code, result = comparing.reconcile_json(
        comparing.first_record(predicted_run), newest_record(predicted_run)
    )
    check_same(code, result, ("budget",))
    (budget,) = (item for item in result["layers"] if item["layer"] == "budget")
    assert "2 processes" in budget["lines"][0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_gives_the_same_as_the_cpu_within_noise(
    predicted_run: RunFixture, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("encoder.device=cuda", f"encoder.precision={precision}")
    check_same(*comparing.compare_rescored(predicted_run, monkeypatch, *overrides), ("device",))


def newest_record(small_run: RunFixture) -> str:
    """Return the id of the record that another process added."""
    records = ledger.read(small_run.open().workspace.ledger)
    assert len(records) > 1
    return ledger.id_of(records[-1])
