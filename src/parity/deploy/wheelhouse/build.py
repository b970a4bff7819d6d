"""The project's own wheel: what the kernel runs, with bytes that depend on the code alone."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from parity.run import digest, files
from parity.run.errors import BadData

_DATE = (2020, 1, 1, 0, 0, 0)  # of every file in the wheel, so that equal code has equal bytes
_EPOCH = "1577836800"  # the same moment, for the builder
_FILE_MODE = 0o100644 << 16  # where a zip keeps it
_BUILD_SECONDS = 300


def build_own(checkout: Path, folder: Path) -> Path:
    """Build the project's wheel from its checkout into `folder` and return the file.

    Its bytes depend on the code alone: nothing in it is compressed, for each zlib packs in its own
    way, and names are sorted. A file that is there with these bytes is left as it is.

    Raises:
        BadData: it cannot be built; gives the builder's last line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        built = _hatch(checkout, Path(name))
        stored = Path(name) / "stored.whl"
        _store(built, stored)
        target = folder / built.name
        for old in folder.glob("kaggle_parity-*.whl"):
            if old != target:
                old.unlink()  # of another version, it would be shipped beside the new one
        if not target.is_file() or digest.of_file(target) != digest.of_file(stored):
            with files.replacing(target) as temporary:
                temporary.write_bytes(stored.read_bytes())
    return target


def _hatch(checkout: Path, folder: Path) -> Path:
    answer = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=checkout,
        env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH},
        capture_output=True,
        text=True,
        check=False,
        timeout=_BUILD_SECONDS,
    )
    built = sorted(folder.glob("kaggle_parity-*.whl"))
    if answer.returncode or len(built) != 1:
        last = (answer.stderr.strip().splitlines() or [f"{len(built)} wheels"])[-1]
        raise BadData(f"the project's own wheel could not be built: {last}")
    return built[0]


def _store(built: Path, target: Path) -> None:
    """Write a wheel again with its files as they are, sorted, of one date and one mode."""
    with zipfile.ZipFile(built) as old, zipfile.ZipFile(target, "w") as new:
        for name in sorted(old.namelist()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3  # Unix, whose modes are kept
            entry.external_attr = _FILE_MODE
            new.writestr(entry, old.read(name))
