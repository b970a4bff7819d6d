"""Retries of Kaggle calls: reads are repeated until answered, writes are sent once.

The official client repeats some calls after a lost connection, and may then create two versions.
Here a write is repeated only if Kaggle reports that it did not process it (429). If the reply is
lost, `OutcomeUnknown` is raised, and the caller checks what Kaggle holds before it sends again.
"""

import contextlib
import importlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from parity.deploy.kaggle_api.clock import LONGEST, Clock
from parity.run.errors import KaggleRejected, OutcomeUnknown

T = TypeVar("T")

TRIES = 6
_FIRST, _GROWTH = 2.0, 2.0  # first wait in seconds, and the factor from one wait to the next
_LIMITED, _NOT_FOUND, _SERVER_ERROR = 429, 404, 500
_INVISIBLE = (403, _NOT_FOUND)  # Kaggle returns either for a missing or private object
_ADDRESS = re.compile(r"\b\w+://\S+")


def read(clock: Clock, label: str, call: Callable[[], T]) -> T:
    """Return the reply to a read request, which can be repeated safely.

    Raises:
        KaggleRejected: Kaggle refused it.
        OutcomeUnknown: no reply after several tries.
    """
    for attempt in range(TRIES):
        try:
            with silence_client():
                return call()
        except client_errors() as error:
            if is_rejection(error):
                raise build_rejection(label, error) from error
            if attempt == TRIES - 1:
                raise OutcomeUnknown(
                    f"{label}: {_reason(error)} after {TRIES} tries; try again later"
                ) from error
            clock.sleep(_wait(error, attempt))
    raise AssertionError("unreachable")


def read_or_none(clock: Clock, label: str, call: Callable[[], T]) -> T | None:
    """Return the reply, or None if the object does not exist or this account cannot see it."""
    try:
        return read(clock, label, call)
    except KaggleRejected as error:
        if _code(error.__cause__) in _INVISIBLE:
            return None
        raise


def write(clock: Clock, label: str, call: Callable[[], T]) -> T:
    """Return the reply to a request that changes something on Kaggle.

    Raises:
        KaggleRejected: Kaggle refused it; nothing was changed.
        OutcomeUnknown: the reply was lost; the request may have succeeded.
    """
    for attempt in range(TRIES):
        try:
            with silence_client():
                return call()
        except client_errors() as error:
            code = _code(error)
            if code == _LIMITED and attempt < TRIES - 1:
                clock.sleep(_wait(error, attempt))
                continue
            if code == _LIMITED or is_rejection(error):
                raise build_rejection(label, error) from error
            raise OutcomeUnknown(
                f"{label}: {_reason(error)}; it is unclear whether the request succeeded. "
                "Run the same command again to check"
            ) from error
    raise AssertionError("unreachable")


def build_rejection(label: str, error: BaseException) -> KaggleRejected:
    """Return Kaggle's message as one line, with a hint at the most frequent fix."""
    code = _code(error)
    hints = {
        403: "; check that it is yours and that you accepted the competition's rules",
        _LIMITED: "; wait a few minutes, then run the same command again",
    }
    message = f"{label}: {_reason(error)}{hints.get(code, '')}"
    return KaggleRejected(message, fix=("doctor",) if code == 401 else ())


def is_rejection(error: BaseException) -> bool:
    """Return whether Kaggle replied and would reply the same to a repeated request."""
    code = _code(error)
    return bool(code) and code != _LIMITED and code < _SERVER_ERROR


@contextmanager
def silence_client() -> Iterator[None]:
    """Discard what the client prints to stdout and stderr: it contains signed URLs."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def strip_addresses(message: str) -> str:
    r"""Return Kaggle's message as one line without URLs, which may be signed.

    >>> strip_addresses("Not accepted:\n see https://host/blob?signature=1 for more.")
    'Not accepted: see … for more.'
    """
    return _ADDRESS.sub("…", " ".join(message.split()))


def client_errors() -> tuple[type[BaseException], ...]:
    """Return the errors that the client raises if Kaggle refuses or the reply is unusable.

    The client has no error class for a reply that it cannot parse: not JSON, for example a
    proxy's HTML page, or JSON with an unknown status.
    """
    requests = importlib.import_module("requests")
    urllib3 = importlib.import_module("urllib3.exceptions")
    lost = (urllib3.HTTPError, ConnectionError, TimeoutError)
    return (requests.exceptions.RequestException, *lost, json.JSONDecodeError, KeyError)


def _code(error: Any) -> int:
    """Return the HTTP status of an error, 0 if there was no reply.

    A reply with status 200 may contain another code in its JSON.
    """
    response = getattr(error, "response", None)
    if response is None:
        return 0
    status = int(response.status_code)
    if status < 400:
        try:
            return int(response.json()["code"])
        except (ValueError, KeyError, TypeError):
            return status
    return status


def _reason(error: BaseException) -> str:
    """Return a short description of an error, without URLs."""
    code = _code(error)
    if isinstance(error, json.JSONDecodeError | KeyError):
        return "the reply could not be parsed"
    if not code:
        return "no reply in time" if "Timeout" in type(error).__name__ else "connection lost"
    message = "" if " for url: " in str(error) else strip_addresses(str(error)).rstrip(".")
    return f"Kaggle says {message!r} ({code})" if message else f"Kaggle returned {code}"


def _wait(error: Any, attempt: int) -> float:
    """Return the seconds to wait: Kaggle's Retry-After if present, else exponential backoff."""
    response = getattr(error, "response", None)
    header = response.headers.get("Retry-After", "") if response is not None else ""
    backoff = _FIRST * _GROWTH**attempt
    return min(max(_seconds(header, backoff), 0.0), LONGEST)


def _seconds(header: str, backoff: float) -> float:
    """Return the seconds in a Retry-After header, `backoff` if it is not valid."""
    with contextlib.suppress(ValueError):
        return backoff if math.isnan(seconds := float(header)) else seconds
    try:
        return (parsedate_to_datetime(header) - datetime.now(tz=UTC)).total_seconds()
    except (ValueError, TypeError):
        return backoff
