"""`offline_wheels/wheels.lock`: the wheels missing from Kaggle's image, locked by their bytes.

It may hold wheels for several runs; each run ships only what it names.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parity.deploy.image.freeze import normalize_name
from parity.run import digest, files
from parity.run.errors import BadData, StaleInput

NAME = "wheels.lock"
"""File name of the lock, in the folder of its wheels."""
SCHEMA = 1
PYTHON = "3.12"
PLATFORM = "manylinux_2_35_x86_64"
"""The image's glibc and machine: a wheel may need an older glibc, but not a newer one."""
WANTED = "wanted"

_NEEDED = "needed by "


@dataclass(frozen=True, slots=True)
class Wheel:
    """A locked wheel.

    Attributes:
        name: normalized package name.
        version: version of the package.
        file: file name of the wheel.
        sha256: digest of its bytes, 64 hex digits.
        size: size in bytes.
        reason: `wanted` if a run names it, and `needed by NAME` for each named package that
            requires it.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int
    reason: tuple[str, ...]

    @property
    def pin(self) -> str:
        """The requirement for a package index: name==version."""
        return f"{self.name}=={self.version}"

    def is_needed_for(self, wants: Iterable[str]) -> bool:
        """Return whether this wheel is one of these packages or required by one."""
        return any(
            _NEEDED + want in self.reason or (want == self.name and WANTED in self.reason)
            for want in wants
        )


def needed_by(want: str) -> str:
    """Return the `reason` of a wheel that a named package requires."""
    return _NEEDED + want


@dataclass(frozen=True, slots=True)
class WheelLock:
    """The resolved wheels and the image that they were resolved for.

    Attributes:
        freeze: fingerprint of the image's freeze.
        wheels: locked wheels, by name.
        python: the image's Python.
        platform: the image's newest platform tag.
    """

    freeze: str = ""
    wheels: tuple[Wheel, ...] = ()
    python: str = PYTHON
    platform: str = PLATFORM

    @property
    def wants(self) -> tuple[str, ...]:
        """The packages that runs named, sorted."""
        return tuple(wheel.name for wheel in self.wheels if WANTED in wheel.reason)

    def digest(self) -> str:
        """Return the digest of the lock's content."""
        return digest.of_value(asdict(self))

    def is_current(self, wants: Iterable[str], freeze: str) -> bool:
        """Return whether the lock holds these packages, resolved for the image of this freeze."""
        is_same_image = (self.freeze, self.python, self.platform) == (freeze, PYTHON, PLATFORM)
        return is_same_image and set(map(normalize_name, wants)) <= set(self.wants)


def read(path: Path) -> WheelLock:
    """Return the lock from a file; an empty lock if the file does not exist.

    Raises:
        BadData: the file is not a lock of this schema.
    """
    if not path.is_file():
        return WheelLock()
    record = files.read_json(path)
    try:
        return _parse_lock(record)
    except (AttributeError, KeyError, TypeError) as error:
        raise BadData(
            f"{path.name} is not a lock of wheels ({error}). Remove it and lock the wheels again",
            fix=("wheels",),
        ) from error


def write(path: Path, lock: WheelLock) -> None:
    """Write the lock as JSON that is easy to read and to diff."""
    files.write_json(path, {"schema": SCHEMA, **asdict(lock)})


def select(lock: WheelLock, wants: Iterable[str], *, freeze: str) -> tuple[Wheel, ...]:
    """Return the wheels that a run needs: those it names and those that they require.

    Args:
        lock: the resolved wheels.
        wants: packages that the run names.
        freeze: fingerprint of the image's present freeze.

    Raises:
        StaleInput: a package is not in the lock, or the lock was resolved for another image.
    """
    names = [normalize_name(want) for want in wants]
    for name in names:
        if name not in lock.wants:
            raise StaleInput(f"{name} is missing in offline_wheels/wheels.lock", fix=("wheels",))
    if names and not lock.is_current(names, freeze):
        raise StaleInput("offline_wheels/wheels.lock was made for another image", fix=("wheels",))
    return tuple(wheel for wheel in lock.wheels if wheel.is_needed_for(names))


def missing_wheels(wheels: Iterable[Wheel], folder: Path) -> list[Wheel]:
    """Return the wheels that are not in `folder` with the locked bytes."""
    return [
        wheel
        for wheel in wheels
        if not (folder / wheel.file).is_file()
        or digest.of_file(folder / wheel.file) != wheel.sha256
    ]


def compare_locks(old: WheelLock, new: WheelLock) -> list[str]:
    """Return the differences between two locks, one line per wheel, by name."""
    before = {wheel.name: wheel for wheel in old.wheels}
    after = {wheel.name: wheel for wheel in new.wheels}
    lines = []
    for name in sorted(before | after):
        first, second = before.get(name), after.get(name)
        if first is None and second is not None:
            lines.append(f"+ {name} {_shown(second)}")
        elif first is not None and second is None:
            lines.append(f"- {name} {first.version}")
        elif first is not None and second is not None and first != second:
            lines.append(f"~ {name} {_shown(first)} → {_shown(second)}")
    return lines


def _shown(wheel: Wheel) -> str:
    return f"{wheel.version} ({', '.join(wheel.reason)})"


def _parse_lock(record: dict[str, Any]) -> WheelLock:
    if (schema := record.pop("schema")) != SCHEMA:
        raise TypeError(f"schema {schema}")
    wheels = [Wheel(**{**item, "reason": tuple(item["reason"])}) for item in record.pop("wheels")]
    return WheelLock(wheels=tuple(wheels), **record)
