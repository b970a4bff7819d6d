"""Docker, Podman or Buildah, whichever works here: the words that build, ask and remove.

An engine works when it answers, not when its program is there: a client without a daemon is common.
No build has a network, whoever builds: what an image gets must be in its base or its wheelhouse.
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

Name = Literal["docker", "podman", "buildah"]

_ANSWER_SECONDS = 20
_PULL_SECONDS, _BUILD_SECONDS = 4 * 3600, 3600  # the real image has about 50 GB
_NONE = "no docker, podman or buildah that works; on Debian: apt-get install buildah"
_ALIVE: dict[Name, tuple[str, ...]] = {
    "docker": ("version", "--format", "{{.Server.Version}}"),
    "podman": ("info",),
    "buildah": ("info",),
}
"""What only an engine that is really there answers, and with success."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answered.

    Attributes:
        name: its program.
        version: its own, as it says.
    """

    name: Name
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Built:
    """An image as an engine keeps it.

    Attributes:
        id: its identity, 64 hex digits.
        labels: label → value.
        env: variables that a process in it starts with.
    """

    id: str
    labels: dict[str, str]
    env: dict[str, str]


def find(holding: str = "") -> Engine:
    """Return the first engine that works: Docker, then Podman, then Buildah.

    Args:
        holding: a local image that it must have, since no registry has it.

    Raises:
        BadConfig: none works, or none of those that do has that image.
    """
    working = [engine for name in get_args(Name) if (engine := _answering(name))]
    if not working:
        raise BadConfig(_NONE)
    for engine in working:
        if not holding or look(engine, holding):
            return engine
    raise BadConfig(
        f"{holding}: {' and '.join(map(str, working))} has no such image; "
        "run: python tools/standin_image.py, or name another --base"
    )


def named(name: str) -> Engine:
    """Return the engine of this name.

    Raises:
        BadConfig: it does not work here, or no longer.
    """
    engine = next((_answering(arg) for arg in get_args(Name) if arg == name), None)
    if engine is None:
        raise BadConfig(f"the image is {name}'s, which does not answer; run: invoke image")
    return engine


def look(engine: Engine, reference: str) -> Built | None:
    """Return an image that the engine has, or None."""
    words = ["image", "inspect", reference]
    if engine.name == "buildah":
        words = ["inspect", "--type", "image", reference]
    told = _ask(engine.name, *words)
    return _built(json.loads(told)) if told else None


def pull_words(engine: Engine, reference: str) -> list[str]:
    """Return the words that fetch a base."""
    return [engine.name, "pull", reference]


def build_words(engine: Engine, context: Path, tag: str, arguments: Mapping[str, str]) -> list[str]:
    """Return the words that build the image, without a network and without fetching anything.

    Args:
        engine: who builds.
        context: folder with the Dockerfile.
        tag: the image's name.
        arguments: build arguments.

    Source:
        Buildah's chroot isolation needs neither a runtime nor cgroups; it refuses a network of its
        own, hence `unshare`.
    """
    given = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    common = ["-t", tag, "-f", str(context / "Dockerfile"), *given, str(context)]
    if engine.name == "docker":
        return ["docker", "build", "--network", "none", *common]
    local = ["--network", "none", "--format", "docker", "--pull=never"]
    if engine.name == "podman":
        return ["podman", "build", *local, *common]
    local = ["--isolation", "chroot", "--format", "docker", "--pull-never"]
    return [*without_network(), "buildah", "bud", *local, *common]


def without_network() -> list[str]:
    """Return the words that start a program in a network namespace of its own."""
    if os.geteuid() == 0:
        return ["unshare", "--net"]
    return ["buildah", "unshare", "unshare", "--net"]  # root in a user namespace of its own


def pull(engine: Engine, reference: str) -> None:
    """Fetch a base image, showing the engine's own progress.

    Raises:
        BadData: it cannot be had; says what went wrong.
    """
    last = follow(pull_words(engine, reference), _PULL_SECONDS)
    if last is not None:
        raise BadData(
            f"{engine} could not pull {reference}: {last}; where no registry is in reach, "
            "make a stand-in (python tools/standin_image.py) and name it: --base localhost/NAME:TAG"
        )


def build(engine: Engine, context: Path, tag: str, arguments: Mapping[str, str]) -> Built:
    """Build the image, showing the engine's own progress; return what it has become.

    Raises:
        BadData: it cannot be built; says what went wrong.
    """
    last = follow(build_words(engine, context, tag, arguments), _BUILD_SECONDS)
    built = look(engine, tag) if last is None else None
    if built is None:
        raise BadData(f"{engine} could not build {tag}: {last or 'it is not there afterwards'}")
    return built


def follow(words: Sequence[str], seconds: float) -> str | None:
    """Run an engine, passing on what it says to standard error as it comes.

    Returns:
        None where it ended well; otherwise what it says went wrong, in one line: the first that
        is called an error, for what an engine says last is only that a step has failed.
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
        limit = threading.Timer(seconds, child.kill)
        limit.start()
        first, last = "", "no word of why"
        try:
            for line in child.stdout:
                sys.stderr.write(line)
                last = line.strip() or last
                first = first or line.partition("ERROR: ")[2].strip()
        finally:
            limit.cancel()
    return None if child.returncode == 0 else first or last


def _answering(name: Name) -> Engine | None:
    if shutil.which(name) is None or not _ask(name, *_ALIVE[name]):
        return None
    version = re.search(r"\d+\.\d+[\w.]*", _ask(name, "--version"))
    return Engine(name, version[0] if version else "of unknown version")


def _ask(name: str, *words: str) -> str:
    """Return what a program answers, empty where it fails or does not answer in time."""
    try:
        answer = subprocess.run(
            [name, *words], capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _built(record: Any) -> Built:
    if isinstance(record, list):  # docker's and podman's
        (found,) = record
        identity, config = found["Id"], found["Config"]
    else:
        identity, config = record["FromImageID"], record["OCIv1"]["config"]
    env = dict(pair.partition("=")[::2] for pair in config.get("Env") or ())
    return Built(identity.removeprefix("sha256:"), dict(config.get("Labels") or {}), env)
