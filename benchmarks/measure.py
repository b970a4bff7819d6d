"""Measure the cost of work on a device, and the device's best speed.

On a CPU the seconds are CPU seconds of all threads and finished children, which other processes do
not change; on CUDA they are wall seconds after synchronization.
"""

import contextlib
import gc
import importlib.metadata
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

PACKAGES = (
    *("torch", "transformers", "tokenizers", "peft", "accelerate", "numpy", "triton"),
    *("FlagEmbedding", "sentence-transformers", "flash-attn"),
)
_SIZES = {"cpu": 2048, "cuda": 8192}
_TIMES = {"cpu": 6, "cuda": 20}
_LASTING = 3.0  # seconds
_MEMORY = Path("/proc/meminfo")
_SPARE = 1 << 30  # bytes left to the system
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one call.

    Attributes:
        seconds: CPU seconds on a CPU, wall seconds on CUDA.
        peak: bytes at the highest: of the process on a CPU, of the allocator on CUDA.
    """

    seconds: float
    peak: int


def cost(device: torch.device, work: Callable[[], Result]) -> tuple[Result, Cost]:
    """Return the result of `work` and its cost."""
    gc.collect()
    _forget_peak(device)
    started = _now(device)
    result = work()
    seconds = _now(device) - started
    return result, Cost(seconds, _peak(device))


def matmul(device: torch.device) -> float:
    """Return FLOP/s of a square matrix product: fp32 by CPU second, or bf16 by wall second.

    On CUDA it lasts for seconds, as a run does: in the first tenths of a second a GPU exceeds its
    power limit (789 TFLOP/s on an H200, then 670).
    """
    size, times = _SIZES[device.type], _TIMES[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    first = torch.randn(size, size, device=device, dtype=dtype)
    second = torch.randn(size, size, device=device, dtype=dtype)

    def some(count: int) -> float:
        def work() -> None:
            for _ in range(count):
                torch.mm(first, second)

        return cost(device, work)[1].seconds

    some(times)
    if device.type == "cuda":
        times = max(times, int(times * _LASTING / some(times)))
    return times * 2 * size**3 / some(times)


def spread(ratios: Iterable[float]) -> dict[str, float]:
    """Return the smallest, middle and largest ratio of the runs."""
    sorted_ = sorted(ratios)
    return {"min": sorted_[0], "median": statistics.median(sorted_), "max": sorted_[-1]}


def versions() -> dict[str, str]:
    """Return the versions of Python and of every installed package that affects speed."""
    result = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            result[name] = importlib.metadata.version(name)
    return result


def machine(device: torch.device) -> dict[str, Any]:
    """Return the name of the device, with its memory or threads."""
    if device.type == "cuda":
        shown = torch.cuda.get_device_properties(device)
        return {"device": shown.name, "memory": shown.total_memory}
    return {"device": _cpu(), "threads": torch.get_num_threads()}


@contextlib.contextmanager
def bounded(device: torch.device) -> Iterator[None]:
    """Limit memory to what the host has, so that an allocation fails and the process survives."""
    available, used = _figure(_MEMORY, "MemAvailable"), _figure(_STATUS, "VmData")
    if device.type != "cpu" or not available:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (available + used - _SPARE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def free(device: torch.device) -> None:
    """Free the memory of the last contender."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    own_usage = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own_usage.ru_utime + own_usage.ru_stime + children.ru_utime + children.ru_stime


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # then the peak is that of the whole process
        _CLEAR.write_text("5", encoding="ascii")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = _figure(_STATUS, "VmHWM")
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _figure(path: Path, name: str) -> int:
    """Return the bytes under a name in a file of /proc; 0 without this name."""
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
