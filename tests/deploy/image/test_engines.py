"""Which engine is taken, what it is told, and what is said where one fails. No engine is needed:

programs of the engines' names stand on the path and answer as the real ones were seen to.
"""

import json
import os
from pathlib import Path

import pytest

from parity.deploy.image import engines
from parity.deploy.image.engines import Engine
from parity.run.errors import BadConfig, BadData

IDENTITY = "ab" * 32
LABELS, ENV = {"a": "1"}, ["PATH=/bin", "B=x=y"]
DOCKER_SAYS = json.dumps([{"Id": f"sha256:{IDENTITY}", "Config": {"Labels": LABELS, "Env": ENV}}])
BUILDAH_SAYS = json.dumps(
    {"FromImageID": IDENTITY, "OCIv1": {"config": {"Labels": LABELS, "Env": ENV}}}
)


class Programs:
    """A folder that is the whole path, in which programs are put."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, *cases: str, then: str = "exit 1") -> None:
        """Write a program: each case is `PATTERN) COMMANDS`, over all its words."""
        body = "\n".join(f"  {case};;" for case in cases)
        path = self.folder / name
        path.write_text(f'#!/bin/sh\ncase "$*" in\n{body}\n  *) {then};;\nesac\n')
        path.chmod(0o755)

    def working(self, name: str, *cases: str) -> None:
        alive = {"docker": "version\\ --format*", "podman": "info", "buildah": "info"}[name]
        version = f"{name} version 4.5.6-dev, build x"
        self.put(name, f"{alive}) echo 4.5.6", f"--version) echo '{version}'", *cases)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", str(tmp_path))
    return Programs(tmp_path)


# Which one


def test_docker_comes_before_podman_and_podman_before_buildah(programs: Programs) -> None:
    for name in ("buildah", "podman", "docker"):
        programs.working(name)
        assert engines.find() == Engine(name, "4.5.6")
    assert str(engines.find()) == "docker 4.5.6"


def test_a_client_without_an_engine_is_passed_over(programs: Programs) -> None:
    programs.put("docker", "--version) echo 'Docker version 27.1.1'", then="echo no daemon; exit 1")
    programs.working("buildah")
    assert engines.find().name == "buildah"


def test_a_client_that_answers_nothing_is_passed_over(programs: Programs) -> None:
    programs.put("docker", then="echo; exit 0")
    programs.working("podman")
    assert engines.find().name == "podman"


def test_an_engine_that_hangs_is_passed_over(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_ANSWER_SECONDS", 0.5)
    programs.put("docker", then="exec /bin/sleep 60")
    programs.working("buildah")
    assert engines.find().name == "buildah"


def test_where_none_works_one_line_says_what_to_install(programs: Programs) -> None:
    programs.put("docker", then="echo no daemon >&2; exit 1")
    with pytest.raises(BadConfig) as caught:
        engines.find()
    assert str(caught.value) == (
        "no docker, podman or buildah that works; on Debian: apt-get install buildah"
    )


def test_a_local_base_decides_for_the_engine_that_has_it(programs: Programs) -> None:
    programs.working("docker")
    programs.working("buildah", f"inspect*standin*) echo '{BUILDAH_SAYS}'")
    assert engines.find().name == "docker"
    assert engines.find(holding="localhost/standin:1").name == "buildah"


def test_a_local_base_that_no_engine_has_is_named(programs: Programs) -> None:
    programs.working("docker")
    programs.working("buildah")
    with pytest.raises(BadConfig, match=r"docker 4\.5\.6 and buildah 4\.5\.6 has no such image"):
        engines.find(holding="localhost/standin:1")


def test_an_engine_that_has_gone_is_named(programs: Programs) -> None:
    programs.working("buildah")
    assert engines.named("buildah").name == "buildah"
    for name in ("docker", "nerdctl"):
        with pytest.raises(BadConfig, match=rf"{name}'s, which does not answer; run: invoke image"):
            engines.named(name)


# What an image is


@pytest.mark.parametrize(
    ("name", "asked", "says"),
    [
        ("docker", "image\\ inspect\\ localhost/x:1", DOCKER_SAYS),
        ("podman", "image\\ inspect\\ localhost/x:1", DOCKER_SAYS),
        ("buildah", "inspect\\ --type\\ image\\ localhost/x:1", BUILDAH_SAYS),
    ],
)
def test_an_image_is_read_alike_from_each(
    programs: Programs, name: engines.Name, asked: str, says: str
) -> None:
    programs.put(name, f"{asked}) echo '{says}'")
    found = engines.look(Engine(name, "1"), "localhost/x:1")
    assert found == engines.Built(IDENTITY, LABELS, {"PATH": "/bin", "B": "x=y"})
    assert engines.look(Engine(name, "1"), "localhost/other:1") is None


# What they are told


def test_no_engine_builds_with_a_network_or_fetches_on_its_own(tmp_path: Path) -> None:
    told = {
        name: engines.build_words(Engine(name, "1"), tmp_path, "localhost/x:1", {"A": "b"})
        for name in ("docker", "podman", "buildah")
    }
    assert "--network none" in " ".join(told["docker"])
    assert "--network none" in " ".join(told["podman"])
    assert "--pull=never" in told["podman"]
    assert "--pull-never" in told["buildah"]
    assert "--network" not in told["buildah"]  # which chroot isolation refuses
    before = told["buildah"][: told["buildah"].index("bud")]
    assert before[-1] == "buildah"
    assert before[-3:-1] == ["unshare", "--net"]
    for words in told.values():
        assert words[-1] == str(tmp_path)
        assert words[words.index("--build-arg") + 1] == "A=b"
        assert words[words.index("-t") + 1] == "localhost/x:1"


@pytest.mark.parametrize(("user", "first"), [(0, "unshare"), (1000, "buildah")])
def test_an_ordinary_user_cuts_the_network_in_a_namespace_of_their_own(
    monkeypatch: pytest.MonkeyPatch, user: int, first: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert engines.without_network()[0] == first
    assert engines.without_network()[-2:] == ["unshare", "--net"]


# What goes wrong


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_a_build_that_fails_gives_the_engines_last_line(
    programs: Programs, name: engines.Name, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    programs.put(name, then="echo STEP 1; echo 'Error: no space left' >&2; exit 1")
    with pytest.raises(BadData) as caught:
        engines.build(Engine(name, "9"), tmp_path, "localhost/x:1", {})
    assert str(caught.value) == f"{name} 9 could not build localhost/x:1: Error: no space left"
    out, err = capfd.readouterr()
    assert (out, err) == ("", "STEP 1\nError: no space left\n")  # passed on as it came


def test_what_pip_says_tells_more_than_that_a_step_has_failed(programs: Programs) -> None:
    told = "#8 1.2 ERROR: No matching distribution found for toy==1.0"
    programs.put("docker", then=f"echo '{told}'; echo 'ERROR: failed to solve: step 8'; exit 1")
    assert engines.follow(["docker"], 60) == "No matching distribution found for toy==1.0"


def test_a_build_that_leaves_nothing_is_no_success(programs: Programs, tmp_path: Path) -> None:
    programs.put("docker", "build*) true")
    with pytest.raises(BadData, match="it is not there afterwards"):
        engines.build(Engine("docker", "9"), tmp_path, "localhost/x:1", {})


def test_a_build_that_works_is_what_the_engine_then_has(programs: Programs, tmp_path: Path) -> None:
    programs.put("docker", "build*) true", f"image*) echo '{DOCKER_SAYS}'")
    assert engines.build(Engine("docker", "9"), tmp_path, "localhost/x:1", {}).id == IDENTITY


def test_a_base_that_cannot_be_had_says_how_to_do_without(programs: Programs) -> None:
    programs.put("podman", then="echo 'Error: no such host' >&2; exit 125")
    with pytest.raises(BadData, match=r"no such host; .*tools/standin_image\.py.*--base localhost"):
        engines.pull(Engine("podman", "9"), "gcr.io/x@sha256:0a")


def test_an_engine_that_never_ends_is_stopped(programs: Programs) -> None:
    programs.put("docker", then="echo begun; exec /bin/sleep 60")
    assert engines.follow(["docker", "build"], 0.5) == "begun"


def test_an_engine_that_ends_well_leaves_no_last_word(programs: Programs) -> None:
    programs.put("docker", then="echo done; exit 0")
    assert engines.follow(["docker", "build"], 60) is None
