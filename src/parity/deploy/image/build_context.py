"""The build context of the image: the Dockerfile, the kernel script and the wheels."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from parity.deploy.image.image_lock import ImageLock
from parity.deploy.wheelhouse import wheel_lock
from parity.deploy.wheelhouse.wheel_lock import WheelLock
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
    """The inputs of an image, identified by digest.

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
        """The labels of an image built from these inputs."""
        return {
            BASE_LABEL: self.base,
            **{label: self.arguments[argument] for argument, label in LABELS.items()},
        }

    @property
    def tag(self) -> str:
        """The image's name, unique for its inputs, so that no build replaces another image."""
        return f"localhost/kaggle-parity:{digest.of_value(self.arguments)[:12]}"


def image_digests(base: str, image: ImageLock, wheels: WheelLock) -> ImageDigests:
    """Return the inputs of an image that is built now on `base`."""
    return ImageDigests(base, image.digest(), wheels.digest(), environment.code())


def assemble(folder: Path, checkout: Path, project_wheel: Path, wheels: WheelLock) -> None:
    """Write the files that the Dockerfile uses to a new folder.

    Args:
        folder: the build context to create.
        checkout: the project's checkout, which holds Dockerfile, kernel script and wheelhouse.
        project_wheel: the wheel of the project itself.
        wheels: the lock of the other wheels.

    Raises:
        StaleInput: a locked wheel is missing or its bytes changed.
    """
    if missing := wheel_lock.missing_wheels(wheels.wheels, checkout / WHEELHOUSE):
        path = f"{WHEELHOUSE}/{missing[0].file}"
        raise StaleInput(f"{path} is missing or changed", fix=("wheels",))
    house = folder / WHEELHOUSE
    house.mkdir(parents=True)
    (folder / "kaggle").mkdir()
    files.link(checkout / "Dockerfile", folder / "Dockerfile")
    files.link(checkout / KERNEL, folder / KERNEL)
    for wheel in wheels.wheels:
        files.link(checkout / WHEELHOUSE / wheel.file, house / wheel.file)
    files.link(project_wheel, house / project_wheel.name)
    name, version = project_wheel.name.split("-")[:2]
    pins = [(wheel.pin, wheel.sha256) for wheel in wheels.wheels]
    pins.append((f"{name}=={version}", digest.of_file(project_wheel)))
    files.write_text(house / "requirements.txt", requirements_text(pins))


def requirements_text(pins: Iterable[tuple[str, str]]) -> str:
    r"""Return pip's requirements file for pins, each with the sha256 of its wheel.

    >>> requirements_text([("six==1.17.0", "ab")])
    'six==1.17.0 --hash=sha256:ab\n'
    """
    return "".join(f"{pin} --hash=sha256:{sha256}\n" for pin, sha256 in pins)
