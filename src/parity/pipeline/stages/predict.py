"""Declare `predict`, which writes the submission."""

from parity.pipeline.declaration import Stage

STAGE = Stage(
    "predict",
    "Rank the corpus for the test queries and write submission.csv.",
    "parity.pipeline.stage_cores.predict:predict",
    needs=("prepare", "train"),
    config=("prompt", "encoder"),
    runs_in_image=True,
    measures_kernel=True,
)
