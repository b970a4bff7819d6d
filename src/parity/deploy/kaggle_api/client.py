"""The one door to Kaggle; everything else in the project knows Kaggle only through it.

Each method goes through the real client, with its types, and through `calls`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from parity.deploy.kaggle_api import session
from parity.deploy.kaggle_api.clock import Clock
from parity.deploy.kaggle_api.competitions import Competitions
from parity.deploy.kaggle_api.datasets import Datasets
from parity.deploy.kaggle_api.kernels import Kernels
from parity.deploy.kaggle_api.transport import Transport


class KaggleClient:
    """Kaggle, logged in.

    Attributes:
        user: the account.
        clock: what waiting goes by.
        datasets: the datasets it sees.
        kernels: the kernels it sees.
        competitions: its submissions.
    """

    def __init__(self, api: Any, clock: Clock) -> None:
        """Talk through `api`, the real client, and wait by `clock`."""
        wire = Transport(api, clock)
        self.user = str(api.get_config_value("username") or "")
        self.clock = clock
        self.datasets, self.kernels = Datasets(wire), Kernels(wire)
        self.competitions = Competitions(wire)


@contextmanager
def opened(clock: Clock) -> Iterator[KaggleClient]:
    """Yield the door, logged in.

    Raises:
        BadConfig: another client than the pinned one, or no login.
    """
    with session.opened(clock) as api:
        yield KaggleClient(api, clock)
