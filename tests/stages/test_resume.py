"""Killed at any moment and started again, a training ends in the bytes of one that never stopped."""

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from stages import bench as benches
from stages.bench import Bench, Files

from parity.run import files
from parity.run import manifest as manifests
from parity.run.config import TrainingConfig
from parity.stages import graph
from parity.stages.run import Run
from parity.training import trainer

EPOCHS = 3
LONG = {"epochs": EPOCHS, "batch": 4, "checkpoint_every": 2}  # 24 steps, 8 an epoch
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
    found = benches.contents(graph.folder(run, "train"))
    return {
        name: data
        for name, data in found.items()
        if name != "manifest.json" and not name.startswith(".")
    }


def manifest(run: Run) -> tuple[str, dict[str, object]]:
    found = manifests.read(graph.folder(run, "train"))
    assert found is not None
    return found.digest(), found.facts


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
    assert graph.Survey().standing(bench.run(), "train").state == "missing"
    bench.make("train")
    return True


def same(bench: Bench, whole: Bench) -> None:
    """Check that all bytes of two trainings are equal, and what their manifests say."""
    mine, theirs = left(bench.run()), left(run_of(whole))
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []
    assert manifest(bench.run()) == manifest(run_of(whole))


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
    folder = graph.folder(broken.run(), "train")
    moments = 0
    while killed_and_resumed(broken, moments):
        same(broken, whole)
        shutil.rmtree(folder)
        moments += 1
    assert moments > 50
