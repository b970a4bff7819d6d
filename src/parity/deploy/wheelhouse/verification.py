"""The proof that a wheelhouse is what the image lacks: an install that knows only the two of them.

A Python as the image's, with nothing in it but the names and versions of the image's packages, is
asked to install the locked wheels from the wheelhouse alone. What pip would then install has to be
the lock: less means that the image has it, more that something came along, an error that something
is missing. What the image's packages ask for is not known here, so conflicts within the image are
not seen; the image itself has to confirm.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parity.deploy.image.freeze import normal
from parity.deploy.wheelhouse import conflicts, interpreters, package_index
from parity.deploy.wheelhouse.wheel_lock import PYTHON, Wheel
from parity.run.errors import BadConfig, Mismatch

_UNKNOWN = "0"  # the version of a package that came from an address
_SECONDS = 600


@dataclass(frozen=True, slots=True)
class VerifiedWheelhouse:
    """What came of a proof that did not fail.

    Attributes:
        proven: whether it was made at all; False where there is no Python like the image's.
        told: one line for a person.
        seconds: how long it took.
    """

    proven: bool
    told: str
    seconds: float = 0.0


def verify(wheels: Sequence[Wheel], folder: Path, frozen: Mapping[str, str]) -> VerifiedWheelhouse:
    """Prove that these wheels are all that has to be added to the image, and that none shadows it.

    Args:
        wheels: what a run ships, the project's own wheel not among them.
        folder: the wheelhouse.
        frozen: the image's packages, normalized name → version.

    Raises:
        Mismatch: a wheel is missing, too many, or would shadow a package of the image.
        BadConfig: the variable PARITY_PYTHON312 names something else.
    """
    if not wheels:
        return VerifiedWheelhouse(True, "nothing to prove: the run names no wheels")
    started = time.monotonic()
    conflicts.refuse(wheels, folder, frozen)
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return VerifiedWheelhouse(
            False, "not proven: the image is a Linux on x86_64, and this machine is not"
        )
    try:
        python = interpreters.find(PYTHON)
    except BadConfig as error:
        if os.environ.get("PARITY_PYTHON312"):
            raise
        return VerifiedWheelhouse(False, f"not proven: {error}")
    found = would_install([wheel.pin for wheel in wheels], folder, frozen, python=python)
    _same({wheel.name: (wheel.version, wheel.file) for wheel in wheels}, found)
    seconds = time.monotonic() - started
    told = f"proven: into the image, {len(frozen)} packages, pip would install what is locked, "
    told += f"{len(found)} of {len(wheels)} wheels, and nothing else ({seconds:.0f} s)"
    return VerifiedWheelhouse(True, told, seconds)


def would_install(
    requirements: Sequence[str], folder: Path, frozen: Mapping[str, str], *, python: Path
) -> dict[str, tuple[str, str]]:
    """Return what pip would install from `folder` into the image: name → version and wheel's file.

    pip sees no index and no setting of this machine.

    Source:
        pip's manual: `--python`, `--dry-run`, `--report`, and the report's `install[]`.

    Args:
        requirements: as pip takes them, such as `name==version`.
        folder: where wheels may come from.
        frozen: the image's packages, normalized name → version.
        python: of the image's minor version.

    Raises:
        Mismatch: they cannot be installed; gives pip's last words.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        inside = _stub(python, place / "stub", frozen)
        report = place / "report.json"
        words = [*pip(inside, python, scratch), "install", "--no-index", "--only-binary=:all:"]
        words += ["--find-links", str(folder.resolve()), "--dry-run", "--quiet"]
        answer = _run([*words, "--report", str(report), *requirements], scratch)
        if answer.returncode:
            raise Mismatch(
                "the wheelhouse is not what the image lacks: "
                f"{package_index.last_words(answer.stderr)}"
            )
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        normal(install["metadata"]["name"]): (
            install["metadata"]["version"],
            install["download_info"]["url"].rpartition("/")[2],
        )
        for install in installs
    }


def pip(inside: Path, python: Path, home: str) -> list[str]:
    """Return the words that run pip in an environment that has none.

    It is ours, or, where ours is missing or too old for that Python, the Python's own.

    Args:
        inside: the environment's Python.
        python: the Python it was made from.
        home: an empty folder.

    Raises:
        BadConfig: neither has a pip that runs there.
    """
    for owner in (sys.executable, str(python)):
        words = [owner, "-m", "pip", "--isolated", "--python", str(inside)]
        if _run([*words, "--version"], home).returncode == 0:
            return words
    raise BadConfig(f"no pip here runs under Python {PYTHON}; run: pip install --upgrade pip")


def write_stubs(frozen: Mapping[str, str], site_packages: Path) -> None:
    """Write for each package what makes pip believe that it is installed: name and version."""
    for name, version in frozen.items():
        stated = version or _UNKNOWN
        folder = site_packages / f"{name.replace('-', '_')}-{stated}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {stated}\n", encoding="utf-8"
        )
        (folder / "INSTALLER").write_text("stub\n", encoding="utf-8")
        (folder / "RECORD").write_text("", encoding="utf-8")


def _stub(python: Path, place: Path, frozen: Mapping[str, str]) -> Path:
    answer = _run([str(python), "-m", "venv", "--without-pip", str(place)], str(place.parent))
    if answer.returncode:
        raise Mismatch(f"{python} makes no environment: {package_index.last_words(answer.stderr)}")
    write_stubs(frozen, place / "lib" / f"python{PYTHON}" / "site-packages")
    return place / "bin" / "python"


def _run(words: Sequence[str], home: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=home,
        env=package_index.isolated(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )


def _same(locked: Mapping[str, tuple[str, str]], found: Mapping[str, tuple[str, str]]) -> None:
    for name in sorted({*locked, *found}):
        want, got = locked.get(name), found.get(name)
        if want != got:
            told = [" ".join(one) if one else "nothing" for one in (want, got)]
            raise Mismatch(
                f"the wheelhouse is not what the image lacks: of {name} the lock has {told[0]}, "
                f"pip would install {told[1]}"
            )
