"""The one clock that everything waiting on Kaggle goes by, the client's own sleeps too."""

import time
from typing import Protocol

LONGEST = 300.0
"""Seconds waited at most before a call is made again: a server whose clock is wrong may ask for a
year."""


class Clock(Protocol):
    """What waits; tests give one that does not."""

    def now(self) -> float:
        """Return seconds that only ever grow, whatever the wall clock is set to."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class WallClock:
    """The real one."""

    def now(self) -> float:
        """Return the monotonic clock, seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        time.sleep(seconds)
