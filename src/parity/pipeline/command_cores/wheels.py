"""`wheels`: resolve, lock, download and verify the wheels missing from Kaggle's image."""

from collections.abc import Mapping
from pathlib import Path

from parity.deploy.image import freeze, image_lock
from parity.deploy.image.freeze import normalize_name
from parity.deploy.wheelhouse import build, download, resolver, verification, wheel_lock
from parity.deploy.wheelhouse.wheel_lock import WheelLock
from parity.run.experiment import Run
from parity.run.progress import wrap


def wheels(run: Run) -> None:
    """Lock the wheels that the run names, download missing ones, and verify the wheelhouse.

    Raises:
        BadConfig: there is no checkout, or the run names a package without a wheel for the image.
        StaleInput: the package index could not be reached.
        Mismatch: the wheelhouse does not match what is missing from the image.
    """
    folder = run.workspace.wheelhouse
    frozen = freeze.parse_freeze(image_lock.read_freeze(run.workspace.image_lock))
    fingerprint, wants = freeze.fingerprint(frozen), run.config.shipping.wheels
    lock = wheel_lock.read(run.workspace.wheels_lock)
    is_relocked = not lock.is_current(wants, fingerprint)
    if is_relocked:
        lock = _relock(lock, wants, frozen, folder)
    selected = wheel_lock.select(lock, wants, freeze=fingerprint)
    fetched = download.fetch_locked(selected, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.whl")}
    project_wheel = build.build_project_wheel(folder)
    print(f"{'wheel':<44} {'MB':>7}  reason")
    for wheel in selected:
        print(_row(f"{wheel.name} {wheel.version}", wheel.size, ", ".join(wheel.reason)))
    print(_row(project_wheel.name, project_wheel.stat().st_size, "the project's own"))
    print(wrap(verification.verify(selected, folder, frozen).message))
    is_same_build = before.get(project_wheel.name) == project_wheel.stat().st_mtime_ns
    if not is_relocked and not fetched and is_same_build:
        print("no changes: every wheel was locked and downloaded already")
    files = {project_wheel.name, *(wheel.file for wheel in selected)}
    if unused := sorted(before.keys() - files):
        print(wrap(f"wheels of other runs in this folder: {', '.join(unused)}"))


def _relock(
    old: WheelLock, wants: tuple[str, ...], frozen: Mapping[str, str], folder: Path
) -> WheelLock:
    """Resolve the packages of the run and of the old lock, write the lock and show the changes."""
    previous = [want for want in old.wants if want not in frozen]  # the image may have it by now
    names = sorted({*previous, *map(normalize_name, wants)})
    new = resolver.resolve(names, frozen, old, folder)
    wheel_lock.write(folder / wheel_lock.NAME, new)
    for wheel in old.wheels:
        if wheel.file not in {wheel.file for wheel in new.wheels}:
            (folder / wheel.file).unlink(missing_ok=True)  # pip cannot install two of one package
    print("offline_wheels/wheels.lock, resolved under the image's freeze:")
    for line in wheel_lock.compare_locks(old, new) or ["no wheel changed"]:
        print(f"  {line}")
    return new


def _row(name: str, size: int, reason: str) -> str:
    return wrap(f"{name:<44} {size / 1e6:>7.1f}  {reason}")
