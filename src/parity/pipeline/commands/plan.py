"""Declare `plan`, which estimates time and memory."""

from parity.pipeline.declaration import Command, Option, at_least

COMMAND = Command(
    "plan",
    "Estimate time and memory of the kernel on Kaggle; with --device here, of the stages on this "
    "machine.",
    "parity.pipeline.command_cores.plan:plan_kernel_or_machine",
    options=(
        Option(
            "--device",
            "here, cpu, t4x2, l4x1, l4x4, a100 or h100 (default: the run file's)",
            default="",
        ),
        Option(
            "--queries",
            "rows of the hidden test (default: the run file's)",
            type=at_least(0),
            default=0,
        ),
    ),
    has_round=True,
    has_json=True,
)
