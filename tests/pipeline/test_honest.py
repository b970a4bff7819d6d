"""One adapter scored in two honest ways is the same, or the same within noise: no false alarm."""

from pathlib import Path
from typing import Any

import pair
import pytest
import torch
from pipeline import comparing
from pipeline.run_fixture import Bench

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
"""What was scored otherwise → settings, threads, and the layers that are named as harmless."""
SEEDED = ("1", "4242")
TOGETHER = """\
from parity.__main__ import main

raise SystemExit(main(["eval", "small.toml"]))
"""


def judged(code: int, found: dict[str, Any], harmless: tuple[str, ...]) -> None:
    """Check that nothing is called different, and that what may differ is named."""
    states = comparing.layers(found, "state")
    assert (code, found["layer"]) == (0, ""), found
    assert found["verdict"] in ("same", "same within numeric noise")
    assert {states[name] for name in harmless} <= {"near"}
    assert {states[name] for name in ("texts", "tokens", "adapter", "template")} == {"equal"}
    assert "differs" not in states.values()


@pytest.mark.parametrize("name", PAIRS)
def test_an_honest_pair_differs_by_noise_at_most(
    made: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, threads, harmless = PAIRS[name]
    before = torch.get_num_threads()
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        torch.set_num_threads(threads)
    try:
        code, found = comparing.again(made, monkeypatch, *sets)
    finally:
        torch.set_num_threads(before)
    judged(code, found, harmless)
    if not sets and not threads:
        assert found["verdict"] == "same"


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDED)
def test_another_hash_seed_in_a_process_of_its_own_is_the_same(made: Bench, seed: str) -> None:
    answer = made.process("eval", "small.toml", PYTHONHASHSEED=seed)
    assert answer.returncode == 0, answer.stderr
    code, found = comparing.told(comparing.first(made), newest(made))
    judged(code, found, ())
    assert found["verdict"] == "same"


@pytest.mark.slow
def test_two_processes_are_the_same_as_one(made: Bench) -> None:
    program = Path("together.py")
    program.write_text(TOGETHER)
    pair.run(str(program))
    code, found = comparing.told(comparing.first(made), newest(made))
    judged(code, found, ("budget",))
    (budget,) = (one for one in found["layers"] if one["layer"] == "budget")
    assert "2 processes" in budget["told"][0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_is_the_same_as_the_cpu_within_noise(
    made: Bench, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ("encoder.device=cuda", f"encoder.precision={precision}")
    judged(*comparing.again(made, monkeypatch, *sets), ("device",))


def newest(bench: Bench) -> str:
    """Return the id of the record that another process has added."""
    records = ledger.read(bench.run().workspace.ledger)
    assert len(records) > 1
    return ledger.id_of(records[-1])
