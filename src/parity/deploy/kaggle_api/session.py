"""Open the real Kaggle client: the pinned versions, with timeouts, one clock, and its own scratch.

The client sets no timeout on its calls, sleeps by itself, draws its own bars, and keeps upload
state in the machine's temporary folder, keyed by path; each is set right here, for as long as it is
open, and nowhere else.
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
"""Older ones publish datasets with files missing and exit 0; newer ones were not tried."""
ENVIRONMENTS = ("", "PROD", "LOCALHOST")
"""Any other value of KAGGLE_API_ENVIRONMENT silently means production."""
TIMEOUT = (20.0, 120.0)
"""Seconds to connect, and between two bytes of an answer."""


@contextmanager
def opened(clock: Clock) -> Iterator[Any]:
    """Yield the client, logged in.

    Raises:
        BadConfig: another version, an environment that is not what it seems, or no login.
        Refused: Kaggle does not take the login.
        Unknown: Kaggle does not answer.
    """
    check_client()
    with contextlib.ExitStack() as stack:
        adapters = importlib.import_module("requests.adapters")
        stack.enter_context(
            _replaced(adapters.HTTPAdapter, "send", _timed(adapters.HTTPAdapter.send))
        )
        with retry.quiet():  # it tries to log in when it is imported
            extended = importlib.import_module("kaggle.api.kaggle_api_extended")
        shim = _Time(clock)
        for module in (extended, importlib.import_module("urllib3.util.retry")):
            stack.enter_context(_replaced(module, "time", shim))
        stack.enter_context(_replaced(extended, "tqdm", _bars(sys.stderr)))
        yield _logged_in(extended)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Keep the client's upload state in `folder` alone, which is made and survives an error.

    State in the shared temporary folder is found again by path, size and time, and so can mix the
    bytes of two builds in one file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _replaced(tempfile, "tempdir", str(folder.resolve())):
        yield folder


def check_client() -> None:
    """Check that the client is the pinned one and will talk to what it seems to.

    Raises:
        BadConfig: it is not.
    """
    for name, wanted in CLIENT.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            raise BadConfig(
                f"{name} is {found}, wanted {wanted}; run: pip install --no-deps {name}=={wanted}"
            )
    named = os.environ.get("KAGGLE_API_ENVIRONMENT", "")
    if named not in ENVIRONMENTS:
        raise BadConfig(
            f"KAGGLE_API_ENVIRONMENT={named!r} would silently mean production; unset it"
        )


def _logged_in(extended: Any) -> Any:
    api = extended.KaggleApi()
    try:
        with retry.quiet():
            api.authenticate()
    except SystemExit as error:
        raise _no_login() from error
    except retry.failures() as error:
        if retry.says_no(error):
            raise _not_taken() from error
        raise OutcomeUnknown("Kaggle does not answer at the login; try again later") from error
    return api


def _no_login() -> BadConfig | KaggleRejected:
    """Return the error of a client that found no login, or one that Kaggle does not know."""
    token, _ = importlib.import_module("kagglesdk.kaggle_env").get_access_token_from_env()
    if token:
        return _not_taken()
    return BadConfig(
        "no login for Kaggle: put an API token at ~/.kaggle/access_token, or set "
        "KAGGLE_USERNAME and KAGGLE_KEY; then: invoke doctor"
    )


def _not_taken() -> KaggleRejected:
    return KaggleRejected("Kaggle refused the login; make a new token, then: invoke doctor")


class _Time:
    """The module `time` for the client, with sleeps that go by our clock and have an end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(min(seconds, LONGEST))

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _timed(send: Callable[..., Any]) -> Callable[..., Any]:
    """Return requests' one way out with our timeout: the client sets none, or minutes."""

    def sending(self: Any, request: Any, **options: Any) -> Any:
        return send(self, request, **{**options, "timeout": TIMEOUT})

    return sending


def _bars(terminal: TextIO) -> Callable[..., AbstractContextManager[Any]]:
    """Return what stands in for the client's own bars, which know no pipe."""

    @contextmanager
    def bar(total: int | None = None, initial: int | None = None, **_: Any) -> Iterator[Any]:
        label = "upload" if initial is None else "download"
        with contextlib.ExitStack() as stack:
            with contextlib.redirect_stderr(terminal):  # while it is made: the client is quiet
                made = stack.enter_context(progress(label, total or 0, "B", initial or 0))
            yield made

    return bar


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
