"""A training killed at any moment and restarted gives the same bytes as an uninterrupted one."""

import itertools
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import Files, RunFixture

from parity.pipeline import dag, epochs
from parity.pipeline.epochs import SavedEpoch
from parity.run import files
from parity.run import manifest as manifests
from parity.run.errors import Mismatch
from parity.run.experiment import Run
from parity.training import trainer

EPOCHS = 3
LONG = {"epochs": EPOCHS, "batch_size": 4, "checkpoint_every": 2}  # 24 steps, 8 an epoch
STEPS = 24
INTERRUPTED = 130
GO_ON = "interrupted; run the same command again to continue"


class Killed(BaseException):
    """Stands for SIGKILL in tests that choose the rename at which it comes."""


def kill_at(patch: pytest.MonkeyPatch, moment: int) -> None:
    """Stop the process at its n-th rename, without cleanup."""
    count, dead = itertools.count(), False
    rename, remove = Path.replace, files._remove

    def replace_(self: Path, target: Path) -> Path:
        nonlocal dead
        if next(count) != moment:
            return rename(self, target)
        dead = True
        raise Killed

    def remove_(path: Path) -> None:
        if not dead:
            remove(path)

    patch.setattr(Path, "replace", replace_)
    patch.setattr(files, "_remove", remove_)


def output_files(run: Run) -> Files:
    """Return the files of a finished training that do not depend on time or interruptions."""
    contents = run_fixture.contents(dag.folder(run, "train"))
    return {
        name: data
        for name, data in contents.items()
        if name != "manifest.json" and not name.startswith(".")
    }


def manifest(run: Run) -> tuple[str, dict[str, object]]:
    record = manifests.read(dag.folder(run, "train"))
    assert record is not None
    spent: dict[str, object] = {
        **record.facts["spent"],
        "seconds": 0.0,
    }  # differs between trainings
    return record.digest(), {**record.facts, "spent": spent}


@pytest.fixture(scope="module")
def uninterrupted(
    _predicted_run: RunFixture, tmp_path_factory: pytest.TempPathFactory
) -> RunFixture:
    """Train without interruption."""
    small_run = replace(_predicted_run, folder=tmp_path_factory.mktemp("whole"))
    shutil.copytree(_predicted_run.folder, small_run.folder, dirs_exist_ok=True)
    small_run.write_config(training=LONG)
    shutil.rmtree(small_run.data / "runs/small/round-0/train")
    with run_fixture.working_in(small_run):
        small_run.run_stages("train")
    return small_run


def run_of(small_run: RunFixture) -> Run:
    with run_fixture.working_in(small_run):
        return small_run.open()


@pytest.fixture
def interrupted(predicted_run: RunFixture) -> RunFixture:
    """Return a small run that is ready to train as `uninterrupted` did."""
    predicted_run.write_config(training=LONG)
    shutil.rmtree(predicted_run.data / "runs/small/round-0/train")
    return predicted_run


def kill_and_resume(small_run: RunFixture, moment: int) -> bool:
    """Kill a training at a rename and restart it; return whether it got that far."""
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, moment)
        try:
            small_run.run_stages("train")
        except Killed:
            pass
        else:
            return False
    assert dag.StageGraph().standing(small_run.open(), "train").state != "stale"
    small_run.run_stages("train")
    return True


def check_same(small_run: RunFixture, uninterrupted: RunFixture) -> None:
    """Check that two trainings have equal bytes and equal manifests."""
    result, expected = output_files(small_run.open()), output_files(run_of(uninterrupted))
    assert result.keys() == expected.keys()
    assert [name for name in result if result[name] != expected[name]] == []
    assert manifest(small_run.open()) == manifest(run_of(uninterrupted))


def start_training(small_run: RunFixture) -> subprocess.Popen[str]:
    """Start `python -m parity train` with the default handling of Ctrl-C."""
    words = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    words += "from parity.cli import main; raise SystemExit(main(['train', 'small.toml']))"
    return subprocess.Popen(
        [sys.executable, "-c", words],
        cwd=small_run.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint."""
    return max((int(path.name[-7:]) for path in folder.glob("checkpoints/step-*")), default=-1)


def has_reached(moment: str, folder: Path) -> bool:
    """Return whether a training has reached a moment: a file, or a number of steps."""
    if moment.isdigit():
        return newest_step(folder) >= int(moment)
    return any(folder.glob(moment))


def wait_for(moment: str, small_run: RunFixture, process: subprocess.Popen[str]) -> None:
    folder = dag.folder(small_run.open(), "train")
    deadline = time.monotonic() + run_fixture.SECONDS
    while not has_reached(moment, folder):
        assert process.poll() is None, f"exited before {moment}: {process.communicate()}"
        assert time.monotonic() < deadline, f"never reached {moment}"
        time.sleep(0.001)


def kill(moment: str, small_run: RunFixture, delay: float) -> None:
    """Train in another process until shortly after a moment, then kill -9."""
    with start_training(small_run) as process:
        wait_for(moment, small_run, process)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert dag.StageGraph().standing(small_run.open(), "train").state == "missing"


def kill_at_moments(moments: tuple[str, ...], small_run: RunFixture) -> None:
    draw = random.Random(0)
    for moment in moments:
        kill(moment, small_run, draw.uniform(0.0, 0.03))


def kill_before(step: int, small_run: RunFixture) -> None:
    """Train in this process, and stop before a step, counted from 0."""
    factor = trainer.learning_rate_factor

    def factor_(current: int, newest_step: int, warmup: int) -> float:
        if current == step:
            raise Killed
        return factor(current, newest_step, warmup)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "learning_rate_factor", factor_)
        with pytest.raises(Killed):
            small_run.run_stages("train")


@pytest.mark.parametrize("moment", range(0, 60, 6))
def test_a_kill_between_two_files_does_not_change_the_result(
    interrupted: RunFixture, uninterrupted: RunFixture, moment: int
) -> None:
    assert kill_and_resume(interrupted, moment)
    check_same(interrupted, uninterrupted)


@pytest.mark.slow
def test_a_kill_between_any_two_files_does_not_change_the_result(
    interrupted: RunFixture, uninterrupted: RunFixture
) -> None:
    moments = 0
    while kill_and_resume(interrupted, moments):
        check_same(interrupted, uninterrupted)
        shutil.rmtree(dag.folder(interrupted.open(), "train"))
        moments += 1
    assert moments > 50


def test_kill_9_at_three_moments_does_not_change_the_result(
    interrupted: RunFixture, uninterrupted: RunFixture
) -> None:
    kill_at_moments(("4", "epoch-2", "20"), interrupted)
    interrupted.run_stages("train")
    check_same(interrupted, uninterrupted)


@pytest.mark.slow
def test_kill_9_at_ten_moments_does_not_change_the_result(
    interrupted: RunFixture, uninterrupted: RunFixture
) -> None:
    moments = ("training.json", "2", "6", "epoch-1", "epoch-1.json", "12", "epoch-2", "18")
    kill_at_moments((*moments, "epoch-3.json", ".reloaded-*.npz"), interrupted)
    answer = interrupted.run_parity("train", "small.toml")
    assert answer.returncode == 0, answer.stderr
    check_same(interrupted, uninterrupted)


def test_a_last_epoch_killed_after_its_last_step_is_saved_on_resume(
    interrupted: RunFixture, uninterrupted: RunFixture
) -> None:
    def stop(number: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            save = epochs.save

            def save_(*args: object, epoch: SavedEpoch, **options: object) -> SavedEpoch:
                if epoch.number == number:
                    raise Killed
                return save(*args, epoch=epoch, **options)  # type: ignore[arg-type]

            patch.setattr(epochs, "save", save_)
            interrupted.run_stages("train")

    with pytest.raises(Killed):
        stop(EPOCHS)
    folder = dag.folder(interrupted.open(), "train")
    assert newest_step(folder) == STEPS
    assert not has_reached(f"epoch-{EPOCHS}*", folder)
    interrupted.run_stages("train")
    check_same(interrupted, uninterrupted)


def test_a_lost_epoch_is_not_saved_from_later_weights(
    interrupted: RunFixture,
) -> None:
    kill_before(11, interrupted)
    folder = dag.folder(interrupted.open(), "train")
    (folder / "epoch-1/adapter_model.safetensors").unlink()
    with pytest.raises(Mismatch, match=r"epoch 1 was changed or lost .* step 10\. Remove .*points"):
        interrupted.run_stages("train")
    shutil.rmtree(folder / "checkpoints")
    interrupted.run_stages("train")


def test_ctrl_c_prints_one_line_and_the_same_command_resumes(
    interrupted: RunFixture, uninterrupted: RunFixture
) -> None:
    with start_training(interrupted) as process:
        wait_for("4", interrupted, process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=run_fixture.SECONDS)
    assert process.returncode == INTERRUPTED
    assert stderr.endswith(f"\n{GO_ON}\n")
    assert "Traceback" not in stderr
    folder = dag.folder(interrupted.open(), "train")
    assert newest_step(folder) >= 4
    interrupted.run_stages("train")
    check_same(interrupted, uninterrupted)


def test_checkpoints_are_removed_once_the_manifest_is_written(uninterrupted: RunFixture) -> None:
    folder = dag.folder(run_of(uninterrupted), "train")
    assert (folder / "manifest.json").is_file()
    assert not (folder / "checkpoints").exists()


class Clock:
    """A clock that advances by fixed seconds at each reading."""

    def __init__(self, seconds: float) -> None:
        self.time, self.seconds = 0.0, seconds

    def monotonic(self) -> float:
        self.time += self.seconds
        return self.time


def test_a_limit_of_minutes_is_printed_recorded_and_kept_on_resume(
    interrupted: RunFixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "0.33 s a step: 0.1 minutes allow 18 of 24 steps\n"
    interrupted.write_config(training={**LONG, "minutes": 0.1})
    folder = dag.folder(interrupted.open(), "train")
    monkeypatch.setattr(trainer, "time", Clock(0.33))
    capsys.readouterr()
    run = interrupted.run_stages("train")
    assert message in capsys.readouterr().out
    first_outputs, facts = output_files(run), manifest(run)[1]
    assert facts["steps"] == 18
    assert len(facts["losses"]) == 18  # type: ignore[arg-type]
    assert files.read_json(folder / "epoch-3.json")["step"] == 18

    shutil.rmtree(folder)
    kill_before(5, interrupted)
    assert message in capsys.readouterr().out
    state = files.read_json(next(folder.glob("checkpoints/step-*")) / "state.json")
    assert (state["step"], state["steps"], state["capped"]) == (4, 18, True)
    monkeypatch.setattr(trainer, "time", Clock(100.0))  # as on a much slower machine
    interrupted.run_stages("train")
    assert "a step:" not in capsys.readouterr().out
    assert output_files(run) == first_outputs
    assert manifest(run)[1] == facts
