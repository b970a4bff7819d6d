"""What is asked again, for how long, what is said once, and what a person then reads."""

import importlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from deploy.kaggle_api.end_to_end import Stopwatch
from kagglestandin_plan import Fault, Reply
from kagglestandin_server import StandIn

from parity.deploy.kaggle_api import retry
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import LONGEST
from parity.run.errors import KaggleRejected, OutcomeUnknown, ParityError

ADDRESS = "https://storage.example/blob?upload_id=7&X-Signature=" + "ab" * 16


class Line:
    """Answers these, one a call; an error is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.called = 0

    def __call__(self) -> Any:
        self.called += 1
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def failed(status: int, words: str = "", body: Any = None, **headers: str) -> Exception:
    """Return what the client raises for an answer; no words: as it does without Kaggle's."""
    response = importlib.import_module("requests").Response()
    response.status_code, response.url = status, ADDRESS
    response.headers.update({name.replace("_", "-"): one for name, one in headers.items()})
    response._content = json.dumps(body).encode() if body is not None else b""
    error = importlib.import_module("requests").exceptions.HTTPError
    text = words or f"{status} Error: Somehow for url: {ADDRESS}"
    made: Exception = error(text, response=response)
    return made


def lost(name: str) -> Exception:
    """Return an error of a connection, whose own words have the address in them."""
    kinds: dict[str, Callable[[str], Exception]] = {
        "key": KeyError,
        "json": lambda _: json.JSONDecodeError("Expecting value", "<html>", 0),
        "reset": ConnectionResetError,
        "slow": TimeoutError,
    }
    if name in kinds:
        return kinds[name](ADDRESS)
    module = "urllib3.exceptions" if name == "ProtocolError" else "requests.exceptions"
    made: Exception = getattr(importlib.import_module(module), name)(f"url: {ADDRESS}")
    return made


LOST = [
    *("ConnectionError", "ReadTimeout", "ChunkedEncodingError", "ProtocolError"),
    *("key", "json", "reset", "slow"),
]


def told(error: BaseException) -> str:
    """Return a message once it is one line without address, token or name of a class."""
    text = str(error)
    assert "\n" not in text
    for word in ("://", "Signature", "storage.example", "upload_id", "Error("):
        assert word not in text
    return text


# Questions


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_question_is_asked_again_where_kaggle_cannot_answer_now(
    status: int, clock: Stopwatch
) -> None:
    line = Line(failed(status), failed(status), "answer")
    assert retry.read(clock, "limits", line) == "answer"
    assert (line.called, clock.time) == (3, 2.0 + 4.0)


@pytest.mark.parametrize("name", LOST)
def test_a_question_is_asked_again_where_the_answer_is_lost(name: str, clock: Stopwatch) -> None:
    line = Line(lost(name), "answer")
    assert retry.read(clock, "limits", line) == "answer"
    assert line.called == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_no_is_an_answer_and_is_not_asked_for_again(status: int, clock: Stopwatch) -> None:
    line = Line(failed(status, "Not now"))
    with pytest.raises(KaggleRejected) as caught:
        retry.read(clock, "limits", line)
    assert told(caught.value).startswith(f"limits: Kaggle says 'Not now' ({status})")
    assert (line.called, clock.time) == (1, 0)


@pytest.mark.parametrize("one", [failed(503), failed(429), lost("ReadTimeout"), lost("key")])
def test_a_question_has_an_end(one: Exception, clock: Stopwatch) -> None:
    line = Line(*[one] * 20)
    with pytest.raises(OutcomeUnknown, match=r"^limits: .*, 6 times; try again later$") as caught:
        retry.read(clock, "limits", line)
    told(caught.value)
    assert (line.called, clock.time) == (retry.TRIES, 2.0 + 4 + 8 + 16 + 32)


def test_what_is_not_there_is_none_and_nothing_else_is(clock: Stopwatch) -> None:
    for status in (403, 404):
        assert retry.ask_for(clock, "kernel", Line(failed(status))) is None
    inside = failed(200, "Gone", {"code": 404, "message": "Gone"})
    assert retry.ask_for(clock, "kernel", Line(inside)) is None
    assert retry.ask_for(clock, "kernel", Line(failed(503), "there")) == "there"
    with pytest.raises(KaggleRejected, match=r"^kernel: Kaggle answers 401; run: invoke doctor$"):
        retry.ask_for(clock, "kernel", Line(failed(401)))
    with pytest.raises(OutcomeUnknown):
        retry.ask_for(clock, "kernel", Line(*[failed(500)] * 6))


@pytest.mark.parametrize("call", [retry.read, retry.ask_for, retry.write])
def test_a_mistake_of_our_own_is_not_taken_for_kaggles(call: Any, clock: Stopwatch) -> None:
    with pytest.raises(ZeroDivisionError):
        call(clock, "limits", Line(ZeroDivisionError()))
    with pytest.raises(KeyboardInterrupt):
        call(clock, "limits", Line(KeyboardInterrupt()))


# How long


@pytest.mark.parametrize(
    ("asked", "seconds"),
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
def test_kaggle_says_how_long_to_wait_within_reason(
    call: Any, asked: str, seconds: float, clock: Stopwatch
) -> None:
    headers = {"Retry_After": asked} if asked else {}
    assert call(clock, "limits", Line(failed(429, **headers), "answer")) == "answer"
    assert clock.time == seconds


def test_kaggle_may_say_when(clock: Stopwatch) -> None:
    soon = format_datetime(datetime.now(tz=UTC) + timedelta(seconds=90), usegmt=True)
    retry.read(clock, "limits", Line(failed(429, Retry_After=soon), "answer"))
    assert 80 < clock.time <= 90


# What changes something


def test_what_changes_something_is_repeated_where_kaggle_did_not_take_it(clock: Stopwatch) -> None:
    line = Line(failed(429), failed(429, Retry_After="9"), "reply")
    assert retry.write(clock, "push", line) == "reply"
    assert (line.called, clock.time) == (3, 2.0 + 9.0)


def test_it_is_not_repeated_for_ever(clock: Stopwatch) -> None:
    line = Line(*[failed(429, Retry_After="1")] * 20)
    with pytest.raises(KaggleRejected) as caught:
        retry.write(clock, "push", line)
    end = "wait some minutes, then the same command"
    assert told(caught.value) == f"push: Kaggle answers 429; {end}"
    assert (line.called, clock.time) == (retry.TRIES, 5.0)


@pytest.mark.parametrize("one", [failed(500), failed(503), *map(lost, LOST)])
def test_what_may_have_been_taken_is_said_once(one: Exception, clock: Stopwatch) -> None:
    line = Line(one, "never")
    with pytest.raises(OutcomeUnknown, match=r"; whether Kaggle took it is not known$") as caught:
        retry.write(clock, "push", line)
    assert told(caught.value).startswith("push: ")
    assert (line.called, clock.time) == (1, 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_what_was_not_taken_is_refused(status: int, clock: Stopwatch) -> None:
    line = Line(failed(status), "never")
    with pytest.raises(KaggleRejected, match=f"^push: Kaggle answers {status}"):
        retry.write(clock, "push", line)
    assert (line.called, clock.time) == (1, 0)


# A code in a 200


@pytest.mark.parametrize("call", [retry.read, retry.write])
def test_a_no_inside_a_yes_is_a_no(call: Any, clock: Stopwatch) -> None:
    line = Line(failed(200, "Not yours", {"code": 403, "message": "Not yours"}))
    with pytest.raises(
        KaggleRejected, match=r"^push: Kaggle says 'Not yours' \(403\); is it yours"
    ):
        call(clock, "push", line)
    assert line.called == 1


def test_too_many_inside_a_yes_is_too_many(clock: Stopwatch) -> None:
    many = failed(200, "Slowly", {"code": 429, "message": "Slowly"})
    assert retry.write(clock, "push", Line(many, "reply")) == "reply"
    assert retry.read(clock, "push", Line(many, "reply")) == "reply"


@pytest.mark.parametrize("body", [None, [], {}, {"code": None}, {"code": "many"}])
def test_a_200_that_tells_no_code_is_one(body: Any, clock: Stopwatch) -> None:
    with pytest.raises(KaggleRejected, match=r"Kaggle says 'Odd' \(200\)$"):
        retry.write(clock, "push", Line(failed(200, "Odd", body)))


# What is told


def test_each_refusal_says_what_most_often_mends_it() -> None:
    hints = {
        400: "",
        401: "; run: invoke doctor",
        403: "; is it yours, and were the competition's rules accepted?",
        429: "; wait some minutes, then the same command",
    }
    for status, hint in hints.items():
        said = str(retry.refusal("push", failed(status, "Words.")))
        assert said == f"push: Kaggle says 'Words' ({status}){hint}"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (failed(403), "Kaggle answers 403"),
        (failed(403, f"See {ADDRESS} for\nmore."), "Kaggle says 'See … for more' (403)"),
        (failed(403, f"'{ADDRESS}'"), "(403)"),
        (lost("ConnectionError"), "the connection was lost"),
        (lost("ChunkedEncodingError"), "the connection was lost"),
        (lost("ReadTimeout"), "no answer in time"),
        (lost("ConnectTimeout"), "no answer in time"),
        (lost("slow"), "no answer in time"),
        (lost("reset"), "the connection was lost"),
        (lost("json"), "the answer was not understood"),
        (lost("key"), "the answer was not understood"),
    ],
)
def test_no_address_and_no_token_is_told(error: Exception, said: str) -> None:
    assert said in told(retry.refusal("push", error))


@pytest.mark.parametrize("call", [retry.read, retry.write])
def test_what_the_client_prints_is_heard_by_nobody(
    call: Any, clock: Stopwatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty() -> None:
        sys.stdout.write(f"Downloaded from {ADDRESS}")
        sys.stderr.write(f"Request failed: {ADDRESS}")
        raise lost("ConnectionError")

    with pytest.raises(OutcomeUnknown):
        call(clock, "push", chatty)
    sys.stdout.write("ours")
    assert capsys.readouterr() == ("ours", "")


# The real client's own errors


@pytest.mark.parametrize(
    ("effect", "kind", "said"),
    [
        (Reply(200, {"code": 400, "message": f"No, {ADDRESS}"}), KaggleRejected, "'No, …' (400)"),
        (Reply(401), KaggleRejected, "Kaggle answers 401; run: invoke doctor"),
        (Reply(500, {"code": 500, "message": "Oh"}), OutcomeUnknown, "'Oh' (500), 6 times"),
        (Reply(200), OutcomeUnknown, "the answer was not understood, 6 times"),
        (
            Reply(200, {"status": "NEW_WORD"}),
            OutcomeUnknown,
            "the answer was not understood, 6 times",
        ),
    ],
)
def test_the_real_clients_errors_are_told_in_our_words(
    effect: Reply, kind: type[ParityError], said: str, door: KaggleClient, standin: StandIn
) -> None:
    standin.inject_faults(Fault(("GetKernelSessionStatus",), effect, times=9))
    with pytest.raises(kind) as caught:
        door.kernels.status("me/small-kernel", 1)
    assert said in told(caught.value)
