"""Declare `package`, which gathers what goes to Kaggle."""

from parity.pipeline.declaration import Stage

STAGE = Stage(
    "package",
    "Gather the adapter and its wheels into a sealed bundle and wheelhouse.",
    "parity.pipeline.stage_cores.package:package",
    needs=("prepare", "train", "eval"),
    config=("data", "prompt", "encoder", "shipping"),
    changed_inputs="parity.pipeline.dag:changed_locks",
)
