"""Call Kaggle: questions are asked until answered; what changes something is said once.

The client repeats some calls after a lost connection, and may then make two versions of one. Here
what changes something is repeated only when Kaggle said that it did not take it (429); a reply
that is lost is `Unknown`, and whoever called looks at what Kaggle holds before saying it again.
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
_FIRST, _GROWTH = 2.0, 2.0  # seconds, and by how much each wait is longer than the one before
_LIMITED, _GONE, _BROKEN = 429, 404, 500
_HIDDEN = (403, _GONE)  # of what is private and not there, Kaggle says one or the other
_ADDRESS = re.compile(r"\b\w+://\S+")


def read(clock: Clock, what: str, call: Callable[[], T]) -> T:
    """Return the answer to a question, which changes nothing and may be asked again.

    Raises:
        Refused: Kaggle says no.
        Unknown: no answer after several tries.
    """
    for attempt in range(TRIES):
        try:
            with quiet():
                return call()
        except failures() as error:
            if says_no(error):
                raise refusal(what, error) from error
            if attempt == TRIES - 1:
                raise OutcomeUnknown(
                    f"{what}: {_said(error)}, {TRIES} times; try again later"
                ) from error
            clock.sleep(_wait(error, attempt))
    raise AssertionError("unreachable")


def ask_for(clock: Clock, what: str, call: Callable[[], T]) -> T | None:
    """Return the answer, or None where what is asked for is not there or not ours to see."""
    try:
        return read(clock, what, call)
    except KaggleRejected as error:
        if _code(error.__cause__) in _HIDDEN:
            return None
        raise


def write(clock: Clock, what: str, call: Callable[[], T]) -> T:
    """Return the reply to what changes something.

    Raises:
        Refused: Kaggle says no; nothing was changed.
        Unknown: the reply was lost; Kaggle may have taken it.
    """
    for attempt in range(TRIES):
        try:
            with quiet():
                return call()
        except failures() as error:
            code = _code(error)
            if code == _LIMITED and attempt < TRIES - 1:
                clock.sleep(_wait(error, attempt))
                continue
            if code == _LIMITED or says_no(error):
                raise refusal(what, error) from error
            raise OutcomeUnknown(
                f"{what}: {_said(error)}; whether Kaggle took it is not known"
            ) from error
    raise AssertionError("unreachable")


def refusal(what: str, error: BaseException) -> KaggleRejected:
    """Return Kaggle's words as one line, with what most often mends it."""
    hints = {
        401: "; run: invoke doctor",
        403: "; is it yours, and were the competition's rules accepted?",
        _LIMITED: "; wait some minutes, then the same command",
    }
    return KaggleRejected(f"{what}: {_said(error)}{hints.get(_code(error), '')}")


def says_no(error: BaseException) -> bool:
    """Return whether Kaggle has answered, and would answer the same if it were asked again."""
    code = _code(error)
    return bool(code) and code != _LIMITED and code < _BROKEN


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the client's own words from both streams: they have signed addresses in them."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def plain(words: str) -> str:
    r"""Return words of Kaggle's as one line without addresses, which may be signed.

    >>> plain("Not taken:\n see https://host/blob?signature=1 for more.")
    'Not taken: see … for more.'
    """
    return _ADDRESS.sub("…", " ".join(words.split()))


def failures() -> tuple[type[BaseException], ...]:
    """Return what the client raises where Kaggle says no, is not reached, or is not understood.

    It has no word of its own for an answer it cannot read: one that is no JSON, as of a proxy's
    page, or names a status it does not know.
    """
    requests = importlib.import_module("requests")
    urllib3 = importlib.import_module("urllib3.exceptions")
    lost = (urllib3.HTTPError, ConnectionError, TimeoutError)
    return (requests.exceptions.RequestException, *lost, json.JSONDecodeError, KeyError)


def _code(error: Any) -> int:
    """Return the HTTP status of a refusal, 0 where there was no answer at all.

    An answer may say 200 on the outside and hold a code of its own.
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


def _said(error: BaseException) -> str:
    """Return what went wrong in a few words, without addresses or signed URLs."""
    code = _code(error)
    if isinstance(error, json.JSONDecodeError | KeyError):
        return "the answer was not understood"
    if not code:
        slow = "Timeout" in type(error).__name__
        return "no answer in time" if slow else "the connection was lost"
    message = "" if " for url: " in str(error) else plain(str(error)).rstrip(".")
    return f"Kaggle says {message!r} ({code})" if message else f"Kaggle answers {code}"


def _wait(error: Any, attempt: int) -> float:
    """Return the seconds to wait: what Kaggle asks for where it does, else ever longer."""
    response = getattr(error, "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    own = _FIRST * _GROWTH**attempt
    return min(max(_seconds(asked, own), 0.0), LONGEST)


def _seconds(asked: str, own: float) -> float:
    """Return the seconds that a Retry-After means, `own` where it means nothing."""
    with contextlib.suppress(ValueError):
        return own if math.isnan(seconds := float(asked)) else seconds
    try:
        return (parsedate_to_datetime(asked) - datetime.now(tz=UTC)).total_seconds()
    except (ValueError, TypeError):
        return own
