"""What a process computes on: nothing is guessed, and no GPU is asked that is not there."""

from types import SimpleNamespace

import pytest
import torch

from parity.retrieval.engine import device as hardware
from parity.retrieval.engine.distributed import ProcessGroup
from parity.run.config.run_file import EncoderConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("spread", "quantize", "device", "count", "wanted"),
    [
        ("queries", "none", CUDA, 2, None),
        ("queries", "4bit", CUDA, 2, {"": CUDA}),
        ("model", "none", CUDA, 2, "balanced"),
        ("model", "4bit", CUDA, 2, "balanced"),
        ("model", "none", CUDA, 1, None),
        ("model", "4bit", CUDA, 1, {"": CUDA}),
        ("model", "none", CPU, 0, None),
        ("model", "4bit", CPU, 2, {"": CPU}),
    ],
)
def test_layers_are_spread_where_the_run_says_so_and_there_are_several_gpus(
    monkeypatch: pytest.MonkeyPatch,
    spread: str,
    quantize: str,
    device: torch.device,
    count: int,
    wanted: object,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    config = EncoderConfig.model_validate({"spread": spread, "quantize": quantize})
    assert hardware.device_map(config, device) == wanted


def test_gpus_are_told_with_what_they_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    t4 = SimpleNamespace(name="Tesla T4", major=7, minor=5, total_memory=15_828_320_256)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: t4)
    told = {"name": "Tesla T4", "capability": "7.5", "memory": 15_828_320_256}
    assert hardware.gpus() == [told, told]


def test_without_a_gpu_there_is_none_to_tell_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.gpus() == []


def test_the_peak_of_a_process_is_what_it_has_really_used() -> None:
    before = hardware.peak(ProcessGroup(), CPU)
    assert before["gpus"] == []
    assert 5e7 < before["host"] < 1e12
    held = torch.ones(60_000_000)  # 240 MB, written to
    after = hardware.peak(ProcessGroup(), CPU)["host"]
    assert after >= before["host"]
    assert after > held.nbytes


def test_threads_are_torchs() -> None:
    assert hardware.threads() == torch.get_num_threads() == 1  # as the tests set them


@pytest.mark.gpu
def test_the_peak_of_each_gpu_is_told() -> None:
    held = torch.ones(1 << 28, device="cuda")  # 1 GiB
    found = hardware.peak(ProcessGroup(), CUDA)["gpus"]
    assert len(found) == torch.cuda.device_count() == len(hardware.gpus())
    assert found[0] >= held.nbytes
