"""Declare `reconcile`, which compares two scores."""

from pathlib import Path

from parity.pipeline.declaration import ROWS, Option, Stage

STAGE = Stage(
    "reconcile",
    "Compare two records of evidence and name the first layer that differs.",
    "parity.pipeline.stage_cores.reconcile:reconcile_run_or_records",
    options=(
        Option(
            "records",
            "record: MODEL or MODEL@EVALUATION of the run (best@plain, epoch-4), an id of the "
            "ledger, RUN/round-N/STAGE, a run_report.json, a score such as 0.304, or alone a "
            "table of runs, FILE.csv (default: the run's CV and last step)",
            names=("a", "b"),
            needs_run=False,
        ),
        Option(
            "--import",
            "add the evidence of this run_report.json to the ledger",
            dest="imported",
            type=Path,
            needs_run=False,
            group="work",
        ),
        Option(
            "--attribute",
            "show each layer's part of the gap, by swapping one after the other",
            is_switch=True,
            needs_run=False,
            group="work",
        ),
        Option(
            "--with-text",
            "show where texts differ; the text belongs to the competition",
            is_switch=True,
        ),
        ROWS,
    ),
    needs=("rehearse",),
    needs_without_validation=("rehearse", "follow"),
    follows=("eval", "submit"),
    has_json=True,
    changed_inputs="parity.pipeline.changes:changed_evidence",
)
