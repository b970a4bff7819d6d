"""Package indexes for one test: one that responds, and one that doesn't."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.wheelhouse import packages


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[packages.Index]:
    """Yield a local index, the only one that pip and uv use; failed requests are not retried."""
    with packages.serving(tmp_path / "index") as served:
        monkeypatch.setenv("PIP_INDEX_URL", served.address)
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("HOME", str(tmp_path))  # a shared cache has the wheels of other tests
        yield served


@pytest.fixture
def dead_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point pip and uv to an index that does not respond."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("HOME", str(tmp_path))
