"""Declare `prepare`, which reads the competition's files."""

from parity.pipeline.declaration import Stage

STAGE = Stage(
    "prepare",
    "Read and check the competition's files; split the queries; choose examples and probe.",
    "parity.pipeline.stage_cores.prepare:prepare",
    config=("data", "competition", "split"),
    unused=(
        "data.license",
        *(f"competition.{key}" for key in ("k", "metric", "beta", "threshold", "count")),
    ),
    has_round=False,
    every_round=True,
    runs_in_image=True,
    changed_inputs="parity.pipeline.changes:changed_raw_files",
)
