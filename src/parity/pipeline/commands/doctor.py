"""Declare `doctor`, which checks this machine."""

from parity.pipeline.declaration import Command, Option

COMMAND = Command(
    "doctor",
    "Check this machine and print the command that fixes each problem.",
    "parity.pipeline.command_cores.doctor:doctor",
    options=(
        Option(
            "--online",
            "check Kaggle too: login, rules, quota",
            dest="reach",
            is_switch=True,
            default="offline",
            on="online",
        ),
    ),
    has_round=True,
    has_json=True,
)
