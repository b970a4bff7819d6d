"""What the image lacks → the wheelhouse, locked, fetched and proven."""

from collections.abc import Mapping
from pathlib import Path

from parity.deploy.image import freeze, image_lock
from parity.deploy.image.freeze import normal
from parity.deploy.wheelhouse import build as own_wheel
from parity.deploy.wheelhouse import download, resolver, verification, wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Lock
from parity.run.experiment import Run
from parity.run.progress import folded


def wheels(run: Run) -> None:
    """Lock what the run names if the lock does not hold it, fetch what is missing, and prove it.

    Raises:
        BadConfig: what the run names is no package that can be had for the image.
        StaleInput: the package index could not be reached.
        Mismatch: what lies there is not what the image lacks.
    """
    folder = run.workspace.wheelhouse
    frozen = freeze.parse(image_lock.freeze(run.workspace.image_lock))
    under, wants = freeze.fingerprint(frozen), run.config.shipping.wheels
    lock = wheel_lock.read(folder / wheel_lock.NAME)
    changed = not lock.fits(wants, under)
    if changed:
        lock = _relock(lock, wants, frozen, folder)
    selected = wheel_lock.select(lock, wants, under=under, mend=run.at(0).command("wheels"))
    fetched = download.fetch(selected, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.whl")}
    own = own_wheel.build_own(run.workspace.checkout, folder)
    print(f"{'wheel':<44} {'MB':>7}  reason")
    for wheel in selected:
        print(_row(f"{wheel.name} {wheel.version}", wheel.size, ", ".join(wheel.reason)))
    print(_row(own.name, own.stat().st_size, "the project's own"))
    print(folded(verification.verify(selected, folder, frozen).told))
    if not changed and not fetched and before.get(own.name) == own.stat().st_mtime_ns:
        print("nothing was changed: the lock held it, and every file was there")
    if others := sorted(before.keys() - {own.name, *(wheel.file for wheel in selected)}):
        print(folded(f"also there, and not of this run: {', '.join(others)}"))


def _relock(old: Lock, wants: tuple[str, ...], frozen: Mapping[str, str], folder: Path) -> Lock:
    """Resolve what the run and the old lock want, write the lock and show what changed."""
    kept = [want for want in old.wants if want not in frozen]  # the image may have it by now
    asked = sorted({*kept, *map(normal, wants)})
    new = resolver.resolve(asked, frozen, old, folder)
    wheel_lock.write(folder / wheel_lock.NAME, new)
    for wheel in old.wheels:
        if wheel.file not in {wheel.file for wheel in new.wheels}:
            (folder / wheel.file).unlink(missing_ok=True)  # two of one package cannot be installed
    print("offline_wheels/wheels.lock, resolved under the image's freeze:")
    for line in wheel_lock.difference(old, new) or ["no wheel changed"]:
        print(f"  {line}")
    return new


def _row(what: str, size: int, reason: str) -> str:
    return folded(f"{what:<44} {size / 1e6:>7.1f}  {reason}")
