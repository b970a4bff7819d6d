"""Several processes that share the packs of one list and see the same result.

Packs are cut before they are dealt, so the processes change who computes, never what.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from accelerate import PartialState


@dataclass(frozen=True, slots=True)
class Workers:
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

    def owns(self, index: int) -> bool:
        """Return whether pack `index` is this process's to compute."""
        return index % self.world == self.rank

    def share(self, parts: list[torch.Tensor]) -> list[torch.Tensor]:
        """Fill in the parts that other processes computed; own parts keep their graph.

        Args:
            parts: one tensor a pack, its place right in every process, its values only where owned.
        """
        if self.world == 1:
            return parts
        full = []
        for index, part in enumerate(parts):
            values = part.detach().clone()
            dist.broadcast(values, src=index % self.world)
            full.append(part if self.owns(index) else values)
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


def launched() -> Workers:
    """Return this process's place as `accelerate launch` (or torchrun) set it; else alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Workers()
    state = PartialState(cpu=not torch.cuda.is_available())
    return Workers(state.process_index, state.num_processes)
