"""Wheels that would hide a package of the image, each other, or that the image could not load."""

import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from parity.deploy.image.freeze import normal
from parity.deploy.wheelhouse import download
from parity.deploy.wheelhouse.wheel_lock import PLATFORM, Wheel
from parity.run.errors import Mismatch

FAMILIES = {
    "faiss": ("faiss", "faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes-cuda", "bitsandbytes-rocm"),
}
"""Import name → packages that are known to hold it under another name."""


def refuse(wheels: Iterable[Wheel], folder: Path, frozen: Mapping[str, str]) -> None:
    """Refuse wheels of which one would hide a package of the image or another, or not load there.

    Seen are equal names, import names that are a package's name in the image, and `FAMILIES`.

    Raises:
        Mismatch: names the wheel and what it would hide, or what it is made for.
    """
    holders: dict[str, set[str]] = defaultdict(set)
    for wheel in wheels:
        if wheel.name in frozen:
            raise Mismatch(f"{wheel.file} would shadow the image's {wheel.name}; leave it out")
        _refuse_newer(wheel.file)
        for module in modules(folder / wheel.file):
            family = {normal(module), *FAMILIES.get(module, ())} & frozen.keys()
            holders[module] |= {wheel.name} | {f"the image's {name}" for name in family}
    for module, names in sorted(holders.items()):
        if len(names) > 1:
            raise Mismatch(f"{' and '.join(sorted(names))} both hold `import {module}`; keep one")


def modules(wheel: Path) -> set[str]:
    """Return the top-level names that can be imported from a wheel.

    A folder without `__init__` may be shared by several packages and is no name of one.

    Raises:
        Mismatch: the file is not there or no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            paths = [name.split("/") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise Mismatch(f"{wheel.name} is missing or no wheel; run: invoke wheels") from error
    found = set()
    for parts in paths:
        inner = parts[2:] if parts[0].endswith(".data") and "lib" in parts[1] else parts
        if len(inner) == 1 and inner[0].endswith((".py", ".so")):
            found.add(inner[0].partition(".")[0])
        elif len(inner) == 2 and inner[1].startswith("__init__."):
            found.add(inner[0])
    return found


def _refuse_newer(file: str) -> None:
    """Refuse a wheel whose file name promises nothing for the image's glibc and machine."""
    tags = file.removesuffix(".whl").rpartition("-")[2].split(".")
    if not {"any", *download.platforms()} & set(tags):
        raise Mismatch(f"{file} is not for the image, which is {PLATFORM} at the newest")
