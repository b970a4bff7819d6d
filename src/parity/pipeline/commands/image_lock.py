"""Declare `image.lock`, which locks the packages of Kaggle's image."""

from pathlib import Path

from parity.pipeline.declaration import Command, Option

COMMAND = Command(
    "image.lock",
    "Lock the packages of Kaggle's image from a `pip freeze` and show what changes.",
    "parity.pipeline.command_cores.image:lock_from_freeze",
    options=(
        Option(
            "--freeze",
            "file with the output of `pip freeze` in Kaggle's image",
            type=Path,
            is_required=True,
        ),
        Option("--git-commit", "text of the image's /etc/git_commit", default=""),
        Option("--build-date", "text of the image's /etc/build_date", default=""),
    ),
    run_file="none",
    has_overrides=False,
)
