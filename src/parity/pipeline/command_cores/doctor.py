"""What is wrong with this machine for this run, and the command that mends it."""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from parity.deploy.bundle import bundle_checks as shipping
from parity.deploy.image import engines, image_lock
from parity.deploy.image import freeze as freezes
from parity.deploy.image import image_checks as inside
from parity.deploy.image.image_checks import CheckResult, attempt, failed
from parity.deploy.image.image_lock import ImageLock
from parity.deploy.kaggle_api import client as doors
from parity.deploy.kaggle_api import login_checks as outside
from parity.deploy.kaggle_api.clock import WallClock
from parity.deploy.kaggle_api.session import CLIENT
from parity.deploy.wheelhouse import interpreters
from parity.run import environment
from parity.run.errors import BadConfig, Mismatch, ParityError
from parity.run.experiment import Run
from parity.run.progress import wrapped

Reach = Literal["offline", "online"]

_COMMIT = Path("/etc/git_commit")  # docker-python's Dockerfile writes it
_INPUT = Path("/kaggle/input")
_ROOM, _SPARE = 5 * 10**9, 10**9  # bytes: adapters, bundle and converted bases; scratch


def doctor(run: Run, reach: Reach = "offline") -> dict[str, Any]:
    """Print every finding, and return them as plain values.

    Args:
        run: what the machine is to be fit for.
        reach: whether Kaggle is asked too.

    Raises:
        BadConfig: the first error is one of what was set or installed; a note of it holds all
            findings as JSON.
        Mismatch: it is one of what lies here; with the same note.
    """
    findings = list(local(run))
    if reach == "online":
        opened = partial(doors.opened, WallClock())
        findings += outside.asked(opened, run.config.data.competition)
    print("\n".join(map(_folded, findings)))
    told = {"findings": [asdict(finding) for finding in findings]}
    count = {
        level: sum(finding.level == level for finding in findings) for level in ("error", "warning")
    }
    first = inside.worst(findings)
    if first is None:
        print(f"no error, {count['warning']} warnings")
        return told
    error = (BadConfig if first.kind == "configuration" else Mismatch)(
        f"doctor found {count['error']} errors and {count['warning']} warnings; the first: "
        f"{first.what}{'; run: ' * bool(first.mend)}{first.mend}"
    )
    error.add_note(json.dumps(told))
    raise error


def local(run: Run) -> Iterator[CheckResult]:
    """Yield what can be found without the network, from the ground up."""
    here = {name: environment.version(name) for name in environment.PACKAGES}
    lock, frozen = _locked(run)
    python = (sys.version_info.major, sys.version_info.minor, sys.version_info.micro)
    yield inside.python(python, lock.value("python") if lock else "")
    yield from _of_checkout(run, here, frozen)
    yield from outside.client(
        {name: environment.version(name) for name in CLIENT},
        six=importlib.util.find_spec("six") is not None,
    )
    home = Path.home()
    yield from outside.login(os.environ, home)
    yield from outside.environment(os.environ)
    scratch = Path(tempfile.gettempdir())
    yield from outside.uploads(scratch, os.getuid(), run.workspace.uploads)
    if lock:
        yield inside.running_image(lock, _read(_COMMIT))
    yield _mounts(_INPUT)
    encoder, mined = run.config.encoder, run.config.mining.quantize
    eight = "mining" if mined == "fp8" else "encoder" if encoder.quantize == "fp8" else ""
    yield from inside.gpu(inside.ask_gpu(), encoder.precision, eight)
    yield attempt("builds images with", engines.find, "warning")
    yield attempt("the image's Python, for the wheelhouse's proof:", _image_python, "warning")
    data = f"data folder {run.workspace.data.name}/ (PARITY_DATA names another)"
    yield _disk(data, run.workspace.data, _ROOM)
    yield _disk("temporary folder (TMPDIR names another)", scratch, _SPARE)
    yield from _adapter(run)


def _locked(run: Run) -> tuple[ImageLock | None, dict[str, str]]:
    """Return the image's lock and freeze, as far as they can be read."""
    try:
        path = run.workspace.image_lock
        return image_lock.read(path), freezes.parse(image_lock.freeze(path))
    except (ParityError, OSError):
        return None, {}  # told by `_of_checkout`


def _of_checkout(run: Run, here: dict[str, str], frozen: dict[str, str]) -> Iterator[CheckResult]:
    """Yield what only a checkout of the project can tell."""
    try:
        root = run.workspace.checkout
    except BadConfig as error:
        yield failed(error, "warning")
        return
    yield from inside.packages(here, (root / "requirements.lock").read_text(encoding="utf-8"))
    yield from inside.locked_image(run.workspace.image_lock)
    if frozen:
        yield from inside.drifts(here, frozen)
        wants, mend = run.config.shipping.wheels, run.at(0).command("wheels")
        under = freezes.fingerprint(frozen)
        yield from inside.wheelhouse(run.workspace.wheelhouse, wants, under, mend)


def _image_python() -> str:
    return interpreters.find("3.12").name


def _mounts(place: Path) -> CheckResult:
    """Say whether this is a machine of Kaggle's, and what is mounted there."""
    if not place.is_dir():
        return CheckResult("ok", f"no {place}: not on Kaggle")
    names = sorted(path.name for path in place.iterdir())
    if not names:
        return CheckResult(
            "warning", f"{place} is empty", "attach the datasets and the competition"
        )
    return CheckResult("ok", f"{place} holds {', '.join(names)}")


def _disk(what: str, folder: Path, needed: int) -> CheckResult:
    there = shipping.free(folder)
    # What is only short is a warning; without room for one adapter nothing can be written.
    level: Literal["warning", "error"] = "warning" if there > _SPARE else "error"
    return attempt(f"{what}:", lambda: shipping.disk(what, there, needed), level)


def _adapter(run: Run) -> Iterator[CheckResult]:
    """Look at the run's adapter, where it has one."""
    folder = run.workspace.adapter(run.round)
    name = f"adapter of {run.config.name}, round {run.round}:"
    if not (folder / shipping.RECORD).is_file():
        yield CheckResult("ok", f"{name} none yet")
        return
    # Imported here: it loads torch, which a machine without an adapter need not wait for.
    from parity.pipeline import encoder_loading  # noqa: PLC0415

    def check() -> str:
        return shipping.adapter(
            folder, encoder_loading.base(run).digest(), run.config.encoder.num_layers
        )

    yield attempt(name, check)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _folded(finding: CheckResult) -> str:
    return "\n".join(wrapped(finding.line(), hang=" " * 9))
