"""The check for wheels that would shadow a package of the image or each other, or not load."""

import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from parity.deploy.image.freeze import normalize_name
from parity.deploy.wheelhouse import download
from parity.deploy.wheelhouse.wheel_lock import PLATFORM, Wheel
from parity.run.errors import Mismatch

FAMILIES = {
    "faiss": ("faiss", "faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes-cuda", "bitsandbytes-rocm"),
}
"""Import name → packages that provide it under another package name."""


def check_conflicts(wheels: Iterable[Wheel], folder: Path, frozen: Mapping[str, str]) -> None:
    """Check that no wheel shadows a package of the image or another wheel, and that all load.

    Detects equal package names, import names that are a package name in the image, and `FAMILIES`.

    Args:
        wheels: the wheels to add to the image.
        folder: the wheelhouse that holds them.
        frozen: the image's packages, normalized name → version.

    Raises:
        Mismatch: names the wheel and what it would shadow, or its platform.
    """
    providers: dict[str, set[str]] = defaultdict(set)
    for wheel in wheels:
        if wheel.name in frozen:
            raise Mismatch(
                f"{wheel.file} would shadow the image's {wheel.name}. Remove it from the run file"
            )
        _check_platform(wheel.file)
        for module in importable_modules(folder / wheel.file):
            family = {normalize_name(module), *FAMILIES.get(module, ())} & frozen.keys()
            providers[module] |= {wheel.name} | {f"the image's {name}" for name in family}
    for module, names in sorted(providers.items()):
        if len(names) > 1:
            raise Mismatch(
                f"{' and '.join(sorted(names))} both provide `import {module}`. Keep only one"
            )


def importable_modules(wheel: Path) -> set[str]:
    """Return the top-level names that can be imported from a wheel.

    Folders without `__init__` are ignored, because several packages may share one.

    Raises:
        Mismatch: the file is missing or not a wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            paths = [name.split("/") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise Mismatch(f"{wheel.name} is missing or not a wheel", fix=("wheels",)) from error
    modules = set()
    for parts in paths:
        inner = parts[2:] if parts[0].endswith(".data") and "lib" in parts[1] else parts
        if len(inner) == 1 and inner[0].endswith((".py", ".so")):
            modules.add(inner[0].partition(".")[0])
        elif len(inner) == 2 and inner[1].startswith("__init__."):
            modules.add(inner[0])
    return modules


def _check_platform(file: str) -> None:
    """Refuse a wheel whose file name has no platform tag that the image accepts."""
    tags = file.removesuffix(".whl").rpartition("-")[2].split(".")
    if not {"any", *download.platform_tags()} & set(tags):
        raise Mismatch(f"{file} does not run in the image, whose newest platform is {PLATFORM}")
