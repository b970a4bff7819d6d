"""The clock for everything that waits on Kaggle, including the official client's own sleeps."""

import time
from typing import Protocol

LONGEST = 300.0
"""Longest wait before a retry, in seconds. A server with a wrong clock may ask for a year."""


class Clock(Protocol):
    """A clock that can wait; tests pass one that returns at once."""

    def now(self) -> float:
        """Return a time in seconds that never goes back, even if the wall clock is changed."""

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""


class WallClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return the monotonic clock in seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        time.sleep(seconds)
