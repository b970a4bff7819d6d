"""Device properties are read correctly, and missing GPUs are not queried."""

from types import SimpleNamespace

import pytest
import torch

from parity.retrieval.engine import device as hardware
from parity.retrieval.engine.distributed import ProcessGroup
from parity.run.config.encoder import EncoderConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("parallelism", "quantize", "device", "count", "expected"),
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
def test_layers_are_split_if_configured_and_several_gpus_exist(
    monkeypatch: pytest.MonkeyPatch,
    parallelism: str,
    quantize: str,
    device: torch.device,
    count: int,
    expected: object,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    config = EncoderConfig.model_validate({"parallelism": parallelism, "quantize": quantize})
    assert hardware.device_map(config, device) == expected


def test_gpus_are_listed_with_their_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    t4 = SimpleNamespace(name="Tesla T4", major=7, minor=5, total_memory=15_828_320_256)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: t4)
    expected = {"name": "Tesla T4", "capability": "7.5", "memory": 15_828_320_256}
    assert hardware.list_gpus() == [expected, expected]


def test_without_a_gpu_the_list_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.list_gpus() == []


def test_the_peak_of_a_process_is_its_resident_memory() -> None:
    before = hardware.peak_memory(ProcessGroup(), CPU)
    assert before["gpus"] == []
    assert 5e7 < before["host"] < 1e12
    tensor = torch.ones(60_000_000)  # 240 MB, written to
    after = hardware.peak_memory(ProcessGroup(), CPU)["host"]
    assert after >= before["host"]
    assert after > tensor.nbytes


def test_the_thread_count_is_torch_s() -> None:
    assert hardware.thread_count() == torch.get_num_threads() == 1  # set by the tests


@pytest.mark.gpu
def test_the_peak_of_each_gpu_is_reported() -> None:
    tensor = torch.ones(1 << 28, device="cuda")  # 1 GiB
    peaks = hardware.peak_memory(ProcessGroup(), CUDA)["gpus"]
    assert len(peaks) == torch.cuda.device_count() == len(hardware.list_gpus())
    assert peaks[0] >= tensor.nbytes
