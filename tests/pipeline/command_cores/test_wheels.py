"""The command `wheels`: it locks and downloads once, and a second call changes nothing."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.wheelhouse import packages, wheelhouses
from deploy.wheelhouse.packages import Index

from parity.deploy.wheelhouse import interpreters, wheel_lock
from parity.pipeline.command_cores.wheels import wheels
from parity.run import digest, files
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import Run, open_run

ROOT = Path(__file__).parents[3]
FROZEN = "kaggle==2.0.2\nnumpy==2.0.2\ntorch==2.10.0+cu128\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """Yield a local index, the only one that pip and uv use."""
    with packages.serving(tmp_path / "index") as served:
        monkeypatch.setenv("PIP_INDEX_URL", served.address)
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("HOME", str(tmp_path))
        for version in ("2.10.0", "2.13.0"):
            served.add("torch", version)
        served.add("bits", "0.50", ["torch"])
        served.add("search", "1.15", ["helper"])
        served.add("helper", "1.0")
        yield served


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout of the project with a small image and an empty wheelhouse."""
    root = tmp_path / "checkout"
    wheelhouses.copy_sources(root)
    shutil.rmtree(root / "offline_wheels")
    write_freeze(root, FROZEN)
    wheelhouses.use_checkout(root, monkeypatch)
    return root


def write_freeze(checkout: Path, text: str) -> None:
    record = json.loads((ROOT / "kaggle" / "image.lock").read_text(encoding="utf-8"))
    record["facts"]["freeze_sha256"]["value"] = digest.of_text(text)
    files.write_json(checkout / "kaggle" / "image.lock", record)
    files.write_text(checkout / "kaggle" / record["facts"]["freeze"]["value"], text)


def run(tmp_path: Path, *wants: str) -> Run:
    file = tmp_path / "small.toml"
    file.write_text(f"[shipping]\nwheels = {json.dumps(wants)}\n")
    return open_run(file)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.usefixtures("index")
def test_wheels_are_locked_and_downloaded_once_and_verified_each_time(
    tmp_path: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    house = checkout / "offline_wheels"
    wheels(run(tmp_path, "bits"))
    output = capsys.readouterr().out
    assert (
        "offline_wheels/wheels.lock, resolved under the image's freeze:\n  + bits 0.50 (wan"
        in output
    )
    assert "the project's own" in output
    assert max(map(len, output.splitlines())) <= 80
    before = state(house)
    assert set(before) == {
        *("bits-0.50-py3-none-any.whl", "kaggle_parity-0.1.0-py3-none-any.whl", "wheels.lock")
    }
    wheels(run(tmp_path, "bits"))
    output = capsys.readouterr().out
    assert state(house) == before
    assert output.endswith("no changes: every wheel was locked and downloaded already\n")
    try:
        interpreters.find("3.12")
    except BadConfig:
        assert "not verified: no Python 3.12" in output
    else:
        assert "\nverified: into the image's 3 packages, pip would install" in output


def test_wheels_of_another_run_are_added_and_locked_ones_stay(
    tmp_path: Path, checkout: Path, index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    house = checkout / "offline_wheels"
    wheels(run(tmp_path, "bits"))
    index.add("bits", "0.60", ["torch"])
    wheels(run(tmp_path, "search"))
    output = " ".join(capsys.readouterr().out.split())
    assert "+ helper 1.0 (needed by search) + search 1.15 (wanted) wheel" in output
    assert "locked wheels, 2 of 2 " in output or "not verified" in output
    assert "wheels of other runs in this folder: bits-0.50-py3-none-any.whl" in output
    lock = wheel_lock.read(house / "wheels.lock")
    assert [wheel.pin for wheel in lock.wheels] == ["bits==0.50", "helper==1.0", "search==1.15"]
    (house / "bits-0.50-py3-none-any.whl").unlink()
    before = state(house)
    wheels(run(tmp_path, "bits"))
    assert "no changes" not in capsys.readouterr().out
    assert set(state(house)) - set(before) == {"bits-0.50-py3-none-any.whl"}


def test_a_new_freeze_is_resolved_again_and_superseded_wheels_are_removed(
    tmp_path: Path, checkout: Path, index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    house = checkout / "offline_wheels"
    index.add("bits", "0.40", ["torch<2.13"])
    index.add("bits", "0.50", ["torch>=2.13"])
    wheels(run(tmp_path, "bits"))
    assert (house / "bits-0.40-py3-none-any.whl").is_file()
    write_freeze(checkout, FROZEN.replace("2.10.0+cu128", "2.13.0"))
    capsys.readouterr()
    wheels(run(tmp_path, "bits"))
    assert "  ~ bits 0.40 (wanted) → 0.50 (wanted)\n" in capsys.readouterr().out
    assert [path.name for path in house.glob("bits-*")] == ["bits-0.50-py3-none-any.whl"]
    write_freeze(checkout, FROZEN.replace("2.10.0+cu128", "2.13.0") + "search==1.15\n")
    wheels(run(tmp_path, "bits"))
    assert "  no wheel changed\n" in capsys.readouterr().out
    write_freeze(checkout, FROZEN.replace("2.10.0+cu128", "2.13.0") + "other==1.15\n")
    wheels(run(tmp_path))  # a run without wheels updates the lock too
    assert "  no wheel changed\n" in capsys.readouterr().out


def test_packages_that_a_new_image_has_leave_the_lock(
    tmp_path: Path, checkout: Path, index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels(run(tmp_path, "bits", "search"))
    write_freeze(checkout, FROZEN + "search==1.15\nhelper==1.0\n")
    wheels(run(tmp_path, "bits"))
    assert "  - helper 1.0\n  - search 1.15\n" in capsys.readouterr().out
    assert index.folder.is_dir()
    with pytest.raises(BadConfig, match=r"search in .* is in the image already \(1\.15\)"):
        wheels(run(tmp_path, "search"))


def test_a_run_without_wheels_does_not_contact_the_index(
    tmp_path: Path,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    wheels(run(tmp_path))
    assert "nothing to verify: the run names no wheels" in capsys.readouterr().out
    first = state(checkout / "offline_wheels")
    assert set(first) == {"kaggle_parity-0.1.0-py3-none-any.whl", "wheels.lock"}
    wheels(run(tmp_path))
    assert state(checkout / "offline_wheels") == first
    assert "no changes" in capsys.readouterr().out


def test_an_index_that_does_not_respond_changes_nothing(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(StaleInput, match="the package index could not be used"):
        wheels(run(tmp_path, "bits"))
    assert not (checkout / "offline_wheels").exists()
