"""The resolution of the wheels missing from the image, with the image's freeze as constraints.

Without them, bitsandbytes alone would add another torch, numpy and setuptools: gigabytes that
overwrite the image's packages.

Source:
    uv's manual: `uv pip compile` for another Python and platform, with constraints.
"""

import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from parity.deploy.image import freeze
from parity.deploy.image.freeze import normalize_name
from parity.deploy.wheelhouse import download, package_index
from parity.deploy.wheelhouse.wheel_lock import PLATFORM, PYTHON, WANTED, WheelLock, needed_by
from parity.run.errors import BadConfig, Mismatch, StaleInput
from parity.run.progress import progress

_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?")
_RESOLVED = re.compile(r"([A-Za-z0-9][\w.-]*)==(\S+)\s+# via (.*)")
_UNSATISFIABLE = 1  # uv's exit code for requirements that conflict; others are errors of uv


@dataclass(frozen=True, slots=True)
class Pin:
    """A package missing from the image, before its wheel is downloaded.

    Attributes:
        name: normalized name.
        version: resolved version.
        reason: as in `Wheel`.
    """

    name: str
    version: str
    reason: tuple[str, ...]


def resolve(
    wants: Collection[str], frozen: Mapping[str, str], old: WheelLock, folder: Path
) -> WheelLock:
    """Return the lock for these packages and download wheels that are new to it into `folder`.

    Wheels of the old lock keep version and bytes if the freeze still allows it.

    Args:
        wants: package names.
        frozen: the image's packages, normalized name → version.
        old: the previous lock; with an empty one, the newest version of everything is taken.
        folder: the wheelhouse.

    Raises:
        BadConfig: a name is invalid, the image has the package, or no wheel fits the image.
        Mismatch: the package would overwrite a package of the image.
        StaleInput: the index could not be reached.
    """
    # Wheels for another Python or platform cannot be used.
    previous = old if old.is_current((), old.freeze) else WheelLock()
    locked = {wheel.pin: wheel for wheel in previous.wheels}
    pins = resolve_pins(wants, frozen, tuple(locked))
    wheels = []
    with progress("new wheels", len(pins), unit="wheel") as bar:
        for pin in pins:
            wheel = locked.get(f"{pin.name}=={pin.version}")
            wheels.append(
                replace(wheel, reason=pin.reason)
                if wheel
                else download.fetch_new(pin.name, pin.version, pin.reason, folder)
            )
            bar.update(1)
    return WheelLock(freeze.fingerprint(frozen), tuple(wheels))


def resolve_pins(
    wants: Collection[str], frozen: Mapping[str, str], preferred: Sequence[str] = ()
) -> list[Pin]:
    """Return the packages to add to the image for these packages, by name.

    Args:
        wants: package names.
        frozen: the image's packages, normalized name → version.
        preferred: `name==version` to prefer if the constraints allow it.

    Raises:
        BadConfig, Mismatch, StaleInput: as for `resolve`.
    """
    names = [_validate_name(want, frozen) for want in wants]
    if not names:
        return []
    graph = dict(_parse_graph(_compile(names, frozen, preferred)))
    missing = []
    for name, (version, _) in sorted(graph.items()):
        if freeze.public_version(frozen.get(name, version)) != version:
            raise Mismatch(
                f"{', '.join(names)} in shipping.wheels would install {name} {version} over the "
                f"image's {frozen[name] or 'own'}. Name a package that fits the image"
            )
        if name not in frozen:
            missing.append(Pin(name, version, _reason(name, graph, names)))
    return missing


def _validate_name(want: str, frozen: Mapping[str, str]) -> str:
    name = normalize_name(want)
    if not _NAME.fullmatch(want):
        raise BadConfig(
            f"{want!r} in shipping.wheels is not a package name. Versions go to wheels.lock"
        )
    if name in frozen:
        raise BadConfig(
            f"{name} in shipping.wheels is in the image already ({frozen[name] or 'from a URL'}). "
            "Remove it from the run file"
        )
    return name


def _compile(names: Sequence[str], frozen: Mapping[str, str], preferred: Sequence[str]) -> str:
    """Return uv's resolution, one line per package with the packages that require it."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file():
        raise BadConfig(
            "uv is missing in this environment. Install requirements.lock, or use ./inv"
        )
    platform = f"x86_64-{PLATFORM.removesuffix('_x86_64')}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "want.in").write_text("".join(f"{name}\n" for name in names))
        (folder / "constraints.txt").write_text(freeze.constraints(frozen))
        # uv prefers the versions in its output file.
        (folder / "out.txt").write_text("".join(f"{pin}\n" for pin in preferred))
        words = [str(uv), "pip", "compile", "want.in", "-c", "constraints.txt", "-o", "out.txt"]
        words += ["--python-version", PYTHON, "--python-platform", platform]
        words += ["--only-binary", ":all:", "--annotation-style", "line", "--no-header"]
        response = package_index.run_tool([*words, "--no-progress", "--color", "never"], folder)
        reason = package_index.error_summary(response.stderr)
        if response.returncode == _UNSATISFIABLE:
            raise BadConfig(
                f"no compatible wheel for {', '.join(names)} in shipping.wheels: {reason}"
            )
        if response.returncode:
            raise StaleInput(f"the package index could not be used: {reason}")
        return (folder / "out.txt").read_text()


def _parse_graph(compiled: str) -> Iterator[tuple[str, tuple[str, set[str]]]]:
    """Yield package → version and the packages that require it."""
    for line in compiled.splitlines():
        if match := _RESOLVED.match(line):
            parents = {normalize_name(part) for part in match[3].split(", ")}
            yield normalize_name(match[1]), (match[2], parents)


def _reason(
    name: str, graph: Mapping[str, tuple[str, set[str]]], names: Sequence[str]
) -> tuple[str, ...]:
    """Return why a package is needed: the named packages that require it, also indirectly."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        parents = graph[waiting.pop()][1] & graph.keys()
        waiting += parents - seen
        seen |= parents
    roots = sorted(seen & set(names) - {name})
    return (WANTED,) * (name in names) + tuple(needed_by(root) for root in roots)
