"""A session of the official Kaggle client: pinned version, timeouts, clock, own upload state.

The client sets no timeout on its calls, sleeps by itself, draws its own progress bars, and keeps
upload state in the machine's temporary folder, keyed by path. Each of these is replaced while the
session is open, and only then.
"""

import contextlib
import importlib
import importlib.metadata
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TextIO

from parity.deploy.kaggle_api import retry
from parity.deploy.kaggle_api.clock import LONGEST, Clock
from parity.run.errors import BadConfig, KaggleRejected, OutcomeUnknown
from parity.run.progress import progress

CLIENT = {"kaggle": "2.2.5", "kagglesdk": "0.1.38"}
"""Older versions publish datasets with missing files and exit 0; newer ones are untested."""
ENVIRONMENTS = ("", "PROD", "LOCALHOST")
"""Any other value of KAGGLE_API_ENVIRONMENT silently means production."""
TIMEOUT = (20.0, 120.0)
"""Timeouts in seconds: to connect, and between two bytes of a reply."""


@contextmanager
def open_api(clock: Clock) -> Iterator[Any]:
    """Yield the official client, logged in.

    Raises:
        BadConfig: wrong client version, misleading KAGGLE_API_ENVIRONMENT, or no login.
        KaggleRejected: Kaggle refused the login.
        OutcomeUnknown: Kaggle does not respond.
    """
    check_client()
    with contextlib.ExitStack() as stack:
        adapters = importlib.import_module("requests.adapters")
        stack.enter_context(
            _replaced(adapters.HTTPAdapter, "send", _timed(adapters.HTTPAdapter.send))
        )
        with retry.silence_client():  # the import itself tries to log in
            extended = importlib.import_module("kaggle.api.kaggle_api_extended")
        shim = _Time(clock)
        for module in (extended, importlib.import_module("urllib3.util.retry")):
            stack.enter_context(_replaced(module, "time", shim))
        stack.enter_context(_replaced(extended, "tqdm", _bars(sys.stderr)))
        yield _logged_in(extended)


@contextmanager
def keep_upload_state(folder: Path) -> Iterator[Path]:
    """Keep the client's upload state in `folder`, which is created and survives an error.

    The client finds state in the shared temporary folder by path, size and time, so it can mix the
    bytes of two builds in one file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _replaced(tempfile, "tempdir", str(folder.resolve())):
        yield folder


def check_client() -> None:
    """Check the version of the client and the server that it will talk to.

    Raises:
        BadConfig: wrong version, or a value of KAGGLE_API_ENVIRONMENT that the client ignores.
    """
    for name, pinned in CLIENT.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "not installed"
        if installed != pinned:
            raise BadConfig(
                f"{name} must be {pinned} but is {installed}; "
                f"run: pip install --no-deps {name}=={pinned}"
            )
    server = os.environ.get("KAGGLE_API_ENVIRONMENT", "")
    if server not in ENVIRONMENTS:
        raise BadConfig(f"KAGGLE_API_ENVIRONMENT={server!r} silently selects production; unset it")


def _logged_in(extended: Any) -> Any:
    api = extended.KaggleApi()
    try:
        with retry.silence_client():
            api.authenticate()
    except SystemExit as error:
        raise _no_login() from error
    except retry.client_errors() as error:
        if retry.is_rejection(error):
            raise _login_refused() from error
        raise OutcomeUnknown("Kaggle does not respond to the login; try again later") from error
    return api


def _no_login() -> BadConfig | KaggleRejected:
    """Return the error for a missing login, or for a token that Kaggle refuses."""
    token, _ = importlib.import_module("kagglesdk.kaggle_env").get_access_token_from_env()
    if token:
        return _login_refused()
    return BadConfig(
        "no Kaggle login; save an API token as ~/.kaggle/access_token, or set KAGGLE_USERNAME "
        "and KAGGLE_KEY",
        fix=("doctor",),
    )


def _login_refused() -> KaggleRejected:
    return KaggleRejected("Kaggle refused the login; create a new API token", fix=("doctor",))


class _Time:
    """A replacement of the module `time` whose sleeps use our clock and are capped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(min(seconds, LONGEST))

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _timed(send: Callable[..., Any]) -> Callable[..., Any]:
    """Return requests' `send` with our timeout: the client sets none, or minutes."""

    def send_with_timeout(self: Any, request: Any, **options: Any) -> Any:
        return send(self, request, **{**options, "timeout": TIMEOUT})

    return send_with_timeout


def _bars(terminal: TextIO) -> Callable[..., AbstractContextManager[Any]]:
    """Return a replacement of the client's progress bars, which do not handle pipes."""

    @contextmanager
    def bar(total: int | None = None, initial: int | None = None, **_: Any) -> Iterator[Any]:
        label = "upload" if initial is None else "download"
        with contextlib.ExitStack() as stack:
            with contextlib.redirect_stderr(terminal):  # undo silence_client at creation
                created = stack.enter_context(progress(label, total or 0, "B", initial or 0))
            yield created

    return bar


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
