"""Kaggle's devices, and this machine: what each computes with, how fast its chips are on paper.

Source: machine shapes and the T4 box from kaggle-cli `docs/kernels.md` and the metadata of public
runs of 2024; memory, speed and bandwidth of chips from NVIDIA's data sheets (T4, L4, A100 40GB
SXM, H100 SXM), dense and never with sparsity. RAM, processors and what is usable of the L4, A100
and H100 boxes are the cloud's usual ones for these cards: nobody has measured them here.
"""

from dataclasses import dataclass, replace

from parity.run.errors import BadConfig

_GIB = 1 << 30
Reach = tuple[float, float, float]
"""Shares of a chip's paper speed that a model reaches: at best, likely, at worst."""

_GPU_REACH: Reach = (0.55, 0.30, 0.15)
_CPU_REACH: Reach = (0.95, 0.60, 0.30)


@dataclass(frozen=True, slots=True)
class Chip:
    """One GPU, or the processors of a machine without one.

    Attributes:
        name: a part of the name that nvidia-smi gives it; empty for processors.
        capability: CUDA compute capability; (0, 0) for processors.
        memory: bytes of the card; 0 for processors, which have the machine's.
        usable: bytes of it that a process gets, its CUDA context included.
        half: dense fp16 FLOP/s with sums in fp32; 0 where there is no such unit.
        single: fp32 FLOP/s.
        bandwidth: bytes a second to its memory.
        reach: shares of the paper speed that a model reaches.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    usable: int
    half: float
    single: float
    bandwidth: float
    reach: Reach = _GPU_REACH

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU."""
        return bool(self.memory)

    @property
    def bf16(self) -> bool:
        """Whether it has units for bf16; a driver's own answer counts emulation too."""
        return self.capability >= (8, 0)

    @property
    def fp8(self) -> bool:
        """Whether it has units for 8-bit floats."""
        return self.capability >= (8, 9)


@dataclass(frozen=True, slots=True)
class Device:
    """What one kernel session is given.

    Attributes:
        name: as `shipping.device` and `--device` name it.
        machine_shape: Kaggle's name of it; empty for a session without an accelerator.
        chip: what computes.
        gpus: how many of them.
        ram: bytes.
        cpus: logical processors.
        disk: bytes that may be written to /kaggle/working.
    """

    name: str
    machine_shape: str
    chip: Chip
    gpus: int
    ram: int
    cpus: int
    disk: int = 20 * 10**9


_T4 = Chip("T4", (7, 5), 16_106_127_360, int(14.6 * _GIB), 65e12, 8.1e12, 300e9)
_L4 = Chip("L4", (8, 9), 23_034 << 20, int(22.0 * _GIB), 121e12, 30.3e12, 300e9)
_A100 = Chip("A100", (8, 0), 40 * _GIB, int(39.4 * _GIB), 312e12, 19.5e12, 1_555e9)
_H100 = Chip("H100", (9, 0), 81_559 << 20, int(79.1 * _GIB), 989e12, 67e12, 3_350e9)
_CORE = 0.06e12  # fp32 FLOP/s of a core with AVX2, as a matrix product reaches on ours
_CPU = Chip("", (0, 0), 0, 0, 0.0, 2 * _CORE, 20e9, _CPU_REACH)

_DEVICES = (
    Device("cpu", "", _CPU, 0, int(31.4 * _GIB), 4),
    Device("t4x2", "NvidiaTeslaT4", _T4, 2, int(31.4 * _GIB), 4),
    Device("l4x1", "NvidiaL4X1", _L4, 1, 48 * _GIB, 12),
    Device("l4x4", "NvidiaL4", _L4, 4, 188 * _GIB, 48),
    Device("a100", "NvidiaTeslaA100", _A100, 1, 85 * _GIB, 12),
    Device("h100", "NvidiaH100", _H100, 1, 234 * _GIB, 26),
)
DEVICES = {one.name: one for one in _DEVICES}
"""Name → device, for every name that `shipping.device` may have."""


def device(name: str) -> Device:
    """Return the device that `--device` names.

    >>> device("t4x2").chip.memory, device("t4x2").chip.bf16
    (16106127360, False)

    Raises:
        BadConfig: there is none of that name.
    """
    if name not in DEVICES:
        known = ", ".join(DEVICES)
        raise BadConfig(f"device {name!r}: Kaggle's are {known}; choose one with --device")
    return DEVICES[name]


def recognized(gpus: str) -> Chip | None:
    """Return the chip that nvidia-smi's list of GPUs names, or the CPU for an empty list.

    >>> recognized("Tesla T4, 15360 MiB; Tesla T4, 15360 MiB") is device("t4x2").chip
    True

    Args:
        gpus: as `environment.gpu` returns it.

    Returns:
        None where it is none of those that Kaggle has.
    """
    words = gpus.split(";")[0].split(",")[0].replace("-", " ").split()
    if not words:
        return _CPU
    return next((one for one in (_T4, _L4, _A100, _H100) if one.name in words), None)


def machine(gpus: str, *, cpus: int, ram: int) -> Device:
    """Return the machine that this runs on as a device.

    >>> machine("", cpus=4, ram=8 << 30).chip.single
    240000000000.0

    Args:
        gpus: as `environment.gpu` returns it; a run that uses none hands over an empty text.
        cpus: threads that compute.
        ram: bytes of the host.
    """
    if not gpus:
        return Device("this machine", "", replace(_CPU, single=_CORE * cpus), 0, ram, cpus)
    name, _, memory = gpus.split(";")[0].partition(",")
    known = recognized(gpus) or _H100
    size = int("".join(filter(str.isdigit, memory)) or 0) << 20 or known.memory
    chip = replace(known, name=name.strip(), memory=size, usable=int(0.97 * size))
    if not recognized(gpus):  # nothing is known of its speed
        chip = replace(chip, reach=(0.9, 0.3, 0.02))
    return Device("this machine", "", chip, 1, ram, cpus)
