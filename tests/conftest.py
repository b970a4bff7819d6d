"""Fixtures of all tests: no network, no account, one thread, a temporary home."""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from deploy.bundle.finished_run import FinishedRun

# Set before anything is imported that reads them once.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MPLBACKEND="Agg",
    WANDB_MODE="disabled",
)
for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_TOKEN", "WANDB_API_KEY"):
    os.environ.pop(name, None)

# `./inv test` sets how messages spell commands; tests that check the spelling set their own.
os.environ.pop("PARITY_PROGRAM", None)

# Background jobs ignore SIGINT, and so would processes that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOOPBACK = ("127.", "::1", "localhost")


def _local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    return str(address[0]).startswith(LOOPBACK)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Let sockets reach only this machine; other addresses raise an error."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded(self: socket.socket, address: Any) -> None:
        if not _local(address):
            raise PermissionError(f"a test tried to reach {address}")
        connect(self, address)

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host and not _local((host if isinstance(host, str) else host.decode(),)):
            raise PermissionError(f"a test tried to look up {host}")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


@pytest.fixture(autouse=True, scope="session")
def _scratch_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep caches, keys and settings of the person who runs the tests out of reach."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HF_HOME", "KAGGLE_CONFIG_DIR"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _no_login_left() -> Iterator[None]:
    """Fail a test that leaves a login or the stand-in's address in the environment."""
    yield
    leftover = sorted(name for name in os.environ if name.startswith("KAGGLE_"))
    for name in leftover:
        del os.environ[name]
    assert not leftover, f"left behind: {leftover}"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Let torch compute on one thread, if a test has loaded it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture
def root() -> Path:
    """Return the repository's root."""
    return Path(__file__).parents[1]


@pytest.fixture
def chain(tmp_path_factory: pytest.TempPathFactory) -> "FinishedRun":
    """Return a small run that was packaged and rehearsed, made once for all tests of a process."""
    # Imported here: it loads torch, which most tests need not.
    from deploy.bundle import finished_run  # noqa: PLC0415

    return finished_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(chain: "FinishedRun", tmp_path: Path) -> Path:
    """Return a copy of its laid-out /kaggle that a test may change, with nothing in working."""
    kaggle = tmp_path / "kaggle"
    shutil.copytree(chain.kaggle / "input", kaggle / "input")
    (kaggle / "working").mkdir()
    return kaggle
