"""The checks of `doctor` on Python, packages, the image, the wheelhouse and the GPUs.

Each check takes values and returns results; no check changes anything or uses the network.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parity.deploy.image import freeze as freezes
from parity.deploy.image import image_lock
from parity.deploy.image.freeze import Drift
from parity.deploy.image.image_lock import ImageLock
from parity.deploy.wheelhouse import wheel_lock
from parity.run.errors import BadConfig, ParityError

Level = Literal["ok", "warning", "error"]
Kind = Literal["configuration", "local"]

PYTHONS = ((3, 11), (3, 12))
"""Python versions that the project supports."""
MAY_DIFFER = ("torch", "kaggle-parity", "bitsandbytes")
"""Packages that may differ from the image: a build for this machine, our own, a vendored one."""

_SMI_SECONDS = 30
_BF16_CAPABILITY = 8  # lowest compute capability with bf16 units
_FP8_CAPABILITY = 8.9  # and with 8-bit float units


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Attributes:
        level: `ok`, `warning` (may cause a problem) or `error` (will cause one).
        message: one line that describes the result.
        fix: what to do, as a sentence or a shell command; or the words of one of this project's
            commands, verb first, which the command line completes; empty if there is no problem.
        kind: origin of an error: the user's configuration, or the files on this machine.
    """

    level: Level
    message: str
    fix: str | tuple[str, ...] = ""
    kind: Kind = "configuration"

    def line(self) -> str:
        """Return the result as one line of text, not wrapped."""
        fix = self.fix if isinstance(self.fix, str) else " ".join(self.fix)
        return f"{self.level:<9}{self.message}" + f" — {fix}" * bool(fix)


def error_result(error: ParityError, level: Level = "error") -> CheckResult:
    """Return an error as a check result at `level`."""
    kind: Kind = "configuration" if isinstance(error, BadConfig) else "local"
    return CheckResult(level, " ".join(str(error).split()), error.fix or "", kind)


def run_check(name: str, check: Callable[[], object], level: Level = "error") -> CheckResult:
    """Return `name` followed by the check's return value, or its error at `level`."""
    try:
        value = check()
    except ParityError as error:
        return error_result(error, level)
    return CheckResult("ok", f"{name} {value}".strip())


def check_python(version: tuple[int, int, int], image_version: str) -> CheckResult:
    """Compare this process's Python with the supported versions and with the image's.

    Args:
        version: version of this process.
        image_version: version in the image, empty if the lock cannot be read.
    """
    shown = ".".join(map(str, version))
    if version[:2] not in PYTHONS:
        supported = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        message = f"Python {shown} is not supported; expected {supported}"
        return CheckResult("error", message, "install it, then run: ./inv")
    differs = image_version and image_version != shown
    note = f" (image: {image_version}; may differ)" if differs else ""
    return CheckResult("ok", f"Python {shown}{note}")


def check_packages(installed: Mapping[str, str], lock: str) -> list[CheckResult]:
    """Compare installed packages with the lock; skip packages that are not in the lock.

    Args:
        installed: name → version, empty if not installed.
        lock: text of requirements.lock.
    """
    locked = dict(freezes.parse_pins(lock))
    fix = "./inv --version  (or: pip install --no-deps --require-hashes -r requirements.lock)"
    results = []
    for name, version in installed.items():
        expected = locked.get(freezes.normalize_name(name))
        if expected and freezes.public_version(version) != expected:
            message = f"{name} {version or 'is not installed'}; the lock has {expected}"
            results.append(CheckResult("error", message, fix))
    if results:
        return results
    count = sum(freezes.normalize_name(name) in locked for name in installed)
    message = f"{count} packages that affect scores match requirements.lock"
    return [CheckResult("ok", message)]


def check_drift(installed: Mapping[str, str], frozen: Mapping[str, str]) -> list[CheckResult]:
    """Report every package whose version differs from the image; `MAY_DIFFER` is allowed to."""
    allowed: list[Drift] = []
    results = []
    for drift in freezes.find_drift(frozen, installed):
        if drift.name in MAY_DIFFER:
            allowed.append(drift)
        else:
            message = f"{drift}: tokens and scores may differ on Kaggle"
            results.append(CheckResult("warning", message, ("dev.lock",)))
    names = ", ".join(map(str, allowed)) or "nothing"
    return [*results, CheckResult("ok", f"differs from the image, as allowed: {names}")]


def check_image_lock(path: Path) -> list[CheckResult]:
    """Check the image lock and its freeze, and whether the freeze was measured."""
    try:
        lock = image_lock.read(path)
        image_lock.read_freeze(path)
    except ParityError as error:
        return [error_result(error)]
    except OSError:
        return [CheckResult("error", f"{path.name} is missing", "git checkout kaggle/", "local")]
    name = f"image lock {lock.value('tag')}, {lock.value('digest')[:19]}"
    if lock.facts["freeze"].origin == image_lock.MEASURED:
        return [CheckResult("ok", f"{name}, freeze measured in the container")]
    message = f"{name}: its freeze is approximated (in the container, run: pip freeze > FILE)"
    return [CheckResult("warning", message, ("image.lock", "--freeze", "FILE"))]


def check_running_image(lock: ImageLock, commit: str) -> CheckResult:
    """Compare the image that this process runs in with the locked one.

    Args:
        lock: lock of the image.
        commit: content of /etc/git_commit, empty if the file does not exist.
    """
    if not commit:
        return CheckResult("ok", "not inside Kaggle's image")
    expected = lock.value("git_commit")
    if commit == expected:
        return CheckResult("ok", f"inside Kaggle's image {lock.value('tag')}, the locked one")
    message = (
        f"inside an image of commit {commit[:12]}, but the lock pins {expected[:12]} "
        "(run the locked image, or lock this one)"
    )
    return CheckResult("error", message, ("image.lock", "--freeze", "FILE"), "local")


def check_wheelhouse(folder: Path, wants: Sequence[str], freeze: str) -> list[CheckResult]:
    """Check that the wheelhouse holds the locked wheels, made for this image, unchanged.

    Args:
        folder: holds wheels.lock and the wheels.
        wants: packages that the run names.
        freeze: fingerprint of the image's freeze.
    """
    fix = ("wheels",)
    try:
        lock = wheel_lock.read(folder / wheel_lock.NAME)
        selected = wheel_lock.select(lock, wants, freeze=freeze)
    except ParityError as error:
        return [error_result(error, "warning")]
    missing = wheel_lock.missing_wheels(selected, folder)
    changed = [wheel for wheel in missing if (folder / wheel.file).is_file()]
    results = [
        CheckResult("error", f"the bytes of {wheel.file} differ from wheels.lock", fix, "local")
        for wheel in changed
    ]
    if absent := [wheel.file for wheel in missing if wheel not in changed]:
        results.append(CheckResult("warning", f"wheelhouse: {', '.join(absent)} missing", fix))
    if not list(folder.glob("kaggle_parity-*.whl")):
        results.append(CheckResult("warning", "wheelhouse: the project's wheel is missing", fix))
    names = ", ".join(f"{wheel.name} {wheel.version}" for wheel in selected) or "no package"
    return results or [CheckResult("ok", f"wheelhouse holds {names} and the project's wheel")]


def query_gpus() -> str:
    """Return name, memory and compute capability of each GPU from nvidia-smi, one line each."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    words = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        response = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=_SMI_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return "nvidia-smi does not respond"
    return response.stdout if response.returncode == 0 else "nvidia-smi does not respond"


def check_gpus(report: str, precision: str, fp8_section: str = "") -> list[CheckResult]:
    """Report what the GPUs support and whether the run's settings need more.

    Args:
        report: output of `query_gpus`.
        precision: `encoder.precision` of the run.
        fp8_section: section whose `quantize` is fp8; empty if there is no such section.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in report.splitlines() if line]
    if not rows:
        return [CheckResult("ok", "no GPU: computing on the CPU in fp32")]
    if any(len(row) != 3 or not _is_number(row[2]) for row in rows):
        message = f"a GPU does not respond: {rows[0][0]}"
        return [CheckResult("warning", message, "check the driver with: nvidia-smi")]
    results = [_gpu_result(row) for row in rows]
    weakest = min(float(row[2]) for row in rows)
    if precision == "bf16" and weakest < _BF16_CAPABILITY:
        message = f"encoder.precision = bf16: capability {weakest:g} does not support it"
        results.append(CheckResult("error", message, "--set=encoder.precision=fp16"))
    if fp8_section and weakest < _FP8_CAPABILITY:
        message = f"{fp8_section}.quantize = fp8: capability {weakest:g} does not support it"
        results.append(CheckResult("error", message, f"--set={fp8_section}.quantize=none"))
    return results


def _gpu_result(row: Sequence[str]) -> CheckResult:
    name, memory, capability = row
    half = "bf16" if float(capability) >= _BF16_CAPABILITY else "fp16, never bf16"
    return CheckResult("ok", f"{name}, {memory}, capability {capability}: {half}")


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def first_error(results: Iterable[CheckResult]) -> CheckResult | None:
    """Return the first error, which decides the exit code, or None."""
    return next((result for result in results if result.level == "error"), None)
