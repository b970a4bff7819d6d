"""Declare `eval`, which scores models on a validation set."""

from dataclasses import replace
from pathlib import Path

from parity.pipeline.declaration import EVALUATION, MODEL, Option, Stage

STAGE = Stage(
    "eval",
    "Score a model on the validation set: all, seen and unseen labels; record it as `cv`.",
    "parity.pipeline.stage_cores.evaluate:evaluate",
    options=(
        replace(MODEL, group="models"),
        EVALUATION,
        Option(
            "--all",
            "score every model of the run under its settings and every named evaluation, where "
            "that is missing",
            dest="model",
            is_switch=True,
            on="all",
            default="",
            group="models",
        ),
        Option("--against", "another run file to compare with", type=Path),
        Option("--csv", "also write the table of scores to this CSV file", type=Path),
        Option(
            "--accept-contaminated",
            "score rows that the adapter was trained on; kept out of every table",
            is_switch=True,
        ),
    ),
    needs=("prepare",),
    reads=(("prepare", ("queries.jsonl", "qrels.jsonl", "corpus.jsonl", "probe.jsonl")),),
    follows=("train",),
    config=("competition", "split", "prompt", "encoder", "scoring"),
    model="best",
    has_any_split=True,
    every_round=True,
    needs_validation=True,
    has_json=True,
    runs_in_image=True,
    measures_kernel=True,
    subfolder="best",
    evidence="cv",
)
