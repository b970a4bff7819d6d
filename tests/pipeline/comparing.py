"""Score a small run once more, and compare two of its records as the command line does."""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.pipeline import evaluation_job
from parity.pipeline.stage_cores import evaluate
from parity.run import ledger


def reconcile_json(*words: str) -> tuple[int, dict[str, Any]]:
    """Start `reconcile --json`; return its exit code and JSON."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(io.StringIO()):
        code = main(["reconcile", *words, "--json"])
    return code, json.loads(output.getvalue())


def rescore(small_run: RunFixture, *sets: str, name: str = "small", label: str = "best") -> str:
    """Score under other settings and return the record's id."""
    evaluate.evaluate(small_run.open(*sets, name=name), label)
    return ledger.id_of(ledger.read(small_run.open().workspace.ledger)[-1])


def first_record(small_run: RunFixture) -> str:
    """Return the id of the first record."""
    return ledger.id_of(ledger.read(small_run.open().workspace.ledger)[0])


def compare_rescored(
    small_run: RunFixture, patch: pytest.MonkeyPatch, *sets: str
) -> tuple[int, dict[str, Any]]:
    """Score the adapter under other settings and compare with the first score.

    The comparison with the score in training is switched off, and the cache is not used.
    """
    patch.setattr(evaluation_job, "_as_in_training", lambda *_: None)
    shutil.rmtree(small_run.data / "cache", ignore_errors=True)
    return reconcile_json(first_record(small_run), rescore(small_run, *sets))


def by_layer(result: dict[str, Any], key: str) -> dict[str, Any]:
    """Return layer → its state, role or lines."""
    return {item["layer"]: item[key] for item in result["layers"]}
