"""The download of wheels from the package index, only for the image's Python and glibc.

Source:
    pip's manual. `pip download` needs every older platform tag as well, because one tag does not
    imply the older ones: with only manylinux2014 it silently takes a bitsandbytes of 2023.
"""

import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from parity.deploy.wheelhouse import package_index
from parity.deploy.wheelhouse.wheel_lock import PLATFORM, PYTHON, Wheel, missing_wheels
from parity.run import digest, files
from parity.run.errors import Mismatch, StaleInput
from parity.run.progress import progress

_OLDEST_MINOR = 5  # manylinux1 has glibc 2.5
_LEGACY_TAGS = ("manylinux2014", "manylinux2010", "manylinux1")


def fetch_locked(wheels: Collection[Wheel], folder: Path) -> list[str]:
    """Download the locked wheels that are missing or damaged; return their file names.

    pip requires the sha256 of each, and it is checked again afterwards. Without missing wheels,
    the index is not contacted.

    Raises:
        StaleInput: the index could not be reached or no longer has the wheel.
        Mismatch: the index has another file of that name and version.
    """
    pending = missing_wheels(wheels, folder)
    megabytes = [max(1, round(wheel.size / 1e6)) for wheel in pending]
    with progress("wheels", sum(megabytes), unit="MB") as bar:
        for wheel, size in zip(pending, megabytes, strict=True):
            with tempfile.TemporaryDirectory() as scratch:
                line = f"{wheel.pin} --hash=sha256:{wheel.sha256}"
                path = _download(line, Path(scratch), "--require-hashes")
                is_same = (path.name, path.stat().st_size) == (wheel.file, wheel.size)
                if not is_same or digest.of_file(path) != wheel.sha256:
                    raise Mismatch(f"the index returned {path.name}, not the locked {wheel.file}")
                _save(path, folder)
            bar.update(size)
    return [wheel.file for wheel in pending]


def fetch_new(name: str, version: str, reason: tuple[str, ...], folder: Path) -> Wheel:
    """Download a wheel that is not locked yet into `folder` and return its lock entry.

    Raises:
        StaleInput: the index could not be reached, or has no wheel for the image.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = _download(f"{name}=={version}", Path(scratch))
        sha256, size = digest.of_file(path), path.stat().st_size
        _save(path, folder)
    return Wheel(name, version, path.name, sha256, size, reason)


def platform_tags() -> list[str]:
    """Return every platform tag that the image accepts, newest first."""
    head, major, newest, machine = PLATFORM.split("_", 3)
    minors = range(int(newest), _OLDEST_MINOR - 1, -1)
    tags = [f"{head}_{major}_{minor}_{machine}" for minor in minors]
    return tags + [f"{name}_{machine}" for name in _LEGACY_TAGS]


def pip_target_flags() -> list[str]:
    """Return the flags that make pip choose for the image instead of for this machine."""
    words = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    return words + [f"--platform={tag}" for tag in platform_tags()]


def _download(line: str, scratch: Path, *flags: str) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{line}\n")
    words = [sys.executable, "-m", "pip", "download", "--no-deps", *pip_target_flags(), *flags]
    response = package_index.run_tool(
        [*words, "--quiet", "-d", str(scratch), "-r", str(requirements)], scratch
    )
    pin = line.split()[0]
    if "DO NOT MATCH THE HASHES" in response.stderr:
        raise Mismatch(f"{pin} has other bytes in the index than in offline_wheels/wheels.lock")
    paths = list(scratch.glob("*.whl"))
    if response.returncode or len(paths) != 1:
        reason = package_index.error_summary(response.stderr)
        raise StaleInput(f"the package index has no wheel for {pin}: {reason}")
    return paths[0]


def _save(path: Path, folder: Path) -> None:
    with files.replacing(folder / path.name) as temporary:
        temporary.write_bytes(path.read_bytes())
