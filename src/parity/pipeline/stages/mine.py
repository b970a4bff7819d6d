"""Declare `mine`, which chooses hard negatives."""

from pathlib import Path

from parity.pipeline.declaration import Option, Stage

STAGE = Stage(
    "mine",
    "Rank the corpus for the training queries and choose hard negatives.",
    "parity.pipeline.stage_cores.mine:mine",
    options=(
        Option(
            "--import",
            "FlagEmbedding file with the negatives; nothing is ranked",
            dest="imported",
            type=Path,
        ),
    ),
    needs=("prepare",),
    needs_previous=("train",),
    config=("prompt", "encoder", "mining"),
    every_round=True,
    runs_in_image=True,
)
