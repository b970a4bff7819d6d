"""What this process computes on, and how a model too large for one GPU lies over several."""

import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from parity.retrieval.engine.distributed import ProcessGroup
from parity.run import environment
from parity.run.config.run_file import EncoderConfig
from parity.run.errors import BadConfig

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in which a process's memory is counted


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        name: as its driver calls it.
        capability: compute capability, such as `7.5`.
        memory: bytes.
    """

    name: str
    capability: str
    memory: int


def device_map(config: EncoderConfig, device: torch.device) -> str | dict[str, torch.device] | None:
    """Return where a model's layers go, as transformers wants it; None is wherever it is moved.

    Layers are spread evenly where the run says so and this process sees several GPUs.
    """
    if config.parallelism == "model" and device.type == "cuda" and torch.cuda.device_count() > 1:
        return "balanced"
    return {"": device} if config.quantize == "4bit" else None


def spread(model: Any, name: str) -> bool:
    """Return whether a model's layers lie on several devices, from which none may be moved.

    Args:
        model: as transformers loaded it.
        name: of its base, for a person.

    Raises:
        BadConfig: the GPUs together are too small, so that layers were left outside of them.
    """
    places = set(getattr(model, "hf_device_map", {}).values())
    if len(places) > 1 and places & {"cpu", "disk"}:
        raise BadConfig(
            f"base {name} does not fit all GPUs together: encoder.quantize = '4bit' or fewer "
            "encoder.num_layers"
        )
    return len(places) > 1


def lacks_bf16(device: torch.device | None = None) -> bool:
    """Return whether a GPU has no units for bf16, whatever it emulates: capability below 8.

    Args:
        device: a CUDA device; None is the first one, where there is any.
    """
    if device is None and not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) < (8, 0)


def sent(values: ArrayLike, device: torch.device) -> torch.Tensor:
    """Return whole numbers or flags on a device, without waiting for the work that it has.

    A plain copy waits, and a GPU that has nothing to do after it idles until its next work comes.
    """
    here = torch.as_tensor(np.asarray(values))
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here


def threads() -> int:
    """Return how many threads torch computes on, which OMP_NUM_THREADS sets."""
    return torch.get_num_threads()


def kind(device: torch.device) -> list[str]:
    """Return all of this machine and its software that can move a bit of what is computed there."""
    if device.type == "cuda":
        chip = torch.cuda.get_device_name(device)
    else:
        chip = torch.backends.cpu.get_cpu_capability()
    packages = [environment.version(name) for name in environment.PACKAGES]
    return [device.type, chip, str(threads()), environment.code(), *packages]


def taken(device: torch.device) -> tuple[int, int]:
    """Return the bytes that tensors take of a GPU now, and took at most; zeros without one."""
    if device.type != "cuda":
        return 0, 0
    return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)


def risen(device: torch.device, before: tuple[int, int]) -> int:
    """Return the bytes that work took at its peak beside what was `taken` before it.

    0 where that is not known: without a GPU, or where earlier work had taken more. The count of
    the whole process is not begun anew, for `peak` reports it.
    """
    held, most = before
    _, now = taken(device)
    return now - held if now > most else 0


def gpus() -> list[dict[str, Any]]:
    """Return the GPUs that this process sees, as plain values of `Gpu`; none on a CPU."""
    if not torch.cuda.is_available():
        return []
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [asdict(Gpu(one.name, f"{one.major}.{one.minor}", one.total_memory)) for one in found]


def peak(workers: ProcessGroup, device: torch.device) -> dict[str, Any]:
    """Return the most memory that was in use, summed over all processes.

    Every process has to call it. `host` is bytes; `gpus` is bytes that tensors took, one number a
    GPU.
    """
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    used = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT]
    used += [torch.cuda.max_memory_allocated(index) for index in range(count)]
    total = torch.tensor(used, dtype=torch.int64, device=device)  # (1 + gpus,)
    workers.add_up([total])
    host, *each = total.tolist()
    return {"host": host, "gpus": each}
