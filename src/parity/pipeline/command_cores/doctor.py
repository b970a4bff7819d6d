"""Check this machine for a run and print the command that fixes each problem."""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from parity.deploy.bundle import bundle_checks
from parity.deploy.image import engines, image_checks, image_lock
from parity.deploy.image import freeze as freezes
from parity.deploy.image.image_checks import CheckResult, run_check
from parity.deploy.image.image_lock import ImageLock
from parity.deploy.kaggle_api import client as clients
from parity.deploy.kaggle_api import login_checks
from parity.deploy.kaggle_api.clock import WallClock
from parity.deploy.kaggle_api.session import CLIENT
from parity.deploy.wheelhouse import interpreters
from parity.pipeline import registry
from parity.run import environment
from parity.run.config.encoder import EncoderConfig
from parity.run.config.mining import MiningConfig
from parity.run.config.run_file import Config
from parity.run.config.shipping import ShippingConfig
from parity.run.errors import BadConfig, Mismatch, ParityError
from parity.run.experiment import Run
from parity.run.paths import RunPaths
from parity.run.progress import wrap_lines
from parity.run.resources import find_checkout

Reach = Literal["offline", "online"]

_COMMIT = Path("/etc/git_commit")  # docker-python's Dockerfile writes it
_INPUT = Path("/kaggle/input")
_ROOM, _SPARE = 5 * 10**9, 10**9  # bytes: adapters, bundle, converted base models; scratch


def doctor(run: Run, reach: Reach = "offline") -> dict[str, Any]:
    """Print every check's result and return them as plain values.

    Args:
        run: run that this machine is checked for.
        reach: `online` checks Kaggle too.

    Raises:
        BadConfig: the first error comes from settings or installed packages; a note of the
            exception holds all results as JSON.
        Mismatch: the first error comes from files on this machine; with the same note.
    """
    results = list(check_machine(run.config, run.workspace, run.round))
    if reach == "online":
        open_client = partial(clients.open_client, WallClock())
        results += login_checks.check_access(open_client, run.config.data.competition)
    render_fix = partial(registry.render_fix, run=run)
    results = [_with_command(result, render_fix) for result in results]
    print("\n".join(map(_folded, results)))
    record = {"findings": [asdict(result) for result in results]}
    count = {
        level: sum(result.level == level for result in results) for level in ("error", "warning")
    }
    first = image_checks.first_error(results)
    if first is None:
        print(f"no error, {count['warning']} warnings")
        return record
    fix = f". Fix: {first.fix}" if first.fix else ""
    error = (BadConfig if first.kind == "configuration" else Mismatch)(
        f"doctor found {count['error']} errors and {count['warning']} warnings; the first: "
        f"{first.message}{fix}"
    )
    error.add_note(json.dumps(record))
    raise error


def check_machine(config: Config, paths: RunPaths, round_: int) -> Iterator[CheckResult]:
    """Yield the results of all checks that need no network."""
    installed = {name: environment.version(name) for name in environment.PACKAGES}
    lock, frozen = _read_locks(paths)
    python = (sys.version_info.major, sys.version_info.minor, sys.version_info.micro)
    yield image_checks.check_python(python, lock.value("python") if lock else "")
    yield from _check_locks(paths, config.shipping, installed, frozen)
    yield from login_checks.check_client_versions(
        {name: environment.version(name) for name in CLIENT},
        six=importlib.util.find_spec("six") is not None,
    )
    yield from login_checks.check_login(os.environ, Path.home())
    yield from login_checks.check_environment(os.environ)
    scratch = Path(tempfile.gettempdir())
    yield from login_checks.check_upload_state(scratch, os.getuid(), paths.uploads)
    if lock:
        yield image_checks.check_running_image(lock, _read(_COMMIT))
    yield _check_mounts(_INPUT)
    fp8_section = _fp8_section(config.mining, config.encoder)
    yield from image_checks.check_gpus(
        image_checks.query_gpus(), config.encoder.precision, fp8_section
    )
    yield run_check("builds images with", engines.find, "warning")
    yield run_check("Python of the image, to verify the wheelhouse:", _image_python, "warning")
    data = f"data folder {paths.data.name}/ (PARITY_DATA names another)"
    yield _check_disk(data, paths.data, _ROOM)
    yield _check_disk("temporary folder (TMPDIR names another)", scratch, _SPARE)
    name = f"adapter of {config.name}, round {round_}:"
    yield from _check_adapter(name, paths.adapter(round_), config.encoder, paths)


def _fp8_section(mining: MiningConfig, encoder: EncoderConfig) -> str:
    """Return the section of the run file that asks for fp8; empty where none does."""
    if mining.quantize == "fp8":
        return "mining"
    return "encoder" if encoder.quantize == "fp8" else ""


def _read_locks(paths: RunPaths) -> tuple[ImageLock | None, dict[str, str]]:
    """Return the image's lock and freeze, as far as they can be read."""
    try:
        path = paths.image_lock
        return image_lock.read(path), freezes.parse_freeze(image_lock.read_freeze(path))
    except (ParityError, OSError):
        return None, {}  # `_check_locks` reports it


def _check_locks(
    paths: RunPaths, shipping: ShippingConfig, installed: dict[str, str], frozen: dict[str, str]
) -> Iterator[CheckResult]:
    """Yield the results of the checks against the locks of packages, image and wheels."""
    root = find_checkout()
    if root is None:
        yield CheckResult("ok", "installed package: no requirements.lock to compare with")
    else:
        requirements = (root / "requirements.lock").read_text(encoding="utf-8")
        yield from image_checks.check_packages(installed, requirements)
    yield from image_checks.check_image_lock(paths.image_lock)
    if frozen:
        yield from image_checks.check_drift(installed, frozen)
        wants, fingerprint = shipping.wheels, freezes.fingerprint(frozen)
        yield from image_checks.check_wheelhouse(paths.wheelhouse, wants, fingerprint)


def _with_command(result: CheckResult, render_fix: Callable[[Sequence[str]], str]) -> CheckResult:
    """Return a result whose fix is text: the complete command if it is words of a command."""
    if isinstance(result.fix, str):
        return result
    return replace(result, fix=f"`{render_fix(result.fix)}`")


def _image_python() -> str:
    return interpreters.find("3.12").name


def _check_mounts(folder: Path) -> CheckResult:
    """Report whether this machine is Kaggle's, and which datasets are attached."""
    if not folder.is_dir():
        return CheckResult("ok", f"no {folder}: not on Kaggle")
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        fix = "attach the datasets and the competition"
        return CheckResult("warning", f"{folder} is empty", fix)
    return CheckResult("ok", f"{folder} holds {', '.join(names)}")


def _check_disk(name: str, folder: Path, needed: int) -> CheckResult:
    free = bundle_checks.free_bytes(folder)
    # Little space is a warning; without room for one adapter nothing can be written.
    level: Literal["warning", "error"] = "warning" if free > _SPARE else "error"
    return run_check(f"{name}:", lambda: bundle_checks.check_disk(name, free, needed), level)


def _check_adapter(
    name: str, folder: Path, encoder: EncoderConfig, paths: RunPaths
) -> Iterator[CheckResult]:
    """Yield the result for the adapter in a folder, if it holds one."""
    if not (folder / bundle_checks.RECORD).is_file():
        yield CheckResult("ok", f"{name} none yet")
        return
    # Imported here: it loads torch, which a machine without an adapter does not need.
    from parity.pipeline import encoder_loading  # noqa: PLC0415

    def check() -> str:
        base = encoder_loading.load_base(encoder, paths).digest()
        return bundle_checks.check_adapter(folder, base, encoder.num_layers)

    yield run_check(name, check)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _folded(result: CheckResult) -> str:
    return "\n".join(wrap_lines(result.line(), hang=" " * 9))
