"""Kaggle's devices: every name a run file may have, and which chip is which."""

from typing import get_args

import pytest

from parity.deploy.planning import devices
from parity.run.config.run_file import ShippingConfig
from parity.run.errors import BadConfig


def test_every_device_that_a_run_may_name_is_known() -> None:
    named = get_args(ShippingConfig.model_fields["device"].annotation)
    assert set(named) == set(devices.DEVICES)


def test_a_device_that_kaggle_does_not_have_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"'p100': Kaggle's are cpu, t4x2, .*--device"):
        devices.device("p100")


def test_a_t4_has_no_units_for_bf16() -> None:
    bf16 = {name for name, one in devices.DEVICES.items() if one.chip.bf16}
    assert bf16 == {"l4x1", "l4x4", "a100", "h100"}


def test_a_gpu_has_more_memory_than_is_usable_and_a_cpu_has_none_of_its_own() -> None:
    for device in devices.DEVICES.values():
        assert device.chip.gpu == (device.gpus > 0) == bool(device.machine_shape)
        assert (device.chip.usable < device.chip.memory) == device.chip.gpu


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("", "cpu"),
        ("Tesla T4, 15360 MiB", "t4x2"),
        ("Tesla T4, 15360 MiB; Tesla T4, 15360 MiB", "t4x2"),
        ("NVIDIA L4, 23034 MiB", "l4x1"),
        ("NVIDIA A100-SXM4-40GB, 40960 MiB", "a100"),
        ("NVIDIA H100 80GB HBM3, 81559 MiB", "h100"),
    ],
)
def test_a_chip_is_recognized_by_what_nvidia_smi_says(said: str, name: str) -> None:
    assert devices.recognized(said) == devices.DEVICES[name].chip


@pytest.mark.parametrize("said", ["NVIDIA L40S, 46068 MiB", "NVIDIA GeForce RTX 4090, 24564 MiB"])
def test_a_chip_that_kaggle_does_not_have_is_not_taken_for_another(said: str) -> None:
    assert devices.recognized(said) is None


def test_a_machine_is_known_by_what_its_driver_says() -> None:
    known = devices.machine("NVIDIA H100 80GB HBM3, 81559 MiB", cpus=16, ram=128 << 30)
    assert known.chip.usable == int(0.97 * (81_559 << 20))
    unknown = devices.machine("NVIDIA RTX 9999, 1000 MiB", cpus=4, ram=1)
    assert (unknown.chip.memory, unknown.chip.gpu) == (1000 << 20, True)
    assert unknown.chip.reach[2] < known.chip.reach[2]
    cpu = devices.machine("", cpus=3, ram=7)
    assert (cpu.gpus, cpu.cpus, cpu.ram, cpu.chip.gpu) == (0, 3, 7, False)
