"""Declare `rehearse`, which runs the kernel's script offline."""

from parity.pipeline.declaration import WHERE, Option, Stage

STAGE = Stage(
    "rehearse",
    "Run the kernel's script offline, twice; record it as `rehearsal`.",
    "parity.pipeline.command_cores.rehearse_image:rehearse_here_or_in_image",
    options=(
        Option(
            "--image",
            "run in the built image; results are equal to rounding, not to the byte",
            is_switch=True,
        ),
        WHERE,
    ),
    needs=("package", "predict"),
    measures_kernel=True,
    evidence="rehearsal",
)
