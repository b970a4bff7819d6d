"""Declare `advise`, which says which CV to trust."""

from pathlib import Path

from parity.pipeline.declaration import ROWS, Command, Option

COMMAND = Command(
    "advise",
    "Say which split and epoch to trust, and which runs the CV cannot distinguish.",
    "parity.pipeline.command_cores.advise:advise",
    options=(
        Option(
            "log",
            "table of runs, FILE.csv, to read instead of the ledger",
            type=Path,
        ),
        ROWS,
    ),
    run_file="none",
    has_overrides=False,
    has_json=True,
)
