"""Declare `test`, which runs the project's tests."""

from parity.pipeline.declaration import Command, Option

COMMAND = Command(
    "test",
    "Run the fast tests: CPU, no network, no account. Needs a checkout.",
    "parity.pipeline.checkout_tools:run_tests",
    options=(Option("--only", "part of a test's name, pytest's -k", default=""),),
    run_file="none",
    has_overrides=False,
)
