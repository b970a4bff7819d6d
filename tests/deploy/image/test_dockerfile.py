"""The Dockerfile and what may travel with it: its base is the lock's, and it is linted."""

import io
import re
import subprocess
import sys
from pathlib import Path

from dockerfile_parse import DockerfileParser

from parity.deploy.image import build_context, image_lock
from parity.deploy.image.build_context import ImageDigests

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "Dockerfile"
LOCK = ROOT / "kaggle" / "image.lock"


def parsed(**arguments: str) -> DockerfileParser:
    return DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes()), build_args=arguments)


def test_the_default_base_is_the_locked_digest() -> None:
    base = parsed().baseimage
    assert base == image_lock.read(LOCK).reference
    assert re.search(r"@sha256:[0-9a-f]{64}$", base)


def test_another_base_can_be_given() -> None:
    assert parsed(BASE_IMAGE="localhost/standin:1").baseimage == "localhost/standin:1"


def test_its_labels_are_those_of_the_layers() -> None:
    layers = ImageDigests("localhost/standin:1", "a" * 64, "b" * 64, "c" * 64)
    labels = parsed(**layers.arguments).labels
    assert {name: labels[name] for name in layers.labels} == layers.labels


def test_it_is_linted() -> None:
    lint = Path(sys.executable).with_name("hadolint")
    answer = subprocess.run([lint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_the_linter_does_find_what_it_is_for() -> None:
    lint = Path(sys.executable).with_name("hadolint")
    text = "FROM python:latest\nRUN cd /tmp && sudo pip install six\n"
    answer = subprocess.run([lint, "-"], input=text, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert {"DL3003", "DL3004", "DL3007"} <= set(re.findall(r"DL\d+", answer.stdout))


def test_it_installs_by_hash_from_no_index() -> None:
    (install,) = [one["value"] for one in parsed().structure if one["instruction"] == "RUN"]
    for word in ("--isolated", "--no-index", "--no-deps", "--require-hashes"):
        assert word in install.split()


def test_it_uses_nothing_that_buildah_1_28_or_docker_lacks() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert "<<" not in text
    assert "--network" not in text
    assert not re.search(r"^SHELL", text, re.MULTILINE)


def test_it_runs_as_no_root_unless_asked() -> None:
    users = [one["value"] for one in parsed().structure if one["instruction"] == "USER"]
    assert users == ["${RUN_AS}"]
    arguments = [one["value"] for one in parsed().structure if one["instruction"] == "ARG"]
    assert "RUN_AS=1000:1000" in arguments


def test_only_what_it_uses_may_travel_from_a_checkout() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and line[0] != "#"]
    assert rules[0] == "*"
    assert set(rules[1:]) == {
        f"!{build_context.WHEELHOUSE}/*.whl",
        f"!{build_context.WHEELHOUSE}/requirements.txt",
        f"!{build_context.KERNEL}",
    }
