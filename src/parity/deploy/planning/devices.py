"""Kaggle's devices and the local machine: their chips, memory and speed on paper.

Source: machine shapes and the T4 box from kaggle-cli `docs/kernels.md` and the metadata of public
runs of 2024. Memory, FLOP/s and bandwidth of chips from NVIDIA's data sheets (T4, L4, A100 40GB
SXM, H100 SXM), dense, without sparsity. RAM, processors and usable memory of the L4, A100 and H100
boxes are the usual cloud values for these cards; we have not measured them.
"""

from dataclasses import dataclass, replace

from parity.run.errors import BadConfig

_GIB = 1 << 30
Efficiency = tuple[float, float, float]
"""Shares of a chip's paper speed that a model reaches: best, likely, worst."""

_GPU_EFFICIENCY: Efficiency = (0.55, 0.30, 0.15)
_CPU_EFFICIENCY: Efficiency = (0.95, 0.60, 0.30)


@dataclass(frozen=True, slots=True)
class Chip:
    """One GPU, or the processors of a machine without one.

    Attributes:
        name: part of the name that nvidia-smi prints; empty for processors.
        capability: CUDA compute capability; (0, 0) for processors.
        memory: bytes of the card; 0 for processors, which use the machine's RAM.
        usable_memory: bytes of it that a process gets, CUDA context included.
        fp16_flops: dense fp16 FLOP/s with sums in fp32; 0 without such a unit.
        fp32_flops: fp32 FLOP/s.
        bandwidth: memory bandwidth in bytes per second.
        efficiency: shares of the paper speed that a model reaches.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    usable_memory: int
    fp16_flops: float
    fp32_flops: float
    bandwidth: float
    efficiency: Efficiency = _GPU_EFFICIENCY

    @property
    def is_gpu(self) -> bool:
        """Whether the chip is a GPU."""
        return bool(self.memory)

    @property
    def has_bf16(self) -> bool:
        """Whether the chip has bf16 units; the driver's answer also counts emulation."""
        return self.capability >= (8, 0)

    @property
    def has_fp8(self) -> bool:
        """Whether the chip has units for 8-bit floats."""
        return self.capability >= (8, 9)


@dataclass(frozen=True, slots=True)
class Device:
    """The machine of one kernel session.

    Attributes:
        name: value of `shipping.device` and `--device`.
        machine_shape: Kaggle's name; empty for a session without an accelerator.
        chip: GPU or CPU that computes.
        gpus: number of GPUs.
        ram: bytes.
        cpus: number of logical processors.
        disk: bytes that a kernel may write to /kaggle/working.
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
_CORE = 0.06e12  # fp32 FLOP/s of a core with AVX2, measured with a matrix product on our machine
_CPU = Chip("", (0, 0), 0, 0, 0.0, 2 * _CORE, 20e9, _CPU_EFFICIENCY)

_DEVICES = (
    Device("cpu", "", _CPU, 0, int(31.4 * _GIB), 4),
    Device("t4x2", "NvidiaTeslaT4", _T4, 2, int(31.4 * _GIB), 4),
    Device("l4x1", "NvidiaL4X1", _L4, 1, 48 * _GIB, 12),
    Device("l4x4", "NvidiaL4", _L4, 4, 188 * _GIB, 48),
    Device("a100", "NvidiaTeslaA100", _A100, 1, 85 * _GIB, 12),
    Device("h100", "NvidiaH100", _H100, 1, 234 * _GIB, 26),
)
DEVICES = {item.name: item for item in _DEVICES}
"""Name → device, for each value of `shipping.device`."""


def find_device(name: str) -> Device:
    """Return the device with a name.

    >>> find_device("t4x2").chip.memory, find_device("t4x2").chip.has_bf16
    (16106127360, False)

    Raises:
        BadConfig: Kaggle has no device of this name.
    """
    if name not in DEVICES:
        raise BadConfig(f"unknown device {name!r}: Kaggle has {', '.join(DEVICES)}. Set --device")
    return DEVICES[name]


def recognize_chip(gpus: str) -> Chip | None:
    """Return the chip of nvidia-smi's list of GPUs, or the CPU for an empty list.

    >>> chip = recognize_chip("Tesla T4, 15360 MiB; Tesla T4, 15360 MiB")
    >>> chip is find_device("t4x2").chip
    True

    Args:
        gpus: result of `environment.gpu`.

    Returns:
        None if Kaggle does not have this chip.
    """
    words = gpus.split(";")[0].split(",")[0].replace("-", " ").split()
    if not words:
        return _CPU
    return next((item for item in (_T4, _L4, _A100, _H100) if item.name in words), None)


def local_machine(gpus: str, *, cpus: int, ram: int) -> Device:
    """Return the local machine as a device.

    >>> local_machine("", cpus=4, ram=8 << 30).chip.fp32_flops
    240000000000.0

    Args:
        gpus: result of `environment.gpu`; empty for a run that uses no GPU.
        cpus: number of compute threads.
        ram: bytes of the host.
    """
    if not gpus:
        return Device("this machine", "", replace(_CPU, fp32_flops=_CORE * cpus), 0, ram, cpus)
    name, _, memory = gpus.split(";")[0].partition(",")
    model = recognize_chip(gpus) or _H100
    size = int("".join(filter(str.isdigit, memory)) or 0) << 20 or model.memory
    chip = replace(model, name=name.strip(), memory=size, usable_memory=int(0.97 * size))
    if not recognize_chip(gpus):  # unknown speed: the margins cover slower chips than an H100
        chip = replace(chip, efficiency=(0.9, 0.3, 0.02))
    return Device("this machine", "", chip, 1, ram, cpus)
