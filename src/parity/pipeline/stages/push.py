"""Declare `push`, which saves the kernel on Kaggle."""

from parity.pipeline.declaration import DRY_RUN, Option, Stage

STAGE = Stage(
    "push",
    "Save the kernel on Kaggle, pinned to image and datasets, which starts its run.",
    "parity.pipeline.stage_cores.push:push_or_show",
    options=(
        Option(
            "--as",
            "script or notebook (default: script)",
            dest="form",
            choices=("script", "notebook"),
            default="script",
        ),
        Option(
            "--accept-risk",
            "push although the plan says that it cannot fit; recorded",
            dest="risk",
            is_switch=True,
        ),
        DRY_RUN,
    ),
    needs=("package", "publish"),
    needs_kaggle=True,
    has_json=True,
)
