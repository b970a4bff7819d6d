"""Start the tests and benchmarks, which only a checkout of the project has."""

import shlex
import subprocess
import sys

from parity.run.errors import BadConfig
from parity.run.resources import find_checkout

PYTEST = ("-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "4", "--dist", "loadgroup")
"""Words of Python that run the fast tests; every worker loads torch, so there are few."""


def run_tests(only: str = "") -> None:
    """Run the fast tests.

    Args:
        only: part of a test's name, pytest's `-k`; empty runs all.
    """
    _run("test", "tests", [*PYTEST, *(["-k", only] if only else [])])


def run_benchmark(work: str, device: str = "cpu", options: str = "") -> None:
    """Run one benchmark.

    Args:
        work: `encode` or `train`.
        device: `cpu` or `cuda`.
        options: further flags, in one text.
    """
    _run(
        "bench",
        "benchmarks",
        ["-m", "benchmarks", work, f"--device={device}", *shlex.split(options)],
    )


def _run(verb: str, needed: str, words: list[str]) -> None:
    """Run Python in the checkout.

    Raises:
        BadConfig: the package was installed without its checkout.
        SystemExit: the process failed; this is its exit code.
    """
    root = find_checkout()
    if root is None or not (root / needed).is_dir():
        raise BadConfig(f"`{verb}` needs a checkout of the project. Clone it with git")
    code = subprocess.call([sys.executable, *words], cwd=root)
    if code:
        raise SystemExit(code)
