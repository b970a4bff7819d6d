"""Declare `eval`, which scores an adapter on the validation set."""

from pathlib import Path

from parity.pipeline.declaration import Option, Stage

STAGE = Stage(
    "eval",
    "Score an adapter on the validation set: all, seen and unseen labels; record it as `cv`.",
    "parity.pipeline.stage_cores.evaluate:evaluate",
    options=(
        Option(
            "--adapter",
            "best, base or epoch-N (default: best)",
            dest="label",
            default="best",
        ),
        Option("--against", "another run file to compare with", type=Path),
        Option(
            "--accept-contaminated",
            "score rows that the adapter was trained on; kept out of every table",
            is_switch=True,
        ),
    ),
    needs=("prepare", "train"),
    config=("prompt", "encoder", "scoring"),
    every_round=True,
    needs_validation=True,
    runs_in_image=True,
    measures_kernel=True,
    subfolder="best",
    evidence="cv",
)
