"""Retry after out of memory: halve the tokens in a pack and repeat the work.

The budget alone decides where packs are cut, so the result is the one that the smaller budget
would have given from the start.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from parity.retrieval.engine.distributed import ProcessGroup
from parity.run.errors import BadConfig
from parity.run.progress import log

Result = TypeVar("Result")

MIN_TOKEN_BUDGET = 64
"""Tokens in the smallest pack: halving below it saves nothing, and run files may not go below."""

_MAX_MESSAGE = 200  # characters of a library's message: GPU, requested bytes, free bytes
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # CUDA, CPU


class OutOfMemory(Exception):
    """An attempt ran out of memory, in this process or another; the message says whose memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that a GPU or the host ran out of memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


@contextmanager
def raise_in_all(workers: ProcessGroup, device: torch.device) -> Iterator[None]:
    """Raise `OutOfMemory` in every process if one of them runs out of memory in the block.

    Wrap the work that a process does between two collective operations. Without this, the other
    processes would wait forever for values that never arrive.

    Args:
        workers: the processes; all of them must enter the block, idle ones too.
        device: device of the tensors that the processes exchange.

    Raises:
        OutOfMemory: in all processes, after each one has reached the end of the block.
    """
    is_short, message = False, "in another process"
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        is_short, message = True, _first_line(error)
    if workers.world_size > 1:
        short_count = torch.tensor(int(is_short), device=device)
        workers.all_reduce([short_count])
        is_short = bool(short_count.item())
    if is_short:
        raise OutOfMemory(message)


def _first_line(error: BaseException) -> str:
    """Return the first line of an error, at most `_MAX_MESSAGE` characters."""
    message = str(error).strip().partition("\n")[0].rstrip(".")
    return (
        message
        if len(message) <= _MAX_MESSAGE
        else f"{message[:_MAX_MESSAGE].rpartition(' ')[0]} …"
    )


def retry_with_half(
    budget: int,
    attempt: Callable[[int], Result],
    *,
    floor: int,
    name: str = "encoder.token_budget",
    release: Callable[[], None] = lambda: None,
) -> Result:
    """Return the result of `attempt` with the largest of budget, budget / 2, … that fits memory.

    >>> def attempt(budget):
    ...     if budget > 100:
    ...         raise OutOfMemory
    ...     return budget
    >>> retry_with_half(400, attempt, floor=64)
    100

    Args:
        budget: largest number of tokens in a pack.
        attempt: does all the work with a budget; must start over after an `OutOfMemory`.
        floor: tokens in the longest sequence; a smaller budget saves nothing.
        name: name of the setting, for messages.
        release: frees memory that is reserved for larger packs.

    Raises:
        BadConfig: memory runs out with `floor` or `MIN_TOKEN_BUDGET` tokens too.
    """
    smallest = max(floor, MIN_TOKEN_BUDGET)
    while True:
        # The exception references the frames that reference the tensors: drop it before retrying.
        try:
            return attempt(budget)
        except OutOfMemory as error:
            message = str(error)
        if budget <= smallest:
            raise BadConfig(
                f"out of memory with {name} = {budget}, and smaller packs do not help (longest "
                f"text: {floor} tokens). Free the device, lower prompt.query_max_length or set "
                f"encoder.quantize = '4bit'. The error: {message}"
            )
        release()
        budget = max(smallest, budget // 2)
        log(f"out of memory: continues with {name} = {budget}")
