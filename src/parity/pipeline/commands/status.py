"""Declare `status`, which shows what is done and what comes next."""

from parity.pipeline.declaration import Command

COMMAND = Command(
    "status",
    "Show which stages are done, stale or missing, and the next command.",
    "parity.pipeline.command_cores.status:status",
    run_file="optional",
)
