"""What is: Python, packages, threads and device of this process, for manifests and evidence."""

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
"""Packages whose version can move a score."""


def found() -> dict[str, Any]:
    """Return Python, package versions, machine and threads as they are here.

    Nothing that names a person or a place: no host, no user, no path.
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
    """Return the digest of the project's own source, the same from a checkout and from a wheel."""
    root = importlib.resources.files("parity")
    return digest.of_value(dict(sorted(_sources(root, ""))))


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield f"{prefix}{entry.name}", digest.of_bytes(entry.read_bytes())


def version(package: str) -> str:
    """Return the installed version of `package`, empty where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def gpu() -> str:
    """Return the GPUs' names by `nvidia-smi`, empty where there are none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        answer = subprocess.run(
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # a driver that hangs must not cost a finished stage its manifest
    return "; ".join(answer.stdout.split("\n")).strip("; ") if answer.returncode == 0 else ""
