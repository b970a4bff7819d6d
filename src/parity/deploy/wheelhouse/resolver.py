"""Which wheels the image lacks, found under its freeze, so that it keeps all it has.

Resolved without the freeze, bitsandbytes alone would bring another torch, numpy and setuptools,
gigabytes that overwrite the image's own.

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
from parity.deploy.image.freeze import normal
from parity.deploy.wheelhouse import download, package_index
from parity.deploy.wheelhouse.wheel_lock import PLATFORM, PYTHON, WANTED, Lock, needed_by
from parity.run.errors import BadConfig, Mismatch, StaleInput
from parity.run.progress import progress

_WANT = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?")
_RESOLVED = re.compile(r"([A-Za-z0-9][\w.-]*)==(\S+)\s+# via (.*)")
_IMPOSSIBLE = 1  # uv's exit code for wishes that exclude each other; others are its own troubles


@dataclass(frozen=True, slots=True)
class Pin:
    """A package that the image lacks, before its wheel is known."""

    name: str
    version: str
    reason: tuple[str, ...]


def resolve(wants: Collection[str], frozen: Mapping[str, str], old: Lock, folder: Path) -> Lock:
    """Return the lock for these packages; wheels that are new to it are fetched into `folder`.

    What the old lock holds stays as it is, version and bytes, where the freeze still allows it.

    Args:
        wants: the packages' names.
        frozen: the image's packages, normalized name → version.
        old: the lock so far; an empty one takes the newest of everything.
        folder: the wheelhouse.

    Raises:
        BadConfig: a name is none, the image has the package, or it cannot be had for the image.
        Mismatch: it cannot be had without overwriting a package of the image.
        StaleInput: the index could not be reached.
    """
    kept = old if old.fits((), old.freeze) else Lock()  # another Python's wheels are of no use
    known = {wheel.pin: wheel for wheel in kept.wheels}
    found = pins(wants, frozen, tuple(known))
    wheels = []
    with progress("new wheels", len(found), unit="wheel") as bar:
        for pin in found:
            have = known.get(f"{pin.name}=={pin.version}")
            wheels.append(
                replace(have, reason=pin.reason)
                if have
                else download.first(pin.name, pin.version, pin.reason, folder)
            )
            bar.update(1)
    return Lock(freeze.fingerprint(frozen), tuple(wheels))


def pins(wants: Collection[str], frozen: Mapping[str, str], kept: Sequence[str] = ()) -> list[Pin]:
    """Return what has to be added to the image for these packages, by name.

    Args:
        wants: the packages' names.
        frozen: the image's packages, normalized name → version.
        kept: `name==version` to prefer where it may be.

    Raises:
        BadConfig, Mismatch, StaleInput: as for `resolve`.
    """
    named = [_named(want, frozen) for want in wants]
    if not named:
        return []
    graph = dict(_graph(_compile(named, frozen, kept)))
    lacking = []
    for name, (version, _) in sorted(graph.items()):
        if freeze.public(frozen.get(name, version)) != version:
            raise Mismatch(
                f"shipping.wheels: {', '.join(named)} would put {name} {version} over the image's "
                f"{frozen[name] or 'own'}; name a package that fits the image"
            )
        if name not in frozen:
            lacking.append(Pin(name, version, _reason(name, graph, named)))
    return lacking


def _named(want: str, frozen: Mapping[str, str]) -> str:
    name = normal(want)
    if not _WANT.fullmatch(want):
        raise BadConfig(f"shipping.wheels: {want!r} is no package's name; the lock holds versions")
    if name in frozen:
        raise BadConfig(
            f"shipping.wheels: {name} is in the image ({frozen[name] or 'from an address'}); "
            "take it out of the run file"
        )
    return name


def _compile(named: Sequence[str], frozen: Mapping[str, str], kept: Sequence[str]) -> str:
    """Return what uv resolves: a line a package, with who asked for it."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file():
        raise BadConfig("uv is not beside this Python; install requirements.lock, or use ./inv")
    platform = f"x86_64-{PLATFORM.removesuffix('_x86_64')}"
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "want.in").write_text("".join(f"{name}\n" for name in named))
        (place / "constraints.txt").write_text(freeze.constraints(frozen))
        (place / "out.txt").write_text("".join(f"{pin}\n" for pin in kept))  # what uv prefers
        words = [str(uv), "pip", "compile", "want.in", "-c", "constraints.txt", "-o", "out.txt"]
        words += ["--python-version", PYTHON, "--python-platform", platform]
        words += ["--only-binary", ":all:", "--annotation-style", "line", "--no-header"]
        answer = package_index.ask([*words, "--no-progress", "--color", "never"], place)
        if answer.returncode == _IMPOSSIBLE:
            raise BadConfig(
                f"shipping.wheels: {', '.join(named)}: not to be had for the image: "
                f"{package_index.last_words(answer.stderr)}"
            )
        if answer.returncode:
            raise StaleInput(
                f"the package index gave no answer: {package_index.last_words(answer.stderr)}"
            )
        return (place / "out.txt").read_text()


def _graph(compiled: str) -> Iterator[tuple[str, tuple[str, set[str]]]]:
    """Yield package → version and who asked for it."""
    for line in compiled.splitlines():
        if found := _RESOLVED.match(line):
            yield normal(found[1]), (found[2], {normal(part) for part in found[3].split(", ")})


def _reason(
    name: str, graph: Mapping[str, tuple[str, set[str]]], named: Sequence[str]
) -> tuple[str, ...]:
    """Return why a package is there, by the wanted ones that lead to it through any others."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        askers = graph[waiting.pop()][1] & graph.keys()
        waiting += askers - seen
        seen |= askers
    roots = sorted(seen & set(named) - {name})
    return (WANTED,) * (name in named) + tuple(needed_by(root) for root in roots)
