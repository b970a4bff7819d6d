"""Kaggle's devices: each name that a run file may use, and the chip behind it."""

from typing import get_args

import pytest

from parity.deploy.planning import devices
from parity.run.config.shipping import ShippingConfig
from parity.run.errors import BadConfig


def test_each_device_of_the_run_file_exists() -> None:
    names = get_args(ShippingConfig.model_fields["device"].annotation)
    assert set(names) == set(devices.DEVICES)


def test_a_device_that_kaggle_does_not_have_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"'p100': Kaggle has cpu, t4x2, .*--device"):
        devices.find_device("p100")


def test_a_t4_does_not_have_bf16_units() -> None:
    bf16 = {name for name, item in devices.DEVICES.items() if item.chip.has_bf16}
    assert bf16 == {"l4x1", "l4x4", "a100", "h100"}


def test_part_of_a_gpus_memory_is_usable_and_a_cpu_uses_ram() -> None:
    for device in devices.DEVICES.values():
        assert device.chip.is_gpu == (device.gpus > 0) == bool(device.machine_shape)
        assert (device.chip.usable_memory < device.chip.memory) == device.chip.is_gpu


@pytest.mark.parametrize(
    ("gpus", "name"),
    [
        ("", "cpu"),
        ("Tesla T4, 15360 MiB", "t4x2"),
        ("Tesla T4, 15360 MiB; Tesla T4, 15360 MiB", "t4x2"),
        ("NVIDIA L4, 23034 MiB", "l4x1"),
        ("NVIDIA A100-SXM4-40GB, 40960 MiB", "a100"),
        ("NVIDIA H100 80GB HBM3, 81559 MiB", "h100"),
    ],
)
def test_a_chip_is_recognized_by_its_nvidia_smi_name(gpus: str, name: str) -> None:
    assert devices.recognize_chip(gpus) == devices.DEVICES[name].chip


@pytest.mark.parametrize("gpus", ["NVIDIA L40S, 46068 MiB", "NVIDIA GeForce RTX 4090, 24564 MiB"])
def test_a_chip_that_kaggle_does_not_have_is_not_recognized(gpus: str) -> None:
    assert devices.recognize_chip(gpus) is None


def test_the_local_machine_is_described_by_its_driver() -> None:
    h100 = devices.local_machine("NVIDIA H100 80GB HBM3, 81559 MiB", cpus=16, ram=128 << 30)
    assert h100.chip.usable_memory == int(0.97 * (81_559 << 20))
    unknown = devices.local_machine("NVIDIA RTX 9999, 1000 MiB", cpus=4, ram=1)
    assert (unknown.chip.memory, unknown.chip.is_gpu) == (1000 << 20, True)
    assert unknown.chip.efficiency[2] < h100.chip.efficiency[2]
    cpu = devices.local_machine("", cpus=3, ram=7)
    assert (cpu.gpus, cpu.cpus, cpu.ram, cpu.chip.is_gpu) == (0, 3, 7, False)
