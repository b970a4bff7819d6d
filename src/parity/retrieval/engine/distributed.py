"""Several processes that share the packs of one list and see the same result.

Packs are cut before they are dealt, so the processes change who computes, never what.
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
    """This process's place among its equals.

    Attributes:
        rank: from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def deal(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the rank that computes each pack, the same in every process.

        Args:
            sizes: tokens of each pack.
        """
        return packing.deal(sizes, self.world)

    def share(self, parts: list[torch.Tensor], owners: Sequence[int] = ()) -> list[torch.Tensor]:
        """Fill in the parts that other processes computed; own parts keep their graph.

        Args:
            parts: their shapes right in every process, their values only where owned.
            owners: the rank that computed each part; none where the main process computed all.
        """
        if self.world == 1:
            return parts
        full = []
        for part, owner in zip(parts, owners or [0] * len(parts), strict=True):
            values = part.detach().clone()
            dist.broadcast(values, src=owner)
            full.append(part if owner == self.rank else values)
        return full

    def add_up(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.world > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def leave(self) -> None:
        """Leave the others, at the very end; NCCL warns of whoever does not."""
        if self.world > 1:
            dist.destroy_process_group()

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            dist.barrier()


def launched() -> ProcessGroup:
    """Return this process's place as `accelerate launch` (or torchrun) set it; else alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ProcessGroup()
    state = PartialState(cpu=not torch.cuda.is_available())
    return ProcessGroup(state.process_index, state.num_processes)
