"""Checks of the kernel's environment: the image, and the packages from the wheelhouse."""

import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement

from parity.run import environment
from parity.run.errors import Mismatch

IDENTITY = Path("/etc")
"""Folder with the files that identify Kaggle's image."""
_COMMIT = re.compile("[0-9a-f]{7,40}")


def image(locked_facts: Mapping[str, str], identity: Path = IDENTITY) -> dict[str, str]:
    """Return the commit, build date and identity of the image.

    Args:
        locked_facts: facts in the bundle of the image that `kaggle/image.lock` names.
        identity: folder of `git_commit` and `build_date`, files of Kaggle's image.

    Raises:
        Mismatch: this is Kaggle's image, but of another commit.
    """
    paths = {"commit": identity / "git_commit", "built": identity / "build_date"}
    facts = {
        name: path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        for name, path in paths.items()
    }
    facts["commit"] = facts["commit"] if _COMMIT.fullmatch(facts["commit"]) else ""  # `unknown`
    locked = locked_facts.get("git_commit", "")[
        : len(facts["commit"])
    ]  # the image may have a short hash
    if facts["commit"] and locked and facts["commit"] != locked:
        raise Mismatch(
            f"this is Kaggle's image of commit {facts['commit'][:12]}, built {facts['built']}; "
            f"the bundle is for {locked[:12]}; push the kernel again, which pins the image",
            fix=("push",),
        )
    identified = "as locked" if facts["commit"] else "not Kaggle's image"
    return {**facts, "identity": identified, "reference": os.environ.get("PARITY_IMAGE", "")}


def vendored(pins: Iterable[str]) -> dict[str, str]:
    """Return name → version of the wheelhouse's packages; check their requirements.

    The image's own packages are not checked: they have conflicts that this project can't fix.

    Raises:
        Mismatch: another version is imported, or a requirement is not met.
    """
    versions = {}
    for pin in pins:
        name, _, version = pin.partition("==")
        versions[name] = environment.version(name)
        if versions[name] != version:
            raise Mismatch(
                f"{name}: the wheelhouse has {version}, here is {versions[name] or 'none'}"
            )
        for requirement in map(Requirement, importlib.metadata.requires(name) or ()):
            installed = environment.version(requirement.name)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            if not installed or not requirement.specifier.contains(installed, prereleases=True):
                raise Mismatch(
                    f"{name} {version} requires {requirement}, here is {installed or 'none'}"
                )
    return versions
