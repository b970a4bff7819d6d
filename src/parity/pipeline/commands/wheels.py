"""Declare `wheels`, which fills the wheelhouse."""

from parity.pipeline.declaration import Command

COMMAND = Command(
    "wheels",
    "Resolve, lock, download and verify the wheels missing from Kaggle's image.",
    "parity.pipeline.command_cores.wheels:wheels",
)
