"""The built wheel: what it contains, and that its commands run in an empty folder."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import parity
from parity.run.resources import describe_build

ROOT = Path(__file__).parents[1]
SECONDS = 600

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Run a command outside the checkout and return what it printed."""
    answer = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment of its own; dependencies come from this one."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    install = ("pip", "install", "--offline", "--no-deps", "--python", python, wheel)
    run(Path(sys.executable).with_name("uv"), *install, cwd=environment)
    return environment / "bin" / "parity"


def test_the_wheel_holds_what_a_checkout_has_at_its_root(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    resources = {name.removeprefix("parity/resources/") for name in names if "/resources/" in name}
    for name in ("kaggle/kernel.py", "kaggle/image.lock", "offline_wheels/wheels.lock"):
        assert name in resources
    runs = {path.relative_to(ROOT / "runs").as_posix() for path in ROOT.glob("runs/**/*.toml")}
    assert {name.removeprefix("runs/") for name in resources if name.endswith(".toml")} == runs
    assert "parity/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


def test_the_version_names_commit_and_lock(command: Path, tmp_path: Path) -> None:
    printed = run(command, "--version", cwd=tmp_path)
    build = describe_build()
    assert parity.__version__ in printed
    assert build["lock"][:12] in printed
    assert build["commit"][:12] in printed


def test_the_demo_runs_in_an_empty_folder(command: Path, tmp_path: Path) -> None:
    env = {"PYTHONPATH": "", "PARITY_DATA": ""}
    printed = run(command, "demo", "--quick", cwd=tmp_path, **env)
    assert "rehearsal" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    assert list((tmp_path / "data" / "runs").glob("*/report.html"))


@pytest.mark.parametrize("words", [["test"], ["bench", "encode"]])
def test_a_command_that_needs_a_checkout_says_so(
    command: Path, tmp_path: Path, words: list[str]
) -> None:
    answer = subprocess.run(
        [str(command), *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "checkout" in answer.stderr
    assert "Traceback" not in answer.stderr
