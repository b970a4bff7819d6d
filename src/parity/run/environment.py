"""What is: Python, packages, threads and device of this process, for manifests and evidence."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from typing import Any

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
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "gpu": gpu(),
        "packages": {name: version(name) for name in PACKAGES},
    }


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
