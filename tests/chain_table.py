"""An end-to-end check of a competition of plain tables, from its files to a report.

`python tests/chain_table.py` runs every local stage of runs/tiny-table.toml in new processes, in an
empty data folder. The rehearsed submission must have the bytes of the local one and the row format
of the run file.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parity.pipeline import dag
from parity.pipeline.dataset import load
from parity.run import ledger
from parity.run.experiment import Run, open_run

RUN = Path("runs/tiny-table.toml")
STAGES = (
    *("prepare", "mine", "train", "eval", "predict"),
    *("package", "rehearse", "reconcile", "report"),
)


def run_stage(stage: str) -> None:
    """Run one stage in a new process and print its time and its last lines."""
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "parity", stage, "--run", str(RUN)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = result.stdout.strip().splitlines()
    print(f"== {stage} ({time.monotonic() - started:.1f} s)", *lines[-3:], sep="\n", flush=True)
    assert result.returncode == 0, (stage, result.returncode, result.stderr)


def check_submission(run: Run) -> None:
    """Check rows, columns and ids, and that the rehearsal wrote the same bytes."""
    data = load(run.config, run.workspace)
    local = dag.folder(run, "predict") / "answers.csv"
    rehearsed = dag.folder(run, "rehearse") / "kaggle" / "working" / "answers.csv"
    assert local.read_bytes() == rehearsed.read_bytes()
    with local.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["ticket", "articles"]
    assert [row["ticket"] for row in rows] == [query.row for query in data.test]
    for row in rows:
        ids = row["articles"].split(" ")
        assert len(set(ids)) == len(ids) == 10
        assert set(ids) <= set(data.corpus.ids)


def check_records(run: Run) -> None:
    """Check that scores and evidence are of the run file's metric."""
    records = ledger.read(run.workspace.ledger)
    assert [record.kind for record in records] == ["cv", "rehearsal"]
    assert {"mrr@10", "recall@10"} <= records[0].score["all"].keys()
    assert "MRR@10" in run.workspace.report_html.read_text(encoding="utf-8")


def main() -> None:
    """Run all stages in an empty data folder, then check what they wrote."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as data:
        os.environ["PARITY_DATA"] = data
        for stage in STAGES:
            run_stage(stage)
        run = open_run(RUN)
        check_submission(run)
        check_records(run)
    print(f"all {len(STAGES)} stages passed in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
