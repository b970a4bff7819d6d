"""From the package index into the wheelhouse: wheels for the image's Python and glibc, no others.

Source:
    pip's manual. `pip download` has to be given every older platform tag, for one tag does not
    imply the older ones: with only manylinux2014 it takes a bitsandbytes of 2023 without a word.
"""

import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from parity.deploy.wheelhouse import package_index
from parity.deploy.wheelhouse.wheel_lock import PLATFORM, PYTHON, Wheel, missing
from parity.run import digest, files
from parity.run.errors import Mismatch, StaleInput
from parity.run.progress import progress

_OLDEST = 5  # manylinux1's glibc is 2.5
_OLD_NAMES = ("manylinux2014", "manylinux2010", "manylinux1")


def fetch(wheels: Collection[Wheel], folder: Path) -> list[str]:
    """Fetch the locked wheels that are missing or damaged; return their file names.

    Each is asked for by its sha256 and checked again; nothing is asked when all are there.

    Raises:
        StaleInput: the index could not be reached or no longer has it.
        Mismatch: the index has another file by that name and version.
    """
    wanting = missing(wheels, folder)
    megabytes = [max(1, round(wheel.size / 1e6)) for wheel in wanting]
    with progress("wheels", sum(megabytes), unit="MB") as bar:
        for wheel, size in zip(wanting, megabytes, strict=True):
            with tempfile.TemporaryDirectory() as scratch:
                line = f"{wheel.pin} --hash=sha256:{wheel.sha256}"
                got = _download(line, Path(scratch), "--require-hashes")
                same = (got.name, got.stat().st_size) == (wheel.file, wheel.size)
                if not same or digest.of_file(got) != wheel.sha256:
                    raise Mismatch(f"the index gives {got.name}, not the locked {wheel.file}")
                _keep(got, folder)
            bar.update(size)
    return [wheel.file for wheel in wanting]


def first(name: str, version: str, reason: tuple[str, ...], folder: Path) -> Wheel:
    """Fetch a wheel that was never locked into `folder` and return what to lock.

    Raises:
        StaleInput: the index could not be reached, or has no wheel for the image.
    """
    with tempfile.TemporaryDirectory() as scratch:
        got = _download(f"{name}=={version}", Path(scratch))
        sha256, size = digest.of_file(got), got.stat().st_size
        _keep(got, folder)
    return Wheel(name, version, got.name, sha256, size, reason)


def platforms() -> list[str]:
    """Return every platform tag that the image accepts, the newest first."""
    head, major, newest, machine = PLATFORM.split("_", 3)
    tags = [f"{head}_{major}_{minor}_{machine}" for minor in range(int(newest), _OLDEST - 1, -1)]
    return tags + [f"{name}_{machine}" for name in _OLD_NAMES]


def target() -> list[str]:
    """Return the words that make pip choose for the image instead of for this machine."""
    words = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    return words + [f"--platform={tag}" for tag in platforms()]


def _download(line: str, scratch: Path, *flags: str) -> Path:
    asked = scratch / "asked.txt"
    asked.write_text(f"{line}\n")
    words = [sys.executable, "-m", "pip", "download", "--no-deps", *target(), *flags]
    answer = package_index.ask([*words, "--quiet", "-d", str(scratch), "-r", str(asked)], scratch)
    pin = line.split()[0]
    if "DO NOT MATCH THE HASHES" in answer.stderr:
        raise Mismatch(f"{pin}: the index has other bytes than offline_wheels/wheels.lock names")
    got = list(scratch.glob("*.whl"))
    if answer.returncode or len(got) != 1:
        raise StaleInput(
            f"{pin}: the package index gave no wheel: {package_index.last_words(answer.stderr)}"
        )
    return got[0]


def _keep(got: Path, folder: Path) -> None:
    with files.replacing(folder / got.name) as temporary:
        temporary.write_bytes(got.read_bytes())
