"""Wheels that Kaggle's image lacks; for now the project's own."""

import os
import subprocess
import sys
from pathlib import Path

from parity.run.errors import BadData

_EPOCH = "1577836800"  # 2020-01-01: file times inside a wheel, so that equal code has equal bytes


def build_own(checkout: Path, folder: Path) -> Path:
    """Build the project's wheel from its checkout into `folder` and return the file.

    Raises:
        BadData: it cannot be built; gives the builder's last line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("kaggle_parity-*.whl"):
        old.unlink()  # of another version, it would be shipped beside the new one
    answer = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder.resolve())],
        cwd=checkout,
        env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH},
        capture_output=True,
        text=True,
        check=False,
    )
    built = sorted(folder.glob("kaggle_parity-*.whl"))
    if answer.returncode or len(built) != 1:
        last = (answer.stderr.strip().splitlines() or [f"{len(built)} wheels"])[-1]
        raise BadData(f"the project's own wheel could not be built: {last}")
    return built[0]
