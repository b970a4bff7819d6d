"""`offline_wheels/wheels.lock`: the wheels that Kaggle's image lacks, each locked to its bytes.

It may hold what several runs want; each run ships only what it names.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parity.deploy.image.freeze import normal
from parity.run import digest, files
from parity.run.errors import BadData, StaleInput

NAME = "wheels.lock"
"""The lock's file, in the folder of its wheels."""
SCHEMA = 1
PYTHON = "3.12"
PLATFORM = "manylinux_2_35_x86_64"
"""The image's glibc and machine: a wheel may ask for an older glibc, never for a newer one."""
WANTED = "wanted"

_NEEDED = "needed by "


@dataclass(frozen=True, slots=True)
class Wheel:
    """One locked wheel.

    Attributes:
        name: the package's normalized name.
        version: its version.
        file: the wheel's file name.
        sha256: of its bytes, 64 hex digits.
        size: its bytes.
        reason: `wanted`, or `needed by NAME` for each wanted package that cannot do without.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int
    reason: tuple[str, ...]

    @property
    def pin(self) -> str:
        """What to ask a package index for."""
        return f"{self.name}=={self.version}"

    def serves(self, wants: Iterable[str]) -> bool:
        """Return whether one of these wanted packages is this wheel or cannot do without it."""
        return any(
            _NEEDED + want in self.reason or (want == self.name and WANTED in self.reason)
            for want in wants
        )


def needed_by(want: str) -> str:
    """Return the reason of a wheel that a wanted package cannot do without."""
    return _NEEDED + want


@dataclass(frozen=True, slots=True)
class Lock:
    """What was resolved, and for which image.

    Attributes:
        freeze: fingerprint of the image's freeze that it was resolved under.
        wheels: by name.
        python: the image's Python.
        platform: the image's newest platform tag.
    """

    freeze: str = ""
    wheels: tuple[Wheel, ...] = ()
    python: str = PYTHON
    platform: str = PLATFORM

    @property
    def wants(self) -> tuple[str, ...]:
        """The packages that were asked for, by name."""
        return tuple(wheel.name for wheel in self.wheels if WANTED in wheel.reason)

    def digest(self) -> str:
        """Return the digest of all it says."""
        return digest.of_value(asdict(self))

    def fits(self, wants: Iterable[str], under: str) -> bool:
        """Return whether it holds these packages, resolved under the freeze `under`."""
        now = Lock(under)
        same = (self.freeze, self.python, self.platform) == (now.freeze, now.python, now.platform)
        return same and set(map(normal, wants)) <= set(self.wants)


def read(path: Path) -> Lock:
    """Return the lock in a file; one that is not there holds nothing.

    Raises:
        BadData: it is no lock of this schema.
    """
    if not path.is_file():
        return Lock()
    record = files.read_json(path)
    try:
        return _lock(record)
    except (AttributeError, KeyError, TypeError) as error:
        raise BadData(
            f"{path.name}: no lock of wheels ({error}); remove it, then run: invoke wheels"
        ) from error


def write(path: Path, lock: Lock) -> None:
    """Write a lock, for a person to read and for git to compare."""
    files.write_json(path, {"schema": SCHEMA, **asdict(lock)})


def select(lock: Lock, wants: Iterable[str], *, under: str, mend: str) -> tuple[Wheel, ...]:
    """Return the wheels that a run needs: those it names and what they cannot do without.

    Args:
        lock: what was resolved.
        wants: the packages the run names.
        under: fingerprint of the image's freeze as it is now.
        mend: the command that resolves anew.

    Raises:
        StaleInput: a package is not in the lock, or it was resolved for another image.
    """
    named = [normal(want) for want in wants]
    for want in named:
        if want not in lock.wants:
            raise StaleInput(f"offline_wheels/wheels.lock does not hold {want}; run: {mend}")
    if named and not lock.fits(named, under):
        raise StaleInput(f"offline_wheels/wheels.lock was made for another image; run: {mend}")
    return tuple(wheel for wheel in lock.wheels if wheel.serves(named))


def missing(wheels: Iterable[Wheel], folder: Path) -> list[Wheel]:
    """Return the wheels that do not lie in `folder` with the locked bytes."""
    return [
        wheel
        for wheel in wheels
        if not (folder / wheel.file).is_file()
        or digest.of_file(folder / wheel.file) != wheel.sha256
    ]


def difference(old: Lock, new: Lock) -> list[str]:
    """Return what changed from one lock to the other, a line a wheel, by name."""
    before = {wheel.name: wheel for wheel in old.wheels}
    after = {wheel.name: wheel for wheel in new.wheels}
    lines = []
    for name in sorted(before | after):
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            lines.append(f"+ {name} {now.version} ({', '.join(now.reason)})")
        elif was is not None and now is None:
            lines.append(f"- {name} {was.version}")
        elif was is not None and now is not None and was != now:
            told = [f"{one.version} ({', '.join(one.reason)})" for one in (was, now)]
            lines.append(f"~ {name} {' → '.join(told)}")
    return lines


def _lock(record: dict[str, Any]) -> Lock:
    if (schema := record.pop("schema")) != SCHEMA:
        raise TypeError(f"schema {schema}")
    wheels = [Wheel(**{**one, "reason": tuple(one["reason"])}) for one in record.pop("wheels")]
    return Lock(wheels=tuple(wheels), **record)
