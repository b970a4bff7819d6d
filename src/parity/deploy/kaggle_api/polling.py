"""Wait for Kaggle within a budget: look, sleep, look again; nothing waits for ever."""

from collections.abc import Callable
from typing import TypeVar

from parity.deploy.kaggle_api.clock import Clock

T = TypeVar("T")

SHORTEST, LONGEST = 5.0, 60.0
"""Seconds between two looks: at first, and once it takes long (Kaggle's limits are not told)."""
_GROWTH = 1.5


def poll_until(clock: Clock, look: Callable[[], T | None], seconds: float) -> T | None:
    """Return what `look` finds, or None where it found nothing within `seconds`.

    It looks at once, and a last time when the budget is spent.
    """
    pause, end = SHORTEST, clock.now() + seconds
    while (found := look()) is None:
        left = end - clock.now()
        if left <= 0:
            return None
        clock.sleep(min(pause, left))
        pause = min(pause * _GROWTH, LONGEST)
    return found
