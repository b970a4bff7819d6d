"""Declare `prepare`, which reads the competition's files."""

from parity.pipeline.declaration import Stage

STAGE = Stage(
    "prepare",
    "Read and check the competition's files; split the queries; choose examples and probe.",
    "parity.pipeline.stage_cores.prepare:prepare",
    config=("data", "competition", "split"),
    has_round=False,
    every_round=True,
    runs_in_image=True,
    changed_inputs="parity.pipeline.dag:changed_raw_files",
)
