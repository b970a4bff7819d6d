"""Fixtures: a stand-in for Kaggle, a client for it, and a clock whose sleeps take no time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.kaggle_api import end_to_end
from deploy.kaggle_api.end_to_end import FakeClock, Shipment
from kagglestandin_server import StandIn

from parity.deploy.kaggle_api.client import KaggleClient


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn(end_to_end.make_kaggle()) as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shipment(standin: StandIn, tmp_path: Path, clock: FakeClock) -> Shipment:
    return Shipment(standin, tmp_path, clock)


@pytest.fixture
def client(shipment: Shipment) -> Iterator[KaggleClient]:
    with shipment.client() as kaggle_client:
        yield kaggle_client
