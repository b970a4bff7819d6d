"""Describe Python, packages, threads and GPUs of this process, for manifests and evidence."""

import importlib.metadata
import importlib.resources
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import Any

from parity.run import digest

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "safetensors",
    "bitsandbytes",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "kaggle-parity",
)
"""Packages whose version can change a score."""


def describe() -> dict[str, Any]:
    """Return Python, package versions, machine and threads of this process.

    It names no person and no machine: no host, no user, no path.
    """
    return {
        "code": code(),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "gpu": gpu(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def code() -> str:
    """Return the digest of this project's source, the same for a checkout and a wheel."""
    root = importlib.resources.files("parity")
    return digest.of_value(dict(sorted(_sources(root, ""))))


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield f"{prefix}{entry.name}", digest.of_bytes(entry.read_bytes())


def version(package: str) -> str:
    """Return the installed version of `package`, empty if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def gpu() -> str:
    """Return names and memory of the GPUs by `nvidia-smi`, empty if there are no GPUs."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        result = subprocess.run(
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # a driver that hangs must not fail a finished stage
    return "; ".join(result.stdout.split("\n")).strip("; ") if result.returncode == 0 else ""
