"""Processes that share the packs of one list and all get the complete result.

Packs are built before they are assigned to ranks, so the number of processes does not change the
result.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from accelerate import PartialState

from parity.retrieval.engine import packing


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The rank of this process among the processes of one launch.

    Attributes:
        rank: rank of this process, from 0.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints: rank 0."""
        return self.rank == 0

    def assign_ranks(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the rank of each pack, the same in every process, see `packing.assign_ranks`.

        Args:
            sizes: number of tokens in each pack.
        """
        return packing.assign_ranks(sizes, self.world_size)

    def share(self, parts: list[torch.Tensor], owners: Sequence[int] = ()) -> list[torch.Tensor]:
        """Return all parts with the values that their owners computed; own parts keep their graph.

        Args:
            parts: tensors of the same shapes in every process; only the owner's values count.
            owners: rank that computed each part; empty means rank 0 computed all of them.
        """
        if self.world_size == 1:
            return parts
        shared = []
        for part, owner in zip(parts, owners or [0] * len(parts), strict=True):
            values = part.detach().clone()
            dist.broadcast(values, src=owner)
            shared.append(part if owner == self.rank else values)
        return shared

    def all_reduce(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor in place by its sum over all processes."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def destroy(self) -> None:
        """Destroy the process group at exit; NCCL warns otherwise."""
        if self.world_size > 1:
            dist.destroy_process_group()

    def wait(self) -> None:
        """Wait until every process has called this method (a barrier)."""
        if self.world_size > 1:
            dist.barrier()


def current_group() -> ProcessGroup:
    """Return the process group set by `accelerate launch` or torchrun; else a single process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ProcessGroup()
    state = PartialState(cpu=not torch.cuda.is_available())
    return ProcessGroup(state.process_index, state.num_processes)
