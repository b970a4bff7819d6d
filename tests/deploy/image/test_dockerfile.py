"""The Dockerfile: its base image is the locked one, it is linted, and its context is limited."""

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


def parse_dockerfile(**arguments: str) -> DockerfileParser:
    return DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes()), build_args=arguments)


def instruction_values(instruction: str) -> list[str]:
    structure = parse_dockerfile().structure
    return [line["value"] for line in structure if line["instruction"] == instruction]


def test_the_default_base_is_the_locked_digest() -> None:
    base = parse_dockerfile().baseimage
    assert base == image_lock.read(LOCK).reference
    assert re.search(r"@sha256:[0-9a-f]{64}$", base)


def test_the_base_can_be_replaced() -> None:
    assert parse_dockerfile(BASE_IMAGE="localhost/standin:1").baseimage == "localhost/standin:1"


def test_the_labels_are_those_of_the_inputs() -> None:
    digests = ImageDigests("localhost/standin:1", "a" * 64, "b" * 64, "c" * 64)
    labels = parse_dockerfile(**digests.arguments).labels
    assert {name: labels[name] for name in digests.labels} == digests.labels


def test_the_dockerfile_passes_the_linter() -> None:
    lint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([lint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_linter_finds_known_faults() -> None:
    lint = Path(sys.executable).with_name("hadolint")
    text = "FROM python:latest\nRUN cd /tmp && sudo pip install six\n"
    result = subprocess.run([lint, "-"], input=text, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert {"DL3003", "DL3004", "DL3007"} <= set(re.findall(r"DL\d+", result.stdout))


def test_wheels_are_installed_by_hash_without_an_index() -> None:
    (install,) = instruction_values("RUN")
    for word in ("--isolated", "--no-index", "--no-deps", "--require-hashes"):
        assert word in install.split()


def test_the_dockerfile_uses_only_features_of_buildah_1_28_and_docker() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert "<<" not in text
    assert "--network" not in text
    assert not re.search(r"^SHELL", text, re.MULTILINE)


def test_the_image_does_not_run_as_root_by_default() -> None:
    assert instruction_values("USER") == ["${RUN_AS}"]
    assert "RUN_AS=1000:1000" in instruction_values("ARG")


def test_the_context_of_a_checkout_is_limited_to_what_the_dockerfile_uses() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and line[0] != "#"]
    assert rules[0] == "*"
    assert set(rules[1:]) == {
        f"!{build_context.WHEELHOUSE}/*.whl",
        f"!{build_context.WHEELHOUSE}/requirements.txt",
        f"!{build_context.KERNEL}",
    }
