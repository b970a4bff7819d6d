"""Declare `train`, which fine-tunes an adapter."""

from parity.pipeline.declaration import Stage

STAGE = Stage(
    "train",
    "Train an adapter on the negatives, score every epoch and keep the best one.",
    "parity.pipeline.stage_cores.train:train",
    needs=("prepare", "mine"),
    needs_previous=("train",),
    config=("prompt", "encoder", "training", "scoring"),
    every_round=True,
    runs_in_image=True,
)
