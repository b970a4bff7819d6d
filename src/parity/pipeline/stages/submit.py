"""Declare `submit`, which submits the kernel's checked version."""

from parity.pipeline.declaration import DRY_RUN, Stage

STAGE = Stage(
    "submit",
    "Submit the kernel's checked version to the competition, once.",
    "parity.pipeline.stage_cores.submit:submit_or_show",
    options=(DRY_RUN,),
    needs=("package", "follow"),
    needs_kaggle=True,
    has_json=True,
    evidence="public",
)
