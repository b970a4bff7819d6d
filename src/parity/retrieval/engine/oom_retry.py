"""Go on when memory runs out: half the tokens in a pack, and the same work again.

Packs are cut by the budget alone, so what comes out is what the smaller budget, asked for from the
start, would have given.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from parity.retrieval.engine.distributed import ProcessGroup
from parity.run.errors import BadConfig
from parity.run.progress import tell

Result = TypeVar("Result")

LEAST = 64
"""Tokens of a pack below which halving saves nothing; also the least that a run file may ask."""

_LONG = 200  # characters of what a library says: GPU, bytes wanted, bytes free
_WORDS = ("out of memory", "can't allocate memory", "not enough memory")  # of CUDA, of the CPU


class OutOfMemory(Exception):
    """An attempt ran out of memory, here or in another process; says whose, where it is known."""


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that the memory of a GPU, or of the host, ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS)


@contextmanager
def together(workers: ProcessGroup, device: torch.device) -> Iterator[None]:
    """Make of running out of memory one `Short` in every process.

    Put it around what a process does by itself, up to where it next waits for the others; else
    those would wait for values that never come.

    Args:
        workers: all of them come here, also those that have nothing to do.
        device: where tensors lie that they exchange.

    Raises:
        Short: in all of them, once each has come to the end of the block.
    """
    short, why = False, "in another process"
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        short, why = True, _said(error)
    if workers.world > 1:
        count = torch.tensor(int(short), device=device)
        workers.add_up([count])
        short = bool(count.item())
    if short:
        raise OutOfMemory(why)


def _said(error: BaseException) -> str:
    """Return the first line of an error, which tells a GPU's lack from a host's, cut to fit."""
    first = str(error).strip().partition("\n")[0].rstrip(".")
    return first if len(first) <= _LONG else f"{first[:_LONG].rpartition(' ')[0]} …"


def halving(
    budget: int,
    attempt: Callable[[int], Result],
    *,
    floor: int,
    name: str = "encoder.token_budget",
    release: Callable[[], None] = lambda: None,
) -> Result:
    """Return what `attempt` makes under the budget, or under the first half of it that fits.

    >>> def attempt(budget):
    ...     if budget > 100:
    ...         raise Short
    ...     return budget
    >>> halving(400, attempt, floor=64)
    100

    Args:
        budget: tokens in a pack.
        attempt: does the whole work under a budget; what a `Short` one left it begins anew.
        floor: tokens below which nothing is saved: those of the longest sequence.
        name: of the setting, for a person.
        release: lets go of memory that is held for larger packs.

    Raises:
        BadConfig: it does not fit even at the floor, or at `LEAST` tokens.
    """
    least = max(floor, LEAST)
    while True:
        # What was raised holds the frames that hold the tensors: it is gone before the next try.
        try:
            return attempt(budget)
        except OutOfMemory as short:
            why = str(short)
        if budget <= least:
            raise BadConfig(
                f"out of memory with {name} = {budget}, and smaller packs save nothing (longest "
                f"text: {floor} tokens): free the device, lower prompt.query_max_length, or "
                f"run the same command with --set=encoder.quantize=4bit; it said: {why}"
            )
        release()
        budget = max(least, budget // 2)
        tell(f"out of memory: goes on with {name} = {budget}")
