"""Build Kaggle's image with what it lacks; lock what is known of it."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from parity.deploy.image import build_context, engines, image_lock
from parity.deploy.image import freeze as freezes
from parity.deploy.image.build_context import ImageDigests
from parity.deploy.wheelhouse import build as wheels
from parity.deploy.wheelhouse import wheel_lock
from parity.run import files
from parity.run.errors import BadConfig, Mismatch, StaleInput
from parity.run.experiment import DATA, Run
from parity.run.paths import RunPaths

RECORD = "image.json"
"""In the data folder: the image that was built last, by which engine, and from what."""


def lock(freeze: Path, measured: Mapping[str, str] | None = None) -> None:
    """Replace the freeze, and with it the lock, by what was read in the container; tell the change.

    Args:
        freeze: file with what `pip freeze` printed there.
        measured: further facts that were read there, such as `git_commit`.

    Raises:
        BadData: it is no freeze of the image.
    """
    if not freeze.is_file():
        raise BadConfig(f"--freeze {freeze}: no such file; in the container: pip freeze > FILE")
    path = RunPaths(DATA, "").image_lock
    old = image_lock.read(path)
    place = path.with_name(old.value("freeze"))
    before = place.read_text(encoding="utf-8")
    new, kept, difference = image_lock.relock(
        old, before, freeze.read_text(encoding="utf-8"), measured or {}
    )
    files.write_text(place, kept)
    new.write(path)
    print("\n".join(difference.lines()))
    print(f"{path.name}: digest {old.digest()[:12]} → {new.digest()[:12]}")
    print("next: invoke dev.lock, invoke wheels, invoke image")


def build(run: Run, base: str = "") -> None:
    """Build the image with the first engine that works, and note it for `--where image`.

    Args:
        run: any run; its data folder keeps the note.
        base: another base than the locked one, such as a stand-in made here.

    Raises:
        BadConfig: no engine works, or the base is not pinned.
        StaleInput: the wheelhouse is missing or was made for another image.
        BadData: the engine could not build.
    """
    started = time.monotonic()
    root = run.workspace.checkout
    made, known, house = sources(run, base)
    engine = engines.find(holding=made.base if image_lock.is_local(made.base) else "")
    print(f"building with {engine}, without a network, on {made.base}", flush=True)
    if engines.look(engine, made.base) is None:
        engines.pull(engine, made.base)
    with TemporaryDirectory(prefix="image-") as name:
        own = wheels.build_own(root, Path(name) / "own")
        build_context.assemble(Path(name) / "context", root, own, house)
        built = engines.build(engine, Path(name) / "context", made.tag, made.arguments)
    for label, value in made.labels.items():
        if built.labels.get(label) != value:
            raise Mismatch(f"{made.tag}: label {label} is not {value}; run: invoke image")
    record = {"engine": engine.name, "tag": made.tag, "id": built.id, "layers": asdict(made)}
    files.write_json(run.workspace.data / RECORD, record)
    seconds = time.monotonic() - started
    print(f"{made.tag}: image {built.id[:12]}, made in {seconds:.0f} s with {engine}")
    if made.base != known.reference:
        print("its base is not the locked image: what is measured in it is no evidence `image`")


def sources(run: Run, base: str) -> tuple[ImageDigests, image_lock.ImageLock, wheel_lock.Lock]:
    """Return what an image built now is made of, and the two locks, each proven to be current.

    Raises:
        StaleInput: the wheelhouse was not locked under this image's freeze.
    """
    place = run.workspace.image_lock
    known, frozen = image_lock.read(place), freezes.parse(image_lock.freeze(place))
    path = run.workspace.wheelhouse / wheel_lock.NAME
    house = wheel_lock.read(path)
    if not path.is_file() or not house.fits(house.wants, freezes.fingerprint(frozen)):
        mend = run.at(0).command("wheels")
        raise StaleInput(f"offline_wheels/wheels.lock is not of this image; run: {mend}")
    return (
        build_context.layers(image_lock.base(base or known.reference), known, house),
        known,
        house,
    )
