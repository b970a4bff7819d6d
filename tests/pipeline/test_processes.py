"""Two processes under `accelerate launch` write the same outputs as one."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture
from safetensors.torch import load_file

from parity.pipeline import dag
from parity.run import manifest as manifests

CLOSE = 1e-5
TRAINING = {
    "epochs": 1,
    "batch_size": 16,
}  # two steps: rounding differences grow later
# All work runs in one start of two processes, because importing torch is slow.
WORK = {
    "mine": ("mine", "mined", 0),
    "train": ("train", "trained", 0),
    "train on": ("train", "second", 1),
    "eval": ("eval", "small", 0),
    "predict": ("predict", "small", 0),
}
PROGRAM = f"""\
import sys
from parity.cli import main

for stage, run, round_ in {tuple(WORK.values())}:
    if code := main([stage, f"{{run}}.toml", f"--round={{round_}}"]):
        sys.exit(code)
"""


def launch(small_run: RunFixture, *words: str) -> subprocess.CompletedProcess[str]:
    """Start two processes; accelerate needs `--multi_gpu` for this, on a CPU too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    flags = f"--mixed_precision no --dynamo_backend no --main_process_port {port}"
    return subprocess.run(
        [sys.executable, *launcher.split(), *flags.split(), *words],
        cwd=small_run.folder,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=run_fixture.SECONDS,
    )


def output_folder(small_run: RunFixture, stage: str, name: str, round_: int) -> Path:
    return dag.folder(small_run.open(name=name, round_=round_), stage)


def outputs(folder: Path) -> dict[str, str]:
    manifest = manifests.read(folder)
    return manifest.outputs if manifest else {}


class TwoProcesses:
    """Output folders of one process, and of two processes for the same work."""

    def __init__(self, small_run: RunFixture) -> None:
        self.folder = {name: output_folder(small_run, *work) for name, work in WORK.items()}
        self.single = {
            name: folder.with_name(f"single {folder.name}") for name, folder in self.folder.items()
        }
        for name, folder in self.folder.items():
            shutil.move(folder, self.single[name])
        self.answer = launch(small_run, "program.py")


@pytest.fixture(scope="module")
def two_processes(
    _predicted_run: RunFixture, tmp_path_factory: pytest.TempPathFactory
) -> TwoProcesses:
    small_run = replace(_predicted_run, folder=tmp_path_factory.mktemp("two-processes"))
    shutil.copytree(_predicted_run.folder, small_run.folder, dirs_exist_ok=True)
    (small_run.folder / "program.py").write_text(PROGRAM)
    small = small_run.data / "runs/small"
    with run_fixture.working_in(small_run):
        for name, training in (("mined", {}), ("trained", TRAINING), ("second", TRAINING)):
            shutil.copytree(small, small.with_name(name))
            small_run.write_config(name, training=training)
        small_run.run_stages("train", name="trained")
        small_run.run_stages("mine", "train", name="second", round_=1)
        return TwoProcesses(small_run)


@pytest.mark.parametrize("work", ["train", "train on"])
def test_two_processes_train_the_same_weights_as_one(
    two_processes: TwoProcesses, work: str
) -> None:
    folder = two_processes.folder[work]
    manifest = manifests.read(folder)
    assert manifest is not None, two_processes.answer.stderr
    assert manifest.facts["processes"] == 2
    assert not (folder / "checkpoints").exists()
    single, double = (
        load_file(path / "epoch-1/adapter_model.safetensors")
        for path in (two_processes.single[work], folder)
    )
    assert single.keys() == double.keys()
    for name, weight in single.items():
        assert (weight - double[name]).abs().max() <= CLOSE, name


def test_only_one_of_two_processes_prints(two_processes: TwoProcesses) -> None:
    output = two_processes.answer.stdout
    assert output.count("mined by base, ") == 1
    assert output.count("trains 3,712 of 27,520 weights") == 2  # two trainings
    assert output.count("12 rows of 25 ids: ") == 1


def test_g38_two_processes_mine_the_bytes_of_one(two_processes: TwoProcesses) -> None:
    expected = outputs(two_processes.single["mine"])
    assert len(expected) == 3
    assert outputs(two_processes.folder["mine"]) == expected


@pytest.mark.parametrize(("stage", "count"), [("eval", 4), ("predict", 2)])
def test_g38_two_processes_score_and_predict_the_bytes_of_one(
    two_processes: TwoProcesses, stage: str, count: int
) -> None:
    expected = outputs(two_processes.single[stage])
    assert len(expected) == count
    assert outputs(two_processes.folder[stage]) == expected, two_processes.answer.stderr
