"""The container engines Docker, Podman and Buildah: their commands to build, inspect and pull.

An engine works only if it responds; a client without a daemon is common.
Every build runs without a network: all it installs comes from the base image or the wheelhouse.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from parity.run.errors import BadConfig, BadData

EngineName = Literal["docker", "podman", "buildah"]

_RESPONSE_SECONDS = 20
_PULL_SECONDS, _BUILD_SECONDS = 4 * 3600, 3600  # the real image has about 50 GB
_NO_ENGINE = "no working docker, podman or buildah found. On Debian: apt-get install buildah"
_PROBES: dict[EngineName, tuple[str, ...]] = {
    "docker": ("version", "--format", "{{.Server.Version}}"),
    "podman": ("info",),
    "buildah": ("info",),
}
"""Arguments that succeed only if the engine works, not just its client."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine that responded.

    Attributes:
        name: program name.
        version: version that it reports.
    """

    name: EngineName
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image in an engine's storage.

    Attributes:
        id: image id, 64 hex digits.
        labels: label → value.
        env: environment variables of a process started in it.
    """

    id: str
    labels: dict[str, str]
    env: dict[str, str]


def find(image: str = "") -> Engine:
    """Return the first engine that works: Docker, then Podman, then Buildah.

    Args:
        image: local image that the engine must have, because no registry does; empty for any.

    Raises:
        BadConfig: no engine works, or no working engine has that image.
    """
    working = [engine for name in get_args(EngineName) if (engine := _probe(name))]
    if not working:
        raise BadConfig(_NO_ENGINE)
    for engine in working:
        if not image or inspect_image(engine, image):
            return engine
    raise BadConfig(
        f"image {image} not found in {' or '.join(map(str, working))}. "
        "Build it with: python tools/standin_image.py, or pass another --base"
    )


def by_name(name: str) -> Engine:
    """Return the engine of this name.

    Raises:
        BadConfig: it does not respond.
    """
    engine = next((_probe(item) for item in get_args(EngineName) if item == name), None)
    if engine is None:
        raise BadConfig(f"the image was built with {name}, which does not respond", fix=("image",))
    return engine


def inspect_image(engine: Engine, reference: str) -> BuiltImage | None:
    """Return an image from the engine's storage, or None if it is not there."""
    words = ["image", "inspect", reference]
    if engine.name == "buildah":
        words = ["inspect", "--type", "image", reference]
    response = _query(engine.name, *words)
    return _parse_image(json.loads(response)) if response else None


def pull_command(engine: Engine, reference: str) -> list[str]:
    """Return the command that pulls a base image."""
    return [engine.name, "pull", reference]


def build_command(
    engine: Engine, context: Path, tag: str, arguments: Mapping[str, str]
) -> list[str]:
    """Return the command that builds the image without a network and without pulling.

    Args:
        engine: the engine that builds.
        context: folder with the Dockerfile.
        tag: name of the new image.
        arguments: build arguments.

    Source:
        Buildah's chroot isolation needs neither a runtime nor cgroups, but does not support
        `--network none`; hence `unshare`.
    """
    pairs = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    common = ["-t", tag, "-f", str(context / "Dockerfile"), *pairs, str(context)]
    if engine.name == "docker":
        return ["docker", "build", "--network", "none", *common]
    local = ["--network", "none", "--format", "docker", "--pull=never"]
    if engine.name == "podman":
        return ["podman", "build", *local, *common]
    local = ["--isolation", "chroot", "--format", "docker", "--pull-never"]
    return [*without_network_prefix(), "buildah", "bud", *local, *common]


def without_network_prefix() -> list[str]:
    """Return the command prefix that starts a program in a new network namespace."""
    if os.geteuid() == 0:
        return ["unshare", "--net"]
    return ["buildah", "unshare", "unshare", "--net"]  # root in a new user namespace


def pull(engine: Engine, reference: str) -> None:
    """Pull a base image and show the engine's progress.

    Raises:
        BadData: the pull failed; the message holds the engine's error.
    """
    error = run_streaming(pull_command(engine, reference), _PULL_SECONDS)
    if error is not None:
        raise BadData(
            f"{engine} could not pull {reference}: {error}. Without a registry, build a stand-in "
            "(python tools/standin_image.py) and pass it as --base localhost/NAME:TAG"
        )


def build(engine: Engine, context: Path, tag: str, arguments: Mapping[str, str]) -> BuiltImage:
    """Build the image, show the engine's progress, and return the image.

    Raises:
        BadData: the build failed; the message holds the engine's error.
    """
    error = run_streaming(build_command(engine, context, tag, arguments), _BUILD_SECONDS)
    built = inspect_image(engine, tag) if error is None else None
    if built is None:
        raise BadData(
            f"{engine} could not build {tag}: {error or 'the image is missing after the build'}"
        )
    return built


def run_streaming(words: Sequence[str], seconds: float) -> str | None:
    """Run an engine's command and copy its output to standard error line by line.

    Returns:
        None on success. On failure one line: the first that starts with ERROR, because the last
        line only reports that a step failed; without one, the last line.
    """
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        assert child.stdout is not None
        timeout = threading.Timer(seconds, child.kill)
        timeout.start()
        first, last = "", "no error message"
        try:
            for line in child.stdout:
                sys.stderr.write(line)
                last = line.strip() or last
                first = first or line.partition("ERROR: ")[2].strip()
        finally:
            timeout.cancel()
    return None if child.returncode == 0 else first or last


def _probe(name: EngineName) -> Engine | None:
    if shutil.which(name) is None or not _query(name, *_PROBES[name]):
        return None
    version = re.search(r"\d+\.\d+[\w.]*", _query(name, "--version"))
    return Engine(name, version[0] if version else "of unknown version")


def _query(name: str, *words: str) -> str:
    """Return a program's output; empty if it fails or does not respond in time."""
    try:
        response = subprocess.run(
            [name, *words], capture_output=True, text=True, check=False, timeout=_RESPONSE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return response.stdout.strip() if response.returncode == 0 else ""


def _parse_image(record: Any) -> BuiltImage:
    if isinstance(record, list):  # docker and podman
        (image,) = record
        identity, config = image["Id"], image["Config"]
    else:
        identity, config = record["FromImageID"], record["OCIv1"]["config"]
    env = dict(pair.partition("=")[::2] for pair in config.get("Env") or ())
    return BuiltImage(identity.removeprefix("sha256:"), dict(config.get("Labels") or {}), env)
