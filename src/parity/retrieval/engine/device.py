"""Devices of this process: their properties and memory, and models split over several GPUs."""

import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from parity.retrieval.engine.distributed import ProcessGroup
from parity.run import environment
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of ru_maxrss


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        name: name given by the driver.
        capability: compute capability, such as `7.5`.
        memory: total memory in bytes.
    """

    name: str
    capability: str
    memory: int


def device_map(config: EncoderConfig, device: torch.device) -> str | dict[str, torch.device] | None:
    """Return the `device_map` of transformers; None if the model is moved after loading.

    Layers are split evenly over the GPUs if `encoder.parallelism` is `model` and this process sees
    several GPUs.
    """
    if config.parallelism == "model" and device.type == "cuda" and torch.cuda.device_count() > 1:
        return "balanced"
    return {"": device} if config.quantize == "4bit" else None


def is_split(model: Any, name: str) -> bool:
    """Return whether a model's layers are split over several devices and must not be moved.

    Args:
        model: model loaded by transformers.
        name: name of the base model, for messages.

    Raises:
        BadConfig: the GPUs are too small together, so layers were placed on the CPU or disk.
    """
    devices = set(getattr(model, "hf_device_map", {}).values())
    if len(devices) > 1 and devices & {"cpu", "disk"}:
        raise BadConfig(
            f"base model {name} does not fit in the memory of all GPUs. Set encoder.quantize = "
            "'4bit' or a smaller encoder.num_layers"
        )
    return len(devices) > 1


def emulates_bf16(device: torch.device | None = None) -> bool:
    """Return whether a GPU has no bf16 units and only emulates them: capability below 8.

    Args:
        device: CUDA device; None means the first one, or False if there is no GPU.
    """
    if device is None and not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) < (8, 0)


def to_device(values: ArrayLike, device: torch.device) -> torch.Tensor:
    """Return integers or booleans as a tensor on a device, copied asynchronously.

    A synchronous copy waits for the queued work, and the GPU is idle until more is queued.
    """
    tensor = torch.as_tensor(np.asarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def thread_count() -> int:
    """Return the number of torch's compute threads, which OMP_NUM_THREADS sets."""
    return torch.get_num_threads()


def compute_identity(device: torch.device) -> list[str]:
    """Return the properties of hardware and software that can change a bit of the results."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = torch.backends.cpu.get_cpu_capability()
    packages = [environment.version(name) for name in environment.PACKAGES]
    return [device.type, hardware, str(thread_count()), environment.code(), *packages]


def allocated_bytes(device: torch.device) -> tuple[int, int]:
    """Return the current and the peak bytes of tensors on a GPU; zeros on a CPU."""
    if device.type != "cuda":
        return 0, 0
    return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)


def peak_increase(device: torch.device, before: tuple[int, int]) -> int:
    """Return the bytes by which the peak exceeds the allocation `before` some work.

    The result is 0 if it is unknown: on a CPU, or if earlier work had a higher peak. The peak
    counter of the process is not reset, since `peak_memory` reports it.

    Args:
        device: device of the work.
        before: result of `allocated_bytes` before the work.
    """
    allocated, peak = before
    _, peak_now = allocated_bytes(device)
    return peak_now - allocated if peak_now > peak else 0


def list_gpus() -> list[dict[str, Any]]:
    """Return the GPUs that this process sees, as dicts of `Gpu`; empty without a GPU."""
    if not torch.cuda.is_available():
        return []
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [
        asdict(Gpu(gpu.name, f"{gpu.major}.{gpu.minor}", gpu.total_memory)) for gpu in properties
    ]


def peak_memory(workers: ProcessGroup, device: torch.device) -> dict[str, Any]:
    """Return the peak memory in bytes, summed over all processes; every process must call it.

    Returns:
        `host`: resident memory of the processes; `gpus`: bytes of tensors on each GPU.
    """
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    amounts = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT]
    amounts += [torch.cuda.max_memory_allocated(index) for index in range(count)]
    total = torch.tensor(amounts, dtype=torch.int64, device=device)  # (1 + gpus,)
    workers.all_reduce([total])
    host, *each = total.tolist()
    return {"host": host, "gpus": each}
