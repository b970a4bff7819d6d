"""Another Python is found where it runs, and nowhere else."""

import sys
from pathlib import Path

import pytest

from parity.deploy.wheelhouse import interpreters
from parity.run.errors import BadConfig

OURS = "{}.{}".format(*sys.version_info[:2])
VARIABLE = f"PARITY_PYTHON{OURS.replace('.', '')}"


def put(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a folder; no Python is on the path or beside ours."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "side" / "ours"))
    return tmp_path


def test_the_one_that_the_variable_names_is_taken(
    nothing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, sys.executable)
    assert interpreters.find(OURS) == Path(sys.executable)


def test_a_variable_that_names_something_else_is_an_error(
    nothing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(nothing / "bin" / f"python{OURS}", f"echo {OURS}")
    for wrong in (str(nothing / "absent"), str(put(nothing / "old", "echo 2.7"))):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(BadConfig, match=f"{VARIABLE}={wrong} is no Python"):
            interpreters.find(OURS)


def test_one_on_the_path_that_does_not_run_is_passed_over(nothing: Path) -> None:
    put(nothing / "bin" / "python3.9", "echo 'pyenv: command not found' >&2; exit 127")
    old = put(nothing / "side" / "3.9.2" / "bin" / "python3.9", "echo 3.9")
    assert interpreters.find("3.9") == old
    new = put(nothing / "side" / "3.9.18" / "bin" / "python3.9", "echo 3.9")
    assert interpreters.find("3.9") == new  # 18 is more than 2
    put(nothing / "bin" / "python3.9", "echo 3.9")
    assert interpreters.find("3.9") == nothing / "bin" / "python3.9"


def test_pyenvs_versions_come_last(nothing: Path) -> None:
    there = put(nothing / "pyenv" / "versions" / "3.9.1" / "bin" / "python3.9", "echo 3.9")
    assert interpreters.find("3.9") == there


def test_where_there_is_none_one_line_says_how_to_get_it(nothing: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        interpreters.find("3.9")
    assert "no Python 3.9 here; install one" in str(caught.value)
    assert "PARITY_PYTHON39=FILE" in str(caught.value)
    assert "\n" not in str(caught.value)
