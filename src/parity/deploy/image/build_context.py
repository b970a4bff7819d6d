"""The folder that the image is built in: Dockerfile, kernel and wheels, and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from parity.deploy.image.image_lock import ImageLock
from parity.deploy.wheelhouse import wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Lock
from parity.run import digest, environment, files
from parity.run.errors import StaleInput

WHEELHOUSE = "offline_wheels"
KERNEL = "kaggle/kernel.py"
LABELS = {
    "IMAGE_LOCK": "kaggle-parity.image-lock",
    "WHEELS_LOCK": "kaggle-parity.wheels-lock",
    "CODE": "kaggle-parity.code",
}
"""Build argument → the label that carries it."""
BASE_LABEL = "org.opencontainers.image.base.name"


@dataclass(frozen=True, slots=True)
class ImageDigests:
    """What an image is built from, each as a digest.

    Attributes:
        base: reference of the base image.
        image_lock: digest of `kaggle/image.lock`.
        wheels_lock: digest of `offline_wheels/wheels.lock`.
        code: digest of the project's source.
    """

    base: str
    image_lock: str
    wheels_lock: str
    code: str

    @property
    def arguments(self) -> dict[str, str]:
        """The Dockerfile's build arguments."""
        values = (self.image_lock, self.wheels_lock, self.code)
        return {"BASE_IMAGE": self.base, **dict(zip(LABELS, values, strict=True))}

    @property
    def labels(self) -> dict[str, str]:
        """The labels that an image of these layers carries."""
        named = {LABELS[name]: self.arguments[name] for name in LABELS}
        return {BASE_LABEL: self.base, **named}

    @property
    def tag(self) -> str:
        """The image's name: one for each set of layers, so that no build changes another's."""
        return f"localhost/kaggle-parity:{digest.of_value(self.arguments)[:12]}"


def layers(base: str, image: ImageLock, wheels: Lock) -> ImageDigests:
    """Return what an image built now, from this base, is made of."""
    return ImageDigests(base, image.digest(), wheels.digest(), environment.code())


def assemble(folder: Path, checkout: Path, own: Path, wheels: Lock) -> None:
    """Lay out what the Dockerfile uses in an empty folder.

    Args:
        folder: becomes the build's context.
        checkout: the project's, with Dockerfile, kernel and wheelhouse.
        own: the project's own wheel.
        wheels: the lock of the others.

    Raises:
        StaleInput: a locked wheel is missing or has other bytes.
    """
    if gone := wheel_lock.missing(wheels.wheels, checkout / WHEELHOUSE):
        raise StaleInput(f"{WHEELHOUSE}/{gone[0].file} is missing or changed; run: invoke wheels")
    house = folder / WHEELHOUSE
    house.mkdir(parents=True)
    (folder / "kaggle").mkdir()
    files.link(checkout / "Dockerfile", folder / "Dockerfile")
    files.link(checkout / KERNEL, folder / KERNEL)
    for wheel in wheels.wheels:
        files.link(checkout / WHEELHOUSE / wheel.file, house / wheel.file)
    files.link(own, house / own.name)
    name, version = own.name.split("-")[:2]
    pins = [(wheel.pin, wheel.sha256) for wheel in wheels.wheels]
    pins.append((f"{name}=={version}", digest.of_file(own)))
    files.write_text(house / "requirements.txt", requirements(pins))


def requirements(pins: Iterable[tuple[str, str]]) -> str:
    r"""Return what pip is to install, each by the sha256 of its wheel.

    >>> requirements([("six==1.17.0", "ab")])
    'six==1.17.0 --hash=sha256:ab\n'
    """
    return "".join(f"{pin} --hash=sha256:{sha256}\n" for pin, sha256 in pins)
