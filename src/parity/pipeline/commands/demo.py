"""Declare `demo`, which runs the entire pipeline."""

from pathlib import Path

from parity.pipeline.declaration import Command, Option

COMMAND = Command(
    "demo",
    "Run the entire pipeline, two rounds, to a submission, its rehearsal and a report.",
    "parity.pipeline.command_cores.demo:demo",
    options=(
        Option("--data", "folder with Kaggle's four files", type=Path),
        Option("--quick", "run a few steps of everything; the scores mean nothing", is_switch=True),
    ),
    run_file="none",
)
