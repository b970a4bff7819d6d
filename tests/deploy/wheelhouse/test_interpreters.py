"""Another Python is found only if it runs."""

import sys
from pathlib import Path

import pytest

from parity.deploy.wheelhouse import interpreters
from parity.run.errors import BadConfig

RUNNING = "{}.{}".format(*sys.version_info[:2])
VARIABLE = f"PARITY_PYTHON{RUNNING.replace('.', '')}"


def write_script(path: Path, command: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty folder and search for a Python only below it."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "side" / "ours"))
    return tmp_path


def test_the_python_that_the_variable_names_is_used(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, sys.executable)
    assert interpreters.find(RUNNING) == Path(sys.executable)


def test_a_variable_that_names_another_program_is_an_error(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script(empty_machine / "bin" / f"python{RUNNING}", f"echo {RUNNING}")
    for wrong in (
        str(empty_machine / "absent"),
        str(write_script(empty_machine / "old", "echo 2.7")),
    ):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(BadConfig, match=f"{VARIABLE}={wrong} is not a working Python"):
            interpreters.find(RUNNING)


def test_a_python_on_the_path_that_does_not_run_is_skipped(empty_machine: Path) -> None:
    write_script(
        empty_machine / "bin" / "python3.9", "echo 'pyenv: command not found' >&2; exit 127"
    )
    old = write_script(empty_machine / "side" / "3.9.2" / "bin" / "python3.9", "echo 3.9")
    assert interpreters.find("3.9") == old
    new = write_script(empty_machine / "side" / "3.9.18" / "bin" / "python3.9", "echo 3.9")
    assert interpreters.find("3.9") == new  # 18 is more than 2
    write_script(empty_machine / "bin" / "python3.9", "echo 3.9")
    assert interpreters.find("3.9") == empty_machine / "bin" / "python3.9"


def test_pyenvs_versions_come_last(empty_machine: Path) -> None:
    python = write_script(
        empty_machine / "pyenv" / "versions" / "3.9.1" / "bin" / "python3.9", "echo 3.9"
    )
    assert interpreters.find("3.9") == python


def test_without_a_python_the_error_explains_how_to_get_one(empty_machine: Path) -> None:
    with pytest.raises(BadConfig) as error:
        interpreters.find("3.9")
    assert "no Python 3.9 on this machine. Install one" in str(error.value)
    assert "PARITY_PYTHON39=FILE" in str(error.value)
    assert "\n" not in str(error.value)
