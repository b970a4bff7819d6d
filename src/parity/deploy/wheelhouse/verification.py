"""The verification that a wheelhouse holds exactly the wheels missing from the image.

The image's Python version, in an environment that holds only the names and versions of the image's
packages, plans an install of the locked wheels from the wheelhouse alone. pip's plan must equal the
lock: fewer wheels mean that the image has one, more mean that a dependency is not locked, an error
means that something is missing. The dependencies of the image's own packages are unknown, so
conflicts within the image are not detected; only a run in the image shows those.
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

from parity.deploy.image.freeze import normalize_name
from parity.deploy.wheelhouse import conflicts, interpreters, package_index
from parity.deploy.wheelhouse.wheel_lock import PYTHON, Wheel
from parity.run.errors import BadConfig, Mismatch

_UNKNOWN_VERSION = "0"  # for a package that was installed from a URL
_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification without errors.

    Attributes:
        is_verified: False if this machine has no Python like the image's, so nothing was verified.
        message: one line for the user.
        seconds: duration.
    """

    is_verified: bool
    message: str
    seconds: float = 0.0


def verify(wheels: Sequence[Wheel], folder: Path, frozen: Mapping[str, str]) -> Verification:
    """Verify that exactly these wheels must be added to the image, and that no wheel shadows it.

    Args:
        wheels: wheels that a run ships, without the project's own.
        folder: the wheelhouse.
        frozen: the image's packages, normalized name → version.

    Raises:
        Mismatch: a wheel is missing or superfluous, or would shadow a package of the image.
        BadConfig: the variable PARITY_PYTHON312 does not name a Python 3.12.
    """
    if not wheels:
        return Verification(True, "nothing to verify: the run names no wheels")
    started = time.monotonic()
    conflicts.check_conflicts(wheels, folder, frozen)
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Verification(
            False, "not verified: the image is Linux on x86_64, and this machine is not"
        )
    try:
        python = interpreters.find(PYTHON)
    except BadConfig as error:
        if os.environ.get("PARITY_PYTHON312"):
            raise
        return Verification(False, f"not verified: {error}")
    planned = dry_run_install([wheel.pin for wheel in wheels], folder, frozen, python=python)
    _compare({wheel.name: (wheel.version, wheel.file) for wheel in wheels}, planned)
    seconds = time.monotonic() - started
    message = f"verified: into the image's {len(frozen)} packages, pip would install exactly the "
    message += f"locked wheels, {len(planned)} of {len(wheels)} ({seconds:.0f} s)"
    return Verification(True, message, seconds)


def dry_run_install(
    requirements: Sequence[str], folder: Path, frozen: Mapping[str, str], *, python: Path
) -> dict[str, tuple[str, str]]:
    """Return what pip would install from `folder` into the image: name → version and wheel's file.

    pip uses no index and no setting of this machine.

    Source:
        pip's manual: `--python`, `--dry-run`, `--report`, and the report's `install[]`.

    Args:
        requirements: pip requirements such as `name==version`.
        folder: the only source of wheels.
        frozen: the image's packages, normalized name → version.
        python: a Python of the image's minor version.

    Raises:
        Mismatch: they cannot be installed; the message holds pip's error.
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        stub_python = _make_stub_environment(python, scratch / "stub", frozen)
        report = scratch / "report.json"
        words = [*pip_command(stub_python, python, name), "install", "--no-index"]
        words += ["--only-binary=:all:", "--find-links", str(folder.resolve())]
        words += ["--dry-run", "--quiet", "--report", str(report), *requirements]
        response = _run(words, name)
        if response.returncode:
            reason = package_index.error_summary(response.stderr)
            raise Mismatch(f"the wheelhouse is incomplete: {reason}")
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        normalize_name(install["metadata"]["name"]): (
            install["metadata"]["version"],
            install["download_info"]["url"].rpartition("/")[2],
        )
        for install in installs
    }


def pip_command(environment_python: Path, base_python: Path, home: str) -> list[str]:
    """Return the command that runs pip on an environment that has no pip.

    It is this process's pip or, if that is missing or too old for the Python, the base Python's.

    Args:
        environment_python: Python of the environment.
        base_python: Python that the environment was created from.
        home: empty folder.

    Raises:
        BadConfig: neither pip runs there.
    """
    for owner in (sys.executable, str(base_python)):
        words = [owner, "-m", "pip", "--isolated", "--python", str(environment_python)]
        if _run([*words, "--version"], home).returncode == 0:
            return words
    raise BadConfig(
        f"no pip on this machine supports Python {PYTHON}. Upgrade it: pip install --upgrade pip"
    )


def write_stubs(frozen: Mapping[str, str], site_packages: Path) -> None:
    """Write metadata for each package that makes pip treat it as installed: name and version."""
    for name, version in frozen.items():
        stated = version or _UNKNOWN_VERSION
        folder = site_packages / f"{name.replace('-', '_')}-{stated}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {stated}\n", encoding="utf-8"
        )
        (folder / "INSTALLER").write_text("stub\n", encoding="utf-8")
        (folder / "RECORD").write_text("", encoding="utf-8")


def _make_stub_environment(python: Path, folder: Path, frozen: Mapping[str, str]) -> Path:
    """Create an environment that holds only stubs and return its Python."""
    response = _run([str(python), "-m", "venv", "--without-pip", str(folder)], str(folder.parent))
    if response.returncode:
        reason = package_index.error_summary(response.stderr)
        raise Mismatch(f"{python} could not create an environment: {reason}")
    write_stubs(frozen, folder / "lib" / f"python{PYTHON}" / "site-packages")
    return folder / "bin" / "python"


def _run(words: Sequence[str], home: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=home,
        env=package_index.isolated_environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )


def _compare(locked: Mapping[str, tuple[str, str]], planned: Mapping[str, tuple[str, str]]) -> None:
    for name in sorted({*locked, *planned}):
        expected, actual = locked.get(name), planned.get(name)
        if expected != actual:
            first, second = (" ".join(item) if item else "nothing" for item in (expected, actual))
            raise Mismatch(
                f"the wheelhouse does not match the image: for {name} the lock has {first}, "
                f"pip would install {second}"
            )
