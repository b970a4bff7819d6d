"""A manifest describes what can change a score, and names no person and no machine."""

import getpass
import importlib.metadata
import json
import socket
import sys
from pathlib import Path

import pytest

from parity.run import environment
from parity.run.digest import canonical


def fake_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a fake nvidia-smi the only program in PATH."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!{sys.executable}\n{script}", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_every_package_that_can_change_a_score_has_its_version() -> None:
    packages = environment.describe()["packages"]
    for name in ("torch", "transformers", "peft", "numpy", "scikit-learn", "kaggle-parity"):
        assert packages[name] == importlib.metadata.version(name)
    assert set(packages) == set(environment.PACKAGES)


def test_a_missing_package_has_no_version() -> None:
    assert environment.version("no-such-package-of-ours") == ""


def test_no_host_user_or_path_is_named(root: Path, tmp_path: Path) -> None:
    text = json.dumps(environment.describe())
    paths = (root, tmp_path, Path.cwd(), Path.home(), sys.prefix, sys.executable)
    names = (socket.gethostname(), socket.getfqdn(), getpass.getuser(), root.name)
    words = text.replace('"', " ").split()
    assert not [path for path in paths if str(path) in text]
    assert not set(names) & set(words)
    assert "/" not in text


def test_the_description_is_reproducible_json() -> None:
    assert canonical(environment.describe()) == canonical(environment.describe())


def test_python_and_threads_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    description = environment.describe()
    assert description["python"] == ".".join(map(str, sys.version_info[:3]))
    assert description["threads"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert environment.describe()["threads"] == ""


def test_without_a_driver_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.gpu() == ""


def test_each_gpu_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "print('T4, 15360 MiB\\nT4, 15360 MiB')", monkeypatch)
    assert environment.gpu() == "T4, 15360 MiB; T4, 15360 MiB"


@pytest.mark.parametrize("script", ["print('No devices'); raise SystemExit(9)", "import nothing"])
def test_a_failing_driver_means_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    fake_nvidia_smi(tmp_path, script, monkeypatch)
    assert environment.gpu() == ""


def test_a_driver_that_cannot_start_means_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvidia_smi(tmp_path, "", monkeypatch)
    (tmp_path / "nvidia-smi").write_text("#!/no/such/program\n", encoding="utf-8")
    assert environment.gpu() == ""
