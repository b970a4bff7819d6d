"""Declare `publish`, which uploads the datasets."""

from parity.pipeline.declaration import DRY_RUN, Option, Stage

STAGE = Stage(
    "publish",
    "Upload bundle and wheelhouse as private Kaggle datasets, only where they are new.",
    "parity.pipeline.stage_cores.publish:publish_or_show",
    options=(
        Option(
            "--base",
            "upload the base model alone; do it once",
            dest="content",
            is_switch=True,
            default="bundle",
            on="base",
        ),
        DRY_RUN,
    ),
    needs=("package", "rehearse"),
    needs_kaggle=True,
    has_json=True,
)
