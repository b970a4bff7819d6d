"""The Kaggle client that the rest of the project uses.

Each method calls the official client, with its request types, through `retry`.
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
    """A logged-in Kaggle client.

    Attributes:
        user: account name.
        clock: clock for all waiting.
        datasets: dataset calls.
        kernels: kernel calls.
        competitions: submission calls.
    """

    def __init__(self, api: Any, clock: Clock) -> None:
        """Wrap `api`, the official client; wait by `clock`."""
        transport = Transport(api, clock)
        self.user = str(api.get_config_value("username") or "")
        self.clock = clock
        self.datasets, self.kernels = Datasets(transport), Kernels(transport)
        self.competitions = Competitions(transport)


@contextmanager
def open_client(clock: Clock) -> Iterator[KaggleClient]:
    """Yield a logged-in client.

    Raises:
        BadConfig: the installed client is not the pinned version, or there is no login.
    """
    with session.open_api(clock) as api:
        yield KaggleClient(api, clock)
