"""Which calls are retried and for how long, and the messages they lead to."""

import importlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from deploy.kaggle_api.end_to_end import FakeClock
from kagglestandin_plan import Fault, Reply
from kagglestandin_server import StandIn

from parity.deploy.kaggle_api import retry
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import LONGEST
from parity.run.errors import KaggleRejected, OutcomeUnknown, ParityError

ADDRESS = "https://storage.example/blob?upload_id=7&X-Signature=" + "ab" * 16


class Replies:
    """A call that returns these replies in turn; an error is raised."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.called = 0

    def __call__(self) -> Any:
        self.called += 1
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply


def http_error(status: int, message: str = "", body: Any = None, **headers: str) -> Exception:
    """Return the client's error for a reply, with Kaggle's message if there is one."""
    response = importlib.import_module("requests").Response()
    response.status_code, response.url = status, ADDRESS
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    response._content = json.dumps(body).encode() if body is not None else b""
    error = importlib.import_module("requests").exceptions.HTTPError
    text = message or f"{status} Error: Somehow for url: {ADDRESS}"
    raised: Exception = error(text, response=response)
    return raised


def lost_reply(name: str) -> Exception:
    """Return a connection error whose message contains the address."""
    kinds: dict[str, Callable[[str], Exception]] = {
        "key": KeyError,
        "json": lambda _: json.JSONDecodeError("Expecting value", "<html>", 0),
        "reset": ConnectionResetError,
        "slow": TimeoutError,
    }
    if name in kinds:
        return kinds[name](ADDRESS)
    module = "urllib3.exceptions" if name == "ProtocolError" else "requests.exceptions"
    raised: Exception = getattr(importlib.import_module(module), name)(f"url: {ADDRESS}")
    return raised


LOST = [
    *("ConnectionError", "ReadTimeout", "ChunkedEncodingError", "ProtocolError"),
    *("key", "json", "reset", "slow"),
]


def checked_message(error: BaseException) -> str:
    """Return a message after checking that it is one line without address, token or class name."""
    text = str(error)
    assert "\n" not in text
    for word in ("://", "Signature", "storage.example", "upload_id", "Error("):
        assert word not in text
    return text


# Reads


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_read_is_retried_if_kaggle_is_unavailable(status: int, clock: FakeClock) -> None:
    replies = Replies(http_error(status), http_error(status), "answer")
    assert retry.read(clock, "limits", replies) == "answer"
    assert (replies.called, clock.time) == (3, 2.0 + 4.0)


@pytest.mark.parametrize("name", LOST)
def test_a_read_is_retried_if_the_reply_is_lost(name: str, clock: FakeClock) -> None:
    replies = Replies(lost_reply(name), "answer")
    assert retry.read(clock, "limits", replies) == "answer"
    assert replies.called == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_a_rejected_read_is_not_retried(status: int, clock: FakeClock) -> None:
    replies = Replies(http_error(status, "Not now"))
    with pytest.raises(KaggleRejected) as error:
        retry.read(clock, "limits", replies)
    assert checked_message(error.value).startswith(f"limits: Kaggle says 'Not now' ({status})")
    assert (replies.called, clock.time) == (1, 0)


@pytest.mark.parametrize(
    "failure", [http_error(503), http_error(429), lost_reply("ReadTimeout"), lost_reply("key")]
)
def test_a_read_has_a_limited_number_of_tries(failure: Exception, clock: FakeClock) -> None:
    replies = Replies(*[failure] * 20)
    with pytest.raises(
        OutcomeUnknown, match=r"^limits: .* after 6 tries; try again later$"
    ) as error:
        retry.read(clock, "limits", replies)
    checked_message(error.value)
    assert (replies.called, clock.time) == (retry.TRIES, 2.0 + 4 + 8 + 16 + 32)


def test_only_a_missing_object_is_none(clock: FakeClock) -> None:
    for status in (403, 404):
        assert retry.read_or_none(clock, "kernel", Replies(http_error(status))) is None
    hidden = http_error(200, "Gone", {"code": 404, "message": "Gone"})
    assert retry.read_or_none(clock, "kernel", Replies(hidden)) is None
    assert retry.read_or_none(clock, "kernel", Replies(http_error(503), "reply")) == "reply"
    with pytest.raises(KaggleRejected, match=r"^kernel: Kaggle returned 401$") as error:
        retry.read_or_none(clock, "kernel", Replies(http_error(401)))
    assert error.value.fix == ("doctor",)
    with pytest.raises(OutcomeUnknown):
        retry.read_or_none(clock, "kernel", Replies(*[http_error(500)] * 6))


@pytest.mark.parametrize("call", [retry.read, retry.read_or_none, retry.write])
def test_other_errors_pass_through(call: Any, clock: FakeClock) -> None:
    with pytest.raises(ZeroDivisionError):
        call(clock, "limits", Replies(ZeroDivisionError()))
    with pytest.raises(KeyboardInterrupt):
        call(clock, "limits", Replies(KeyboardInterrupt()))


# Waiting time


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *(("7", 7.0), ("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("-inf", 0.0)),
        *(("31536000", LONGEST), ("inf", LONGEST), ("1e99", LONGEST)),
        *(("", 2.0), ("soon", 2.0), ("nan", 2.0), ("7 seconds", 2.0), ("0x10", 2.0)),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2099 00:00:00 GMT", LONGEST),
        *(("Thu, 01 Jan 2099 00:00:00 -0000", 2.0), ("Wed, 99 Foo 2099", 2.0)),
    ],
)
@pytest.mark.parametrize("call", [retry.read, retry.write])
def test_the_wait_is_what_kaggle_asks_for_up_to_a_limit(
    call: Any, header: str, seconds: float, clock: FakeClock
) -> None:
    headers = {"Retry_After": header} if header else {}
    assert call(clock, "limits", Replies(http_error(429, **headers), "answer")) == "answer"
    assert clock.time == seconds


def test_kaggle_may_send_a_date(clock: FakeClock) -> None:
    soon = format_datetime(datetime.now(tz=UTC) + timedelta(seconds=90), usegmt=True)
    retry.read(clock, "limits", Replies(http_error(429, Retry_After=soon), "answer"))
    assert 80 < clock.time <= 90


# Writes


def test_a_write_is_repeated_only_if_it_was_not_processed(clock: FakeClock) -> None:
    replies = Replies(http_error(429), http_error(429, Retry_After="9"), "reply")
    assert retry.write(clock, "push", replies) == "reply"
    assert (replies.called, clock.time) == (3, 2.0 + 9.0)


def test_a_write_has_a_limited_number_of_tries(clock: FakeClock) -> None:
    replies = Replies(*[http_error(429, Retry_After="1")] * 20)
    with pytest.raises(KaggleRejected) as error:
        retry.write(clock, "push", replies)
    hint = "wait a few minutes, then run the same command again"
    assert checked_message(error.value) == f"push: Kaggle returned 429; {hint}"
    assert (replies.called, clock.time) == (retry.TRIES, 5.0)


@pytest.mark.parametrize("failure", [http_error(500), http_error(503), *map(lost_reply, LOST)])
def test_a_write_that_may_have_succeeded_is_sent_once(failure: Exception, clock: FakeClock) -> None:
    replies = Replies(failure, "never")
    with pytest.raises(
        OutcomeUnknown, match=r"; it is unclear whether the request succeeded\. Run the same"
    ) as error:
        retry.write(clock, "push", replies)
    assert checked_message(error.value).startswith("push: ")
    assert (replies.called, clock.time) == (1, 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_a_rejected_write_is_not_repeated(status: int, clock: FakeClock) -> None:
    replies = Replies(http_error(status), "never")
    with pytest.raises(KaggleRejected, match=f"^push: Kaggle returned {status}"):
        retry.write(clock, "push", replies)
    assert (replies.called, clock.time) == (1, 0)


# Error codes inside HTTP 200


@pytest.mark.parametrize("call", [retry.read, retry.write])
def test_an_error_code_inside_http_200_is_a_rejection(call: Any, clock: FakeClock) -> None:
    replies = Replies(http_error(200, "Not yours", {"code": 403, "message": "Not yours"}))
    with pytest.raises(
        KaggleRejected, match=r"^push: Kaggle says 'Not yours' \(403\); check that it is yours"
    ):
        call(clock, "push", replies)
    assert replies.called == 1


def test_a_rate_limit_inside_http_200_is_retried(clock: FakeClock) -> None:
    limited = http_error(200, "Slowly", {"code": 429, "message": "Slowly"})
    assert retry.write(clock, "push", Replies(limited, "reply")) == "reply"
    assert retry.read(clock, "push", Replies(limited, "reply")) == "reply"


@pytest.mark.parametrize("body", [None, [], {}, {"code": None}, {"code": "many"}])
def test_http_200_without_a_code_is_a_rejection(body: Any, clock: FakeClock) -> None:
    with pytest.raises(KaggleRejected, match=r"Kaggle says 'Odd' \(200\)$"):
        retry.write(clock, "push", Replies(http_error(200, "Odd", body)))


# Messages


def test_each_rejection_has_a_hint() -> None:
    hints = {
        400: "",
        401: "",
        403: "; check that it is yours and that you accepted the competition's rules",
        429: "; wait a few minutes, then run the same command again",
    }
    for status, hint in hints.items():
        rejection = retry.build_rejection("push", http_error(status, "Message."))
        assert str(rejection) == f"push: Kaggle says 'Message' ({status}){hint}"
        assert rejection.fix == (("doctor",) if status == 401 else ())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (http_error(403), "Kaggle returned 403"),
        (http_error(403, f"See {ADDRESS} for\nmore."), "Kaggle says 'See … for more' (403)"),
        (http_error(403, f"'{ADDRESS}'"), "(403)"),
        (lost_reply("ConnectionError"), "connection lost"),
        (lost_reply("ChunkedEncodingError"), "connection lost"),
        (lost_reply("ReadTimeout"), "no reply in time"),
        (lost_reply("ConnectTimeout"), "no reply in time"),
        (lost_reply("slow"), "no reply in time"),
        (lost_reply("reset"), "connection lost"),
        (lost_reply("json"), "the reply could not be parsed"),
        (lost_reply("key"), "the reply could not be parsed"),
    ],
)
def test_messages_contain_no_address_and_no_token(error: Exception, message: str) -> None:
    assert message in checked_message(retry.build_rejection("push", error))


@pytest.mark.parametrize("call", [retry.read, retry.write])
def test_output_of_the_client_is_discarded(
    call: Any, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty() -> None:
        sys.stdout.write(f"Downloaded from {ADDRESS}")
        sys.stderr.write(f"Request failed: {ADDRESS}")
        raise lost_reply("ConnectionError")

    with pytest.raises(OutcomeUnknown):
        call(clock, "push", chatty)
    sys.stdout.write("ours")
    assert capsys.readouterr() == ("ours", "")


# Errors of the official client


@pytest.mark.parametrize(
    ("effect", "kind", "message"),
    [
        (Reply(200, {"code": 400, "message": f"No, {ADDRESS}"}), KaggleRejected, "'No, …' (400)"),
        (Reply(401), KaggleRejected, "Kaggle returned 401"),
        (Reply(500, {"code": 500, "message": "Oh"}), OutcomeUnknown, "'Oh' (500) after 6 tries"),
        (Reply(200), OutcomeUnknown, "the reply could not be parsed after 6 tries"),
        (
            Reply(200, {"status": "NEW_WORD"}),
            OutcomeUnknown,
            "the reply could not be parsed after 6 tries",
        ),
    ],
)
def test_errors_of_the_official_client_have_our_messages(
    effect: Reply, kind: type[ParityError], message: str, client: KaggleClient, standin: StandIn
) -> None:
    standin.inject_faults(Fault(("GetKernelSessionStatus",), effect, times=9))
    with pytest.raises(kind) as error:
        client.kernels.status("me/small-kernel", 1)
    assert message in checked_message(error.value)
