"""A stand-in for Kaggle, the door to it, and a clock whose sleeps take no time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.kaggle_api import end_to_end
from deploy.kaggle_api.end_to_end import Stopwatch, Voyage
from kagglestandin_server import StandIn

from parity.deploy.kaggle_api.client import KaggleClient


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn(end_to_end.harbour()) as one:
        yield one


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def way(standin: StandIn, tmp_path: Path, clock: Stopwatch) -> Voyage:
    return Voyage(standin, tmp_path, clock)


@pytest.fixture
def door(way: Voyage) -> Iterator[KaggleClient]:
    with way.door() as one:
        yield one
