"""Polling of Kaggle with a time budget: look, sleep, look again."""

from collections.abc import Callable
from typing import TypeVar

from parity.deploy.kaggle_api.clock import Clock

T = TypeVar("T")

SHORTEST, LONGEST = 5.0, 60.0
"""First and longest pause between two looks, in seconds. Kaggle does not publish its limits."""
_GROWTH = 1.5


def poll_until(clock: Clock, look: Callable[[], T | None], seconds: float) -> T | None:
    """Return the first result of `look` that is not None, or None after `seconds`.

    The first look is immediate, the last one when the budget is spent.
    """
    pause, end = SHORTEST, clock.now() + seconds
    while (result := look()) is None:
        remaining = end - clock.now()
        if remaining <= 0:
            return None
        clock.sleep(min(pause, remaining))
        pause = min(pause * _GROWTH, LONGEST)
    return result
