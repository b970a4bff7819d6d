"""A checkout to build an image from: the project's own files, and a wheelhouse of one toy wheel."""

import shutil
import zipfile
from pathlib import Path

from parity.deploy.image import freeze as freezes
from parity.deploy.image import image_lock
from parity.deploy.wheelhouse import wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Lock, Wheel
from parity.run import digest

ROOT = Path(__file__).parents[3]
KEPT = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "Dockerfile")


def make(place: Path) -> Path:
    """Return a checkout in a new folder; its image lock is the project's."""
    (place / "kaggle").mkdir(parents=True)
    for name in KEPT:
        shutil.copy(ROOT / name, place / name)
    for name in ("image.lock", "image-freeze.txt", "kernel.py"):
        shutil.copy(ROOT / "kaggle" / name, place / "kaggle" / name)
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", place / "src", ignore=leave)
    house = place / "offline_wheels"
    house.mkdir()
    lock_toy(
        house, freezes.fingerprint(freezes.parse(image_lock.freeze(place / "kaggle/image.lock")))
    )
    return place


def lock_toy(house: Path, under: str) -> Path:
    """Put a wheel of a package that the image lacks into a wheelhouse, and lock it."""
    path = write_wheel(house, "toy", "1.0", 'WORD = "from the wheelhouse"\n')
    wheel = Wheel("toy", "1.0", path.name, digest.of_file(path), path.stat().st_size, ("wanted",))
    wheel_lock.write(house / "wheels.lock", Lock(under, (wheel,)))
    return path


def write_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """Write a wheel of one module."""
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    texts = {f"{name}.py": code, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
    texts[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*texts, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in texts.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return path
