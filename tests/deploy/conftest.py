"""The package index that pip and uv are told of, for one test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.wheelhouse import packages


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[packages.Index]:
    """Yield an index on this machine, the only one; whatever fails is not tried again."""
    with packages.serving(tmp_path / "index") as served:
        monkeypatch.setenv("PIP_INDEX_URL", served.address)
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("HOME", str(tmp_path))  # a cache would know the wheels of other tests
        yield served


@pytest.fixture
def dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell pip and uv of an index where nobody listens."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("HOME", str(tmp_path))
