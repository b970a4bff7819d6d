"""`image`: build Kaggle's image with the missing wheels. `image.lock`: lock facts about it."""

import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from parity.deploy.image import build_context, engines, image_lock
from parity.deploy.image import freeze as freezes
from parity.deploy.image.build_context import ImageDigests
from parity.deploy.image.image_lock import ImageLock
from parity.deploy.wheelhouse import build as wheel_build
from parity.deploy.wheelhouse import wheel_lock
from parity.deploy.wheelhouse.wheel_lock import WheelLock
from parity.run import files
from parity.run.command_line import build_command
from parity.run.errors import BadConfig, Mismatch, StaleInput
from parity.run.experiment import DATA, Run
from parity.run.paths import RunPaths
from parity.run.resources import find_checkout

RECORD = "image.json"
"""File in the data folder that records the last built image, its engine and its inputs."""


def lock_from_freeze(freeze: Path, *, git_commit: str = "", build_date: str = "") -> None:
    """Replace the freeze and update the lock with facts from the container; print the changes.

    Args:
        freeze: file with the output of `pip freeze` in the container.
        git_commit: text of the image's /etc/git_commit, empty if unknown.
        build_date: text of the image's /etc/build_date, empty if unknown.

    Raises:
        BadConfig: the file does not exist.
        BadData: it is not a freeze of the image.
    """
    if not freeze.is_file():
        raise BadConfig(f"--freeze {freeze}: no such file. In the container: pip freeze > FILE")
    path = RunPaths(DATA, "").image_lock
    old = image_lock.read(path)
    target = path.with_name(old.value("freeze"))
    before = target.read_text(encoding="utf-8")
    measured = {"git_commit": git_commit, "build_date": build_date}
    new, text, difference = image_lock.replace_freeze(
        old, before, freeze.read_text(encoding="utf-8"), measured
    )
    files.write_text(target, text)
    new.write(path)
    print("\n".join(difference.lines()))
    print(f"{path.name}: digest {old.digest()[:12]} → {new.digest()[:12]}")
    print(f"next: {', '.join(map(build_command, ('dev.lock', 'wheels', 'image')))}")


def build(run: Run, base: str = "") -> None:
    """Build the image with the first engine that works, and record it for `--where image`.

    Args:
        run: any run; the record goes to its data folder.
        base: base image to use instead of the locked one, such as a local stand-in.

    Raises:
        BadConfig: there is no checkout, no engine works, or the base is not pinned.
        StaleInput: the wheelhouse is missing or was made for another image.
        BadData: the engine could not build the image.
    """
    started = time.monotonic()
    checkout = find_checkout()
    if checkout is None:
        raise BadConfig("`image` needs a checkout of the project. Clone it with git")
    inputs, locked, wheels = read_image_inputs(run.workspace, base)
    engine = engines.find(image=inputs.base if image_lock.is_local(inputs.base) else "")
    print(f"building with {engine}, without a network, on {inputs.base}", flush=True)
    if engines.inspect_image(engine, inputs.base) is None:
        engines.pull(engine, inputs.base)
    with TemporaryDirectory(prefix="image-") as name:
        context = Path(name) / "context"
        project_wheel = wheel_build.build_project_wheel(
            Path(name) / "own", checkout / "src" / "parity"
        )
        build_context.assemble(context, checkout, project_wheel, wheels)
        built = engines.build(engine, context, inputs.tag, inputs.arguments)
    for label, value in inputs.labels.items():
        if built.labels.get(label) != value:
            raise Mismatch(f"label {label} is not {value} in {inputs.tag}", fix=("image",))
    record = {"engine": engine.name, "tag": inputs.tag, "id": built.id, "layers": asdict(inputs)}
    files.write_json(run.workspace.data / RECORD, record)
    seconds = time.monotonic() - started
    print(f"{inputs.tag}: image {built.id[:12]}, built in {seconds:.0f} s with {engine}")
    if inputs.base != locked.reference:
        print("its base is not the locked image, so results from it are not evidence of `image`")


def read_image_inputs(paths: RunPaths, base: str) -> tuple[ImageDigests, ImageLock, WheelLock]:
    """Return the inputs of an image that is built now, and the two locks, checked to be current.

    Raises:
        StaleInput: the wheelhouse was not locked for this image's freeze.
    """
    path = paths.image_lock
    locked, frozen = image_lock.read(path), freezes.parse_freeze(image_lock.read_freeze(path))
    wheels_path = paths.wheels_lock
    wheels = wheel_lock.read(wheels_path)
    if not wheels_path.is_file() or not wheels.is_current(
        wheels.wants, freezes.fingerprint(frozen)
    ):
        raise StaleInput(
            "offline_wheels/wheels.lock is missing or was made for another image", fix=("wheels",)
        )
    reference = image_lock.validate_base(base or locked.reference)
    return build_context.image_digests(reference, locked, wheels), locked, wheels
