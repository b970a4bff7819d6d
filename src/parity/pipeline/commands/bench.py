"""Declare `bench`, which compares with the peers."""

from parity.pipeline.declaration import Command, Option

COMMAND = Command(
    "bench",
    "Compare speed and memory with other libraries on equal results. Needs a checkout.",
    "parity.pipeline.checkout_tools:run_benchmark",
    options=(
        Option("work", "encode or train", is_required=True),
        Option("--device", "cpu or cuda (default: cpu)", default="cpu"),
        Option("--options", "further flags of the benchmark, in one text", default=""),
    ),
    run_file="none",
    has_overrides=False,
)
