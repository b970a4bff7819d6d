"""Trackers log every step, write only on this machine, and write no API key."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig
from parity.training.tracking import open_tracker

FAKE_KEY = "k3y that must not be written"
STEPS = 3
READER = "tensorboard.backend.event_processing.event_file_loader"
# In its own process: trackers keep threads and read the environment once.
PROGRAM = f"""\
import sys
from pathlib import Path
from parity.run.config.training import TrainingConfig
from parity.training.tracking import open_tracker

config = TrainingConfig(tracker=sys.argv[1])
settings = {{"training.r": 4, "data.competition": "small", "prompt.icl": False}}
log, close = open_tracker(config, Path("tracker"), settings, main=True)
for step in range(1, {STEPS} + 1):
    log({{"loss": 1 / step, "learning_rate": 1e-4, "epoch": 1}}, step)
close()
"""


def run_tracker(folder: Path, tracker: str) -> str:
    """Track three steps with an empty home folder; return stdout."""
    home = folder / "home"
    home.mkdir()
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, tracker],
        cwd=folder,
        env={
            **os.environ,
            "HOME": str(home),
            "WANDB_API_KEY": FAKE_KEY,
            "HF_TOKEN": FAKE_KEY,
            "KAGGLE_KEY": FAKE_KEY,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def assert_no_key(folder: Path) -> None:
    assert [path for path in files(folder) if FAKE_KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(("tracker", "main"), [("none", True), ("tensorboard", False)])
def test_without_a_tracker_or_in_other_ranks_nothing_is_written(
    tmp_path: Path, tracker: str, main: bool
) -> None:
    before = dict(os.environ)
    config = TrainingConfig.model_validate({"tracker": tracker})
    log, close = open_tracker(config, tmp_path / "tracker", {"a.b": 1}, main=main)
    log({"loss": 1.0}, 1)
    close()
    assert files(tmp_path) == []
    assert not (tmp_path / "tracker").exists()
    assert dict(os.environ) == before


def test_tensorboard_writes_every_step_and_the_settings_into_the_folder(tmp_path: Path) -> None:
    assert run_tracker(tmp_path, "tensorboard") == ""
    written = files(tmp_path / "tracker")
    assert files(tmp_path) == written
    events = [path for path in written if path.name.startswith("events.out.tfevents")]
    read = importlib.import_module(READER).EventFileLoader
    seen = {
        (value.tag, event.step): value.tensor.float_val[0]
        for path in events
        for event in read(str(path)).Load()
        for value in event.summary.value
        if value.tensor.float_val
    }
    assert [seen["loss", step] for step in range(1, STEPS + 1)] == pytest.approx([1, 1 / 2, 1 / 3])
    assert seen["learning_rate", 1] == pytest.approx(1e-4)
    (settings,) = [path for path in written if path.name == "hparams.yml"]
    assert "data.competition: small" in settings.read_text()
    assert_no_key(tmp_path)


def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRACKIO_DIR", "WANDB_DIR"):
        monkeypatch.setenv(name, str(tmp_path))  # so that it is restored afterwards
    monkeypatch.setitem(sys.modules, "wandb", None)
    message = (
        r"training\.tracker = 'wandb': the package is not installed\. Install .* pip install wandb"
    )
    with pytest.raises(BadConfig, match=message):
        open_tracker(TrainingConfig(tracker="wandb"), tmp_path / "tracker", {}, main=True)


@pytest.mark.slow
def test_trackio_writes_only_on_this_machine(tmp_path: Path) -> None:
    output = run_tracker(tmp_path, "trackio")
    assert 'trackio show --project "kaggle-parity"' in output
    (database,) = tmp_path.rglob("kaggle-parity.db")  # the path that `trackio show` reads
    assert b"loss" in database.read_bytes()
    assert_no_key(tmp_path)
