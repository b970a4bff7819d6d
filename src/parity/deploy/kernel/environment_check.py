"""What the kernel finds around it: which image this is, and what the wheelhouse brought into it."""

import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement

from parity.run import environment
from parity.run.errors import Mismatch

IDENTITY = Path("/etc")
"""Where Kaggle's image says which it is."""
_COMMIT = re.compile("[0-9a-f]{7,40}")


def image(wanted: Mapping[str, str], identity: Path = IDENTITY) -> dict[str, str]:
    """Return what the image says it is.

    Args:
        wanted: the bundle's facts of the image that `kaggle/image.lock` names.
        identity: folder of `git_commit` and `build_date`, which Kaggle's image has.

    Raises:
        Mismatch: it is an image of Kaggle's, and another.
    """
    paths = {"commit": identity / "git_commit", "built": identity / "build_date"}
    said = {
        name: path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        for name, path in paths.items()
    }
    said["commit"] = said["commit"] if _COMMIT.fullmatch(said["commit"]) else ""  # `unknown`
    locked = wanted.get("git_commit", "")[: len(said["commit"])]  # it may be a short one
    if said["commit"] and locked and said["commit"] != locked:
        raise Mismatch(
            f"this is Kaggle's image of commit {said['commit'][:12]}, built {said['built']}; "
            f"the bundle is for {locked[:12]}: run: invoke push, which pins it"
        )
    identified = "as locked" if said["commit"] else "not Kaggle's image"
    return {**said, "identity": identified, "reference": os.environ.get("PARITY_IMAGE", "")}


def vendored(pins: Iterable[str]) -> dict[str, str]:
    """Return name → version of what the wheelhouse brought, each with all that it requires.

    Only of these: of the image itself such a check finds faults that are none of ours.

    Raises:
        Mismatch: another version is found first, or a requirement is not met.
    """
    found = {}
    for pin in pins:
        name, _, version = pin.partition("==")
        found[name] = environment.version(name)
        if found[name] != version:
            raise Mismatch(f"{name}: the wheelhouse has {version}, here is {found[name] or 'none'}")
        for wanted in map(Requirement, importlib.metadata.requires(name) or ()):
            here = environment.version(wanted.name)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            if not here or not wanted.specifier.contains(here, prereleases=True):
                raise Mismatch(f"{name} {version} requires {wanted}, here is {here or 'none'}")
    return found
