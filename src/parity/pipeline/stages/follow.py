"""Declare `follow`, which waits for the kernel and collects scores."""

from parity.pipeline.declaration import Option, Stage, at_least

STAGE = Stage(
    "follow",
    "Wait for the kernel's run, fetch and check its output, record it as `kernel`; collect scores.",
    "parity.pipeline.stage_cores.follow:follow",
    options=(
        Option(
            "--minutes",
            "longest wait (default: the competition's limit and an hour)",
            type=at_least(0.0),
            default=0.0,
        ),
    ),
    needs=("package", "push"),
    needs_kaggle=True,
    has_json=True,
    measures_kernel=True,
    evidence="kernel",
)
