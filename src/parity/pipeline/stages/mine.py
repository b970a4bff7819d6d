"""Declare `mine`, which chooses hard negatives."""

from dataclasses import replace
from pathlib import Path

from parity.pipeline.declaration import MODEL, Option, Stage

STAGE = Stage(
    "mine",
    "Rank the corpus for the training queries and choose hard negatives.",
    "parity.pipeline.stage_cores.mine:mine",
    options=(
        replace(
            MODEL,
            help="model that ranks, as for `eval` (default: base, then the previous round's best)",
            group="source",
        ),
        Option(
            "--import",
            "FlagEmbedding file with the negatives; nothing is ranked",
            dest="imported",
            type=Path,
            group="source",
        ),
    ),
    needs=("prepare",),
    reads=(
        (
            "prepare",
            ("queries.jsonl", "qrels.jsonl", "corpus.jsonl", "examples.jsonl", "splits/*"),
        ),
    ),
    config=("prompt", "encoder", "mining"),
    unused=("mining.examples", "mining.quantize"),
    settings="parity.run.config.stage_settings:mining_config",
    model="previous",
    every_round=True,
    runs_in_image=True,
)
