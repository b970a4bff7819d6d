"""Score a run of the bench once more, and compare two of its records as the command line does."""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.__main__ import main
from parity.pipeline.stage_cores import evaluate
from parity.run import ledger


def told(*words: str) -> tuple[int, dict[str, Any]]:
    """Start `reconcile --json`; return its exit code and what it told a machine."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(io.StringIO()):
        code = main(["reconcile", *words, "--json"])
    return code, json.loads(said.getvalue())


def scored(bench: Bench, *sets: str, name: str = "small", label: str = "best") -> str:
    """Score once more under other settings and return the record's id."""
    evaluate.evaluate(bench.run(*sets, name=name), label)
    return ledger.id_of(ledger.read(bench.run().workspace.ledger)[-1])


def first(bench: Bench) -> str:
    """Return the id of the first record."""
    return ledger.id_of(ledger.read(bench.run().workspace.ledger)[0])


def again(bench: Bench, patch: pytest.MonkeyPatch, *sets: str) -> tuple[int, dict[str, Any]]:
    """Score the adapter anew under other settings, which would be refused; compare with the first.

    It is scored as if it had been trained under them, and nothing is taken from the cache.
    """
    patch.setattr(evaluate, "_as_in_training", lambda *_: None)
    for stage in ("mine", "train"):
        benches.rewrite_config(bench.run(*sets), stage)
    shutil.rmtree(bench.data / "cache", ignore_errors=True)
    return told(first(bench), scored(bench, *sets))


def layers(found: dict[str, Any], key: str) -> dict[str, Any]:
    """Return layer → its state, role or lines."""
    return {one["layer"]: one[key] for one in found["layers"]}
