"""Two processes under `accelerate launch` make what one makes."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench
from safetensors.torch import load_file

from parity.pipeline import dag
from parity.run import manifest as manifests

CLOSE = 1e-5
TRAINING = {
    "epochs": 1,
    "batch_size": 16,
}  # two steps: what sums in another order drifts apart later
# What each run does, in one start of two processes: importing torch is what takes the time.
WORK = {
    "mine": ("mine", "mined", 0),
    "train": ("train", "trained", 0),
    "train on": ("train", "second", 1),
    "eval": ("eval", "small", 0),
    "predict": ("predict", "small", 0),
}
PROGRAM = f"""\
import sys
from parity.__main__ import main

for stage, run, round_ in {tuple(WORK.values())}:
    if code := main([stage, f"{{run}}.toml", f"--round={{round_}}"]):
        sys.exit(code)
"""


def launch(bench: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    """Start two processes; `--multi_gpu` is how accelerate starts several, on a CPU too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    more = f"--mixed_precision no --dynamo_backend no --main_process_port {port}"
    return subprocess.run(
        [sys.executable, *launcher.split(), *more.split(), *words],
        cwd=bench.folder,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=benches.SECONDS,
    )


def place(bench: Bench, stage: str, name: str, round_: int) -> Path:
    return dag.folder(bench.run(name=name, round_=round_), stage)


def outputs(folder: Path) -> dict[str, str]:
    found = manifests.read(folder)
    return found.outputs if found else {}


class Together:
    """What one process made, and what two made of the same."""

    def __init__(self, bench: Bench) -> None:
        self.folder = {what: place(bench, *work) for what, work in WORK.items()}
        self.alone = {what: one.with_name(f"alone {one.name}") for what, one in self.folder.items()}
        for what, folder in self.folder.items():
            shutil.move(folder, self.alone[what])
        self.answer = launch(bench, "program.py")


@pytest.fixture(scope="module")
def together(_made: Bench, tmp_path_factory: pytest.TempPathFactory) -> Together:
    bench = replace(_made, folder=tmp_path_factory.mktemp("together"))
    shutil.copytree(_made.folder, bench.folder, dirs_exist_ok=True)
    (bench.folder / "program.py").write_text(PROGRAM)
    small = bench.data / "runs/small"
    with benches.working_in(bench):
        for name, training in (("mined", {}), ("trained", TRAINING), ("second", TRAINING)):
            shutil.copytree(small, small.with_name(name))
            bench.write(name, training=training)
        bench.make("train", name="trained")
        benches.rewrite_config(bench.run(name="second"), "train")
        bench.make("mine", "train", name="second", round_=1)
        return Together(bench)


@pytest.mark.parametrize("what", ["train", "train on"])
def test_two_processes_train_what_one_trains(together: Together, what: str) -> None:
    folder = together.folder[what]
    found = manifests.read(folder)
    assert found is not None, together.answer.stderr
    assert found.facts["processes"] == 2
    assert not (folder / "checkpoints").exists()
    one, two = (
        load_file(place / "epoch-1/adapter_model.safetensors")
        for place in (together.alone[what], folder)
    )
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert (weight - two[name]).abs().max() <= CLOSE, name


def test_of_two_processes_one_talks(together: Together) -> None:
    said = together.answer.stdout
    assert said.count("mined by the bare base") == 1
    assert said.count("trains 3,712 of 27,520 weights") == 2  # two trainings
    assert said.count("12 rows of 25 ids: ") == 1


def test_g38_two_processes_mine_the_bytes_of_one(together: Together) -> None:
    alone = outputs(together.alone["mine"])
    assert len(alone) == 3
    assert outputs(together.folder["mine"]) == alone


@pytest.mark.parametrize(("stage", "count"), [("eval", 4), ("predict", 2)])
def test_g38_two_processes_score_and_predict_the_bytes_of_one(
    together: Together, stage: str, count: int
) -> None:
    alone = outputs(together.alone[stage])
    assert len(alone) == count
    assert outputs(together.folder[stage]) == alone, together.answer.stderr
