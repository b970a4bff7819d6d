"""Declare `reload`, which `train` starts to check a saved adapter in a fresh process."""

from pathlib import Path

from parity.pipeline.declaration import Command, Option

COMMAND = Command(
    "reload",
    "Embed the probe with every saved adapter of a round.",
    "parity.pipeline.reload_check:reload",
    options=(
        Option("--out", "file for the embeddings", dest="target", type=Path, is_required=True),
    ),
    has_round=True,
    is_internal=True,
)
