"""A checkout to build an image from, with the project's files and a wheelhouse of one toy wheel."""

import shutil
import zipfile
from pathlib import Path

import pytest

from parity.deploy.image import freeze as freezes
from parity.deploy.image import image_lock
from parity.deploy.wheelhouse import wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Wheel, WheelLock
from parity.pipeline.command_cores import image
from parity.run import digest, paths, resources

ROOT = Path(__file__).parents[3]
COPIED = (
    *("pyproject.toml", "README.md", "LICENSE", ".gitignore", "Dockerfile", "requirements.lock"),
    *("kaggle", "offline_wheels/wheels.lock"),
)
"""What a build of the project's wheel and image reads, apart from `src`."""


def copy_checkout(folder: Path) -> Path:
    """Copy the checkout to a new folder, with the project's image lock and a toy wheelhouse."""
    copy_sources(folder)
    lock_toy(
        folder / "offline_wheels",
        freezes.fingerprint(
            freezes.parse_freeze(image_lock.read_freeze(folder / "kaggle/image.lock"))
        ),
    )
    return folder


def copy_sources(folder: Path) -> None:
    """Copy the checkout's files, without its wheels, to a new folder; file times change."""
    for name in (*COPIED, "src"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, target, copy_function=shutil.copy, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target)


def use_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the package use another checkout than its own."""
    for module in (resources, paths, image):
        monkeypatch.setattr(module, "find_checkout", lambda: folder)


def lock_toy(house: Path, fingerprint: str) -> Path:
    """Write a wheel of a package missing from the image to a wheelhouse, and lock it."""
    path = write_wheel(house, "toy", "1.0", 'WORD = "from the wheelhouse"\n')
    wheel = Wheel("toy", "1.0", path.name, digest.of_file(path), path.stat().st_size, ("wanted",))
    wheel_lock.write(house / "wheels.lock", WheelLock(fingerprint, (wheel,)))
    return path


def write_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """Write a wheel with one module."""
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    texts = {f"{name}.py": code, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
    texts[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*texts, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in texts.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return path
