"""Container engines: which one is used, its command lines, and its errors. No engine is needed:

scripts with the engines' names are on the path and print what the real engines print.
"""

import json
import os
from pathlib import Path

import pytest

from parity.deploy.image import engines
from parity.deploy.image.engines import BuiltImage, Engine
from parity.run.errors import BadConfig, BadData

IDENTITY = "ab" * 32
LABELS, ENV = {"a": "1"}, ["PATH=/bin", "B=x=y"]
DOCKER_JSON = json.dumps([{"Id": f"sha256:{IDENTITY}", "Config": {"Labels": LABELS, "Env": ENV}}])
BUILDAH_JSON = json.dumps(
    {"FromImageID": IDENTITY, "OCIv1": {"config": {"Labels": LABELS, "Env": ENV}}}
)


class Programs:
    """A folder with scripts, the only folder on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, *cases: str, default: str = "exit 1") -> None:
        """Write a script: each case is `PATTERN) COMMANDS`, matched against all arguments."""
        body = "\n".join(f"  {case};;" for case in cases)
        path = self.folder / name
        path.write_text(f'#!/bin/sh\ncase "$*" in\n{body}\n  *) {default};;\nesac\n')
        path.chmod(0o755)

    def add_engine(self, name: str, *cases: str) -> None:
        """Write a script that responds like a working engine."""
        probe = {"docker": "version\\ --format*", "podman": "info", "buildah": "info"}[name]
        version = f"{name} version 4.5.6-dev, build x"
        self.add(name, f"{probe}) echo 4.5.6", f"--version) echo '{version}'", *cases)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", str(tmp_path))
    return Programs(tmp_path)


# Choice of the engine


def test_docker_comes_before_podman_and_podman_before_buildah(programs: Programs) -> None:
    for name in ("buildah", "podman", "docker"):
        programs.add_engine(name)
        assert engines.find() == Engine(name, "4.5.6")
    assert str(engines.find()) == "docker 4.5.6"


def test_a_client_without_a_daemon_is_skipped(programs: Programs) -> None:
    version = "--version) echo 'Docker version 27.1.1'"
    programs.add("docker", version, default="echo no daemon; exit 1")
    programs.add_engine("buildah")
    assert engines.find().name == "buildah"


def test_a_client_that_prints_nothing_is_skipped(programs: Programs) -> None:
    programs.add("docker", default="echo; exit 0")
    programs.add_engine("podman")
    assert engines.find().name == "podman"


def test_an_engine_that_hangs_is_skipped(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_RESPONSE_SECONDS", 0.5)
    programs.add("docker", default="exec /bin/sleep 60")
    programs.add_engine("buildah")
    assert engines.find().name == "buildah"


def test_without_an_engine_the_error_names_a_package_to_install(programs: Programs) -> None:
    programs.add("docker", default="echo no daemon >&2; exit 1")
    with pytest.raises(BadConfig) as error:
        engines.find()
    assert str(error.value) == (
        "no working docker, podman or buildah found. On Debian: apt-get install buildah"
    )


def test_a_local_base_selects_the_engine_that_has_it(programs: Programs) -> None:
    programs.add_engine("docker")
    programs.add_engine("buildah", f"inspect*standin*) echo '{BUILDAH_JSON}'")
    assert engines.find().name == "docker"
    assert engines.find(image="localhost/standin:1").name == "buildah"


def test_a_local_base_that_no_engine_has_is_refused(programs: Programs) -> None:
    programs.add_engine("docker")
    programs.add_engine("buildah")
    with pytest.raises(
        BadConfig, match=r"standin:1 not found in docker 4\.5\.6 or buildah 4\.5\.6"
    ):
        engines.find(image="localhost/standin:1")


def test_an_engine_that_no_longer_responds_is_refused(programs: Programs) -> None:
    programs.add_engine("buildah")
    assert engines.by_name("buildah").name == "buildah"
    for name in ("docker", "nerdctl"):
        with pytest.raises(BadConfig, match=f"built with {name}, which does not respond") as error:
            engines.by_name(name)
        assert error.value.fix == ("image",)


# Images


@pytest.mark.parametrize(
    ("name", "arguments", "output"),
    [
        ("docker", "image\\ inspect\\ localhost/x:1", DOCKER_JSON),
        ("podman", "image\\ inspect\\ localhost/x:1", DOCKER_JSON),
        ("buildah", "inspect\\ --type\\ image\\ localhost/x:1", BUILDAH_JSON),
    ],
)
def test_an_image_is_the_same_from_every_engine(
    programs: Programs, name: engines.EngineName, arguments: str, output: str
) -> None:
    programs.add(name, f"{arguments}) echo '{output}'")
    image = engines.inspect_image(Engine(name, "1"), "localhost/x:1")
    assert image == BuiltImage(IDENTITY, LABELS, {"PATH": "/bin", "B": "x=y"})
    assert engines.inspect_image(Engine(name, "1"), "localhost/other:1") is None


# Command lines


def test_no_engine_builds_with_a_network_or_pulls(tmp_path: Path) -> None:
    commands = {
        name: engines.build_command(Engine(name, "1"), tmp_path, "localhost/x:1", {"A": "b"})
        for name in ("docker", "podman", "buildah")
    }
    assert "--network none" in " ".join(commands["docker"])
    assert "--network none" in " ".join(commands["podman"])
    assert "--pull=never" in commands["podman"]
    assert "--pull-never" in commands["buildah"]
    assert "--network" not in commands["buildah"]  # chroot isolation does not support it
    prefix = commands["buildah"][: commands["buildah"].index("bud")]
    assert prefix[-1] == "buildah"
    assert prefix[-3:-1] == ["unshare", "--net"]
    for words in commands.values():
        assert words[-1] == str(tmp_path)
        assert words[words.index("--build-arg") + 1] == "A=b"
        assert words[words.index("-t") + 1] == "localhost/x:1"


@pytest.mark.parametrize(("user", "first"), [(0, "unshare"), (1000, "buildah")])
def test_an_ordinary_user_drops_the_network_in_a_user_namespace(
    monkeypatch: pytest.MonkeyPatch, user: int, first: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert engines.without_network_prefix()[0] == first
    assert engines.without_network_prefix()[-2:] == ["unshare", "--net"]


# Errors


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_a_failed_build_reports_the_last_line_of_the_engine(
    programs: Programs, name: engines.EngineName, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    programs.add(name, default="echo STEP 1; echo 'Error: no space left' >&2; exit 1")
    with pytest.raises(BadData) as error:
        engines.build(Engine(name, "9"), tmp_path, "localhost/x:1", {})
    assert str(error.value) == f"{name} 9 could not build localhost/x:1: Error: no space left"
    out, err = capfd.readouterr()
    assert (out, err) == ("", "STEP 1\nError: no space left\n")  # copied as it was printed


def test_the_error_of_pip_is_preferred_to_that_of_the_engine(programs: Programs) -> None:
    line = "#8 1.2 ERROR: No matching distribution found for toy==1.0"
    programs.add("docker", default=f"echo '{line}'; echo 'ERROR: failed to solve: step 8'; exit 1")
    result = engines.run_streaming(["docker"], 60)
    assert result == "No matching distribution found for toy==1.0"


def test_a_build_without_an_image_is_an_error(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", "build*) true")
    with pytest.raises(BadData, match="the image is missing after the build"):
        engines.build(Engine("docker", "9"), tmp_path, "localhost/x:1", {})


def test_a_build_returns_the_image_of_the_engine(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", "build*) true", f"image*) echo '{DOCKER_JSON}'")
    assert engines.build(Engine("docker", "9"), tmp_path, "localhost/x:1", {}).id == IDENTITY


def test_a_failed_pull_suggests_the_stand_in(programs: Programs) -> None:
    programs.add("podman", default="echo 'Error: no such host' >&2; exit 125")
    with pytest.raises(
        BadData, match=r"no such host\. .*tools/standin_image\.py.*--base localhost"
    ):
        engines.pull(Engine("podman", "9"), "gcr.io/x@sha256:0a")


def test_an_engine_that_does_not_finish_is_killed(programs: Programs) -> None:
    programs.add("docker", default="echo begun; exec /bin/sleep 60")
    assert engines.run_streaming(["docker", "build"], 0.5) == "begun"


def test_a_successful_command_has_no_error(programs: Programs) -> None:
    programs.add("docker", default="echo done; exit 0")
    assert engines.run_streaming(["docker", "build"], 60) is None
