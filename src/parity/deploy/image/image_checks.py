"""What `doctor` says of Python, packages, the image, engines, wheels and the GPU.

Each check takes values and returns findings; none changes anything or reaches the network.
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
"""What the project runs under."""
FREE = ("torch", "kaggle-parity", "bitsandbytes")
"""Packages that may differ from the image: each machine's own build, ours, and a vendored one."""

_RUN = "; run: "
_SMI_SECONDS = 30
_NATIVE = 8  # compute capability from which there are units for bf16
_EIGHT_BITS = 8.9  # and from which for 8-bit floats


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at.

    Attributes:
        level: whether it is well, may hurt, or will.
        what: what was found, in one line.
        mend: the command or deed that mends it; empty where nothing is to be mended.
        kind: whose fault an error is: what a person set, or what lies on this machine.
    """

    level: Level
    what: str
    mend: str = ""
    kind: Kind = "configuration"

    def line(self) -> str:
        """Return it for a person, unfolded."""
        return f"{self.level:<9}{self.what}" + f" — {self.mend}" * bool(self.mend)


def failed(error: ParityError, level: Level = "error") -> CheckResult:
    """Return the finding that an error stands for, its command as the mend."""
    what, _, mend = " ".join(str(error).split()).partition(_RUN)
    return CheckResult(
        level, what, mend, "configuration" if isinstance(error, BadConfig) else "local"
    )


def attempt(what: str, check: Callable[[], object], level: Level = "error") -> CheckResult:
    """Return `what` with what the check answered, or its error at `level`."""
    try:
        said = check()
    except ParityError as error:
        return failed(error, level)
    return CheckResult("ok", f"{what} {said}".strip())


def python(here: tuple[int, int, int], there: str) -> CheckResult:
    """Compare the Python that runs with those that are supported and with the image's.

    Args:
        here: its version.
        there: the image's, empty where the lock cannot be read.
    """
    said = ".".join(map(str, here))
    if here[:2] not in PYTHONS:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        return CheckResult("error", f"Python {said}; wanted {wanted}", "install one, then: ./inv")
    differs = f" (image: {there}; may differ)" if there and there != said else ""
    return CheckResult("ok", f"Python {said}{differs}")


def packages(installed: Mapping[str, str], lock: str) -> list[CheckResult]:
    """Compare installed packages with the lock; those that the lock leaves out are skipped.

    Args:
        installed: name → version, empty where it is not installed.
        lock: the text of requirements.lock.
    """
    locked = dict(freezes.pins(lock))
    mend = "./inv --version  (or: pip install --no-deps --require-hashes -r requirements.lock)"
    found = []
    for name, version in installed.items():
        wanted = locked.get(freezes.normal(name))
        if wanted and freezes.public(version) != wanted:
            said = f"{name} {version or 'is not installed'}; the lock has {wanted}"
            found.append(CheckResult("error", said, mend))
    if found:
        return found
    count = sum(freezes.normal(name) in locked for name in installed)
    return [CheckResult("ok", f"{count} packages that move scores are those of requirements.lock")]


def drifts(installed: Mapping[str, str], frozen: Mapping[str, str]) -> list[CheckResult]:
    """Name every package whose version is not the image's; only those of `FREE` may differ."""
    free: list[Drift] = []
    found = []
    for one in freezes.drift(frozen, installed):
        if one.name in FREE:
            free.append(one)
        else:
            said = f"{one}: tokens and scores may differ on Kaggle"
            found.append(CheckResult("warning", said, "invoke dev.lock, then ./inv --version"))
    told = ", ".join(map(str, free)) or "nothing"
    return [*found, CheckResult("ok", f"differs from the image, and may: {told}")]


def locked_image(path: Path) -> list[CheckResult]:
    """Look at the image's lock, its freeze, and how sure both are."""
    try:
        lock = image_lock.read(path)
        image_lock.freeze(path)
    except ParityError as error:
        return [failed(error)]
    except OSError:
        return [CheckResult("error", f"{path.name} is not there", "git checkout kaggle/", "local")]
    said = f"image lock {lock.value('tag')}, {lock.value('digest')[:19]}"
    if lock.facts["freeze"].origin == image_lock.MEASURED:
        return [CheckResult("ok", f"{said}, freeze measured in the container")]
    mend = "in the container: pip freeze > FILE; then: invoke image.lock --freeze FILE"
    return [CheckResult("warning", f"{said}: its freeze is approximated", mend)]


def running_image(lock: ImageLock, commit: str) -> CheckResult:
    """Compare the image that this process runs in with the locked one.

    Args:
        lock: the image's lock.
        commit: what /etc/git_commit says, empty where there is none.
    """
    if not commit:
        return CheckResult("ok", "not inside Kaggle's image")
    wanted = lock.value("git_commit")
    if commit == wanted:
        return CheckResult("ok", f"inside Kaggle's image {lock.value('tag')}, the locked one")
    return CheckResult(
        "error",
        f"inside an image of commit {commit[:12]}; the lock pins {wanted[:12]}",
        "run the locked image, or lock this one: invoke image.lock --freeze FILE",
        "local",
    )


def wheelhouse(folder: Path, wants: Sequence[str], under: str, mend: str) -> list[CheckResult]:
    """Look whether the locked wheels lie there, made for this image, with the locked bytes.

    Args:
        folder: holds wheels.lock and the wheels.
        wants: the packages the run names.
        under: fingerprint of the image's freeze.
        mend: the command that makes it.
    """
    try:
        lock = wheel_lock.read(folder / wheel_lock.NAME)
        selected = wheel_lock.select(lock, wants, under=under, mend=mend)
    except ParityError as error:
        return [failed(error, "warning")]
    missing = wheel_lock.missing(selected, folder)
    changed = [one for one in missing if (folder / one.file).is_file()]
    found = [
        CheckResult("error", f"{one.file} has not the bytes that wheels.lock names", mend, "local")
        for one in changed
    ]
    if absent := [one.file for one in missing if one not in changed]:
        found.append(CheckResult("warning", f"wheelhouse lacks {', '.join(absent)}", mend))
    if not list(folder.glob("kaggle_parity-*.whl")):
        found.append(CheckResult("warning", "wheelhouse lacks the project's own wheel", mend))
    names = ", ".join(f"{one.name} {one.version}" for one in selected) or "no package"
    return found or [CheckResult("ok", f"wheelhouse holds {names} and the project's own wheel")]


def ask_gpu() -> str:
    """Return name, memory and compute capability of each GPU as nvidia-smi says, a line each."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    words = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=_SMI_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return "nvidia-smi does not answer"
    return answer.stdout if answer.returncode == 0 else "nvidia-smi does not answer"


def gpu(said: str, precision: str, eight: str = "") -> list[CheckResult]:
    """Say what the GPUs can do, and whether that is what the run asks of them.

    Args:
        said: as `ask_gpu` returns it.
        precision: as the run file names it.
        eight: section that asks for products in 8-bit floats; empty where none does.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines() if line]
    if not rows:
        return [CheckResult("ok", "no GPU: the CPU computes, in fp32")]
    if any(len(row) != 3 or not _is_number(row[2]) for row in rows):
        mend = "look at the driver: nvidia-smi"
        return [CheckResult("warning", f"a GPU that does not answer: {rows[0][0]}", mend)]
    found = [_can(row) for row in rows]
    weakest = min(float(row[2]) for row in rows)
    if precision == "bf16" and weakest < _NATIVE:
        what = f"encoder.precision = bf16: capability {weakest:g} has no units for it"
        found.append(CheckResult("error", what, "--set=encoder.precision=fp16"))
    if eight and weakest < _EIGHT_BITS:
        what = f"{eight}.quantize = fp8: capability {weakest:g} has no units for it"
        found.append(CheckResult("error", what, f"--set={eight}.quantize=none"))
    return found


def _can(row: Sequence[str]) -> CheckResult:
    name, memory, capability = row
    half = "bf16" if float(capability) >= _NATIVE else "fp16, never bf16"
    return CheckResult("ok", f"{name}, {memory}, capability {capability}: {half}")


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def worst(findings: Iterable[CheckResult]) -> CheckResult | None:
    """Return the first error, which decides the exit code; None where there is none."""
    return next((finding for finding in findings if finding.level == "error"), None)
