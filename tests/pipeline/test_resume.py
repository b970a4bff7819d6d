"""Killed at any moment and started again, a training ends in the bytes of an unbroken one."""

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
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench, Files

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
GO_ON = "interrupted; the same command goes on from here"


class Killed(BaseException):
    """Stands for SIGKILL where the test is to say at which rename it comes."""


def kill_at(patch: pytest.MonkeyPatch, moment: int) -> None:
    """Let the process die at its n-th rename; nothing is tidied."""
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


def left(run: Run) -> Files:
    """Return what a finished training leaves, but for what knows when and how it was made."""
    found = benches.contents(dag.folder(run, "train"))
    return {
        name: data
        for name, data in found.items()
        if name != "manifest.json" and not name.startswith(".")
    }


def manifest(run: Run) -> tuple[str, dict[str, object]]:
    found = manifests.read(dag.folder(run, "train"))
    assert found is not None
    spent: dict[str, object] = {**found.facts["spent"], "seconds": 0.0}  # no two take equally long
    return found.digest(), {**found.facts, "spent": spent}


@pytest.fixture(scope="module")
def whole(_made: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Train without a break."""
    bench = replace(_made, folder=tmp_path_factory.mktemp("whole"))
    shutil.copytree(_made.folder, bench.folder, dirs_exist_ok=True)
    bench.write(training=LONG)
    shutil.rmtree(bench.data / "runs/small/round-0/train")
    with benches.working_in(bench):
        bench.make("train")
    return bench


def run_of(bench: Bench) -> Run:
    with benches.working_in(bench):
        return bench.run()


@pytest.fixture
def broken(made: Bench) -> Bench:
    """Return a bench that is about to train as `whole` did."""
    made.write(training=LONG)
    shutil.rmtree(made.data / "runs/small/round-0/train")
    return made


def killed_and_resumed(bench: Bench, moment: int) -> bool:
    """Kill a training at a rename and start it again; tell whether it came so far."""
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, moment)
        try:
            bench.make("train")
        except Killed:
            pass
        else:
            return False
    assert dag.StageGraph().standing(bench.run(), "train").state != "stale"
    bench.make("train")
    return True


def same(bench: Bench, whole: Bench) -> None:
    """Check that all bytes of two trainings are equal, and what their manifests say."""
    mine, theirs = left(bench.run()), left(run_of(whole))
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []
    assert manifest(bench.run()) == manifest(run_of(whole))


def start(bench: Bench) -> subprocess.Popen[str]:
    """Start `python -m parity train` as a shell would, where Ctrl-C is not ignored."""
    words = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    words += "from parity.__main__ import main; raise SystemExit(main(['train', 'small.toml']))"
    return subprocess.Popen(
        [sys.executable, "-c", words],
        cwd=bench.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps(folder: Path) -> int:
    """Return how many steps the newest checkpoint holds."""
    return max((int(path.name[-7:]) for path in folder.glob("checkpoints/step-*")), default=-1)


def come(moment: str, folder: Path) -> bool:
    """Tell whether a training has come to a moment: a file that is there, or a count of steps."""
    if moment.isdigit():
        return steps(folder) >= int(moment)
    return any(folder.glob(moment))


def wait_for(moment: str, bench: Bench, process: subprocess.Popen[str]) -> None:
    folder = dag.folder(bench.run(), "train")
    until = time.monotonic() + benches.SECONDS
    while not come(moment, folder):
        assert process.poll() is None, f"over before {moment}: {process.communicate()}"
        assert time.monotonic() < until, f"never came to {moment}"
        time.sleep(0.001)


def kill(moment: str, bench: Bench, delay: float) -> None:
    """Train in a process of its own until a moment and a little more, then kill -9."""
    with start(bench) as process:
        wait_for(moment, bench, process)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert dag.StageGraph().standing(bench.run(), "train").state == "missing"


def killed_at(moments: tuple[str, ...], bench: Bench) -> None:
    draw = random.Random(0)
    for moment in moments:
        kill(moment, bench, draw.uniform(0.0, 0.03))


def killed_before(step: int, bench: Bench) -> None:
    """Train in this process, and die before a step (from 0) is taken."""
    factor = trainer.factor

    def factor_(now: int, steps: int, warmup: int) -> float:
        if now == step:
            raise Killed
        return factor(now, steps, warmup)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "factor", factor_)
        with pytest.raises(Killed):
            bench.make("train")


@pytest.mark.parametrize("moment", range(0, 60, 6))
def test_killed_between_any_two_files_it_ends_in_the_bytes_of_an_unbroken_run(
    broken: Bench, whole: Bench, moment: int
) -> None:
    assert killed_and_resumed(broken, moment)
    same(broken, whole)


@pytest.mark.slow
def test_killed_between_each_two_files_it_ends_in_the_bytes_of_an_unbroken_run(
    broken: Bench, whole: Bench
) -> None:
    moments = 0
    while killed_and_resumed(broken, moments):
        same(broken, whole)
        shutil.rmtree(dag.folder(broken.run(), "train"))
        moments += 1
    assert moments > 50


def test_kill_9_at_three_moments_ends_in_the_bytes_of_an_unbroken_run(
    broken: Bench, whole: Bench
) -> None:
    killed_at(("4", "epoch-2", "20"), broken)
    broken.make("train")
    same(broken, whole)


@pytest.mark.slow
def test_kill_9_at_ten_moments_ends_in_the_bytes_of_an_unbroken_run(
    broken: Bench, whole: Bench
) -> None:
    moments = ("training.json", "2", "6", "epoch-1", "epoch-1.json", "12", "epoch-2", "18")
    killed_at((*moments, "epoch-3.json", ".reloaded-*.npz"), broken)
    answer = broken.process("train", "small.toml")
    assert answer.returncode == 0, answer.stderr
    same(broken, whole)


def test_a_last_epoch_cut_short_after_its_last_step_is_finished(
    broken: Bench, whole: Bench
) -> None:
    def stop(number: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            save = epochs.save

            def save_(*args: object, epoch: SavedEpoch, **named: object) -> SavedEpoch:
                if epoch.number == number:
                    raise Killed
                return save(*args, epoch=epoch, **named)  # type: ignore[arg-type]

            patch.setattr(epochs, "save", save_)
            broken.make("train")

    with pytest.raises(Killed):
        stop(EPOCHS)
    folder = dag.folder(broken.run(), "train")
    assert steps(folder) == STEPS
    assert not come(f"epoch-{EPOCHS}*", folder)
    broken.make("train")
    same(broken, whole)


def test_an_epoch_lost_while_training_went_on_is_not_made_of_later_weights(broken: Bench) -> None:
    killed_before(11, broken)
    folder = dag.folder(broken.run(), "train")
    (folder / "epoch-1/adapter_model.safetensors").unlink()
    with pytest.raises(Mismatch, match=r"epoch 1 was changed or lost .* step 10; remove .*points"):
        broken.make("train")
    shutil.rmtree(folder / "checkpoints")
    broken.make("train")


def test_ctrl_c_ends_with_one_line_and_the_same_command_goes_on(
    broken: Bench, whole: Bench
) -> None:
    with start(broken) as process:
        wait_for("4", broken, process)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=benches.SECONDS)
    assert process.returncode == INTERRUPTED
    assert told.endswith(f"\n{GO_ON}\n")
    assert "Traceback" not in told
    folder = dag.folder(broken.run(), "train")
    assert steps(folder) >= 4
    broken.make("train")
    same(broken, whole)


def test_checkpoints_are_gone_once_the_manifest_is_there(whole: Bench) -> None:
    folder = dag.folder(run_of(whole), "train")
    assert (folder / "manifest.json").is_file()
    assert not (folder / "checkpoints").exists()


class Clock:
    """A clock that goes on by so many seconds each time it is read."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds

    def monotonic(self) -> float:
        self.now += self.seconds
        return self.now


def test_a_cap_on_minutes_is_told_recorded_and_kept_by_a_resume(
    broken: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "0.33 s a step: 0.1 minutes allow 18 of 24 steps\n"
    broken.write(training={**LONG, "minutes": 0.1})
    folder = dag.folder(broken.run(), "train")
    monkeypatch.setattr(trainer, "time", Clock(0.33))
    capsys.readouterr()
    run = broken.make("train")
    assert told in capsys.readouterr().out
    unbroken, facts = left(run), manifest(run)[1]
    assert facts["steps"] == 18
    assert len(facts["losses"]) == 18  # type: ignore[arg-type]
    assert files.read_json(folder / "epoch-3.json")["step"] == 18

    shutil.rmtree(folder)
    killed_before(5, broken)
    assert told in capsys.readouterr().out
    state = files.read_json(next(folder.glob("checkpoints/step-*")) / "state.json")
    assert (state["step"], state["steps"], state["capped"]) == (4, 18, True)
    monkeypatch.setattr(trainer, "time", Clock(100.0))  # as on a machine that is much slower now
    broken.make("train")
    assert "a step:" not in capsys.readouterr().out
    assert left(run) == unbroken
    assert manifest(run)[1] == facts
