"""Declare `report`, which writes the run's report."""

from parity.pipeline.declaration import Command, Option

COMMAND = Command(
    "report",
    "Write report.html and report.md: stages, scores, differences and forecasts.",
    "parity.pipeline.command_cores.report:report",
    options=(
        Option(
            "--with-text",
            "show the competition's text in the HTML; do not share that file",
            is_switch=True,
        ),
    ),
)
