"""Declare `train`, which fine-tunes an adapter."""

from parity.pipeline.declaration import Stage

STAGE = Stage(
    "train",
    "Train an adapter on the negatives, score every epoch and keep the best one.",
    "parity.pipeline.stage_cores.train:train",
    needs=("prepare", "mine"),
    reads=(
        (
            "prepare",
            ("queries.jsonl", "qrels.jsonl", "corpus.jsonl", "examples.jsonl", "splits/*"),
        ),
        ("mine", ("negatives.jsonl",)),
    ),
    config=("prompt", "encoder", "training"),
    unused=("training.examples", "training.init_from"),
    settings="parity.run.config.stage_settings:training_config",
    model="initial",
    every_round=True,
    runs_in_image=True,
)
