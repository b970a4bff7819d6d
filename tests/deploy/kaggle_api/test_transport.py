"""Lists are read to their last page and not for ever; a no inside a yes is a no."""

from types import SimpleNamespace
from typing import Any

import pytest
from deploy.kaggle_api.end_to_end import COMPETITION, Stopwatch
from kagglestandin_plan import Fault, Twist
from kagglestandin_server import StandIn

from parity.deploy.kaggle_api import transport
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.transport import Transport
from parity.run.errors import KaggleRejected, Mismatch


def test_all_pages_are_read_in_order(clock: Stopwatch) -> None:
    tokens = {"": "two", "two": "three", "three": ""}

    def call(asked: Any) -> Any:
        return SimpleNamespace(name=asked.page_token, next_page_token=tokens[asked.page_token])

    pages = Transport(None, clock).pages("files", call, SimpleNamespace(page_token=""))
    assert [page.name for page in pages] == ["", "two", "three"]


def test_a_list_without_an_end_is_not_read_for_ever(
    door: KaggleClient, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_PAGES", 5)

    def after(*call: Any) -> Any:
        return {**call[2], "nextPageToken": "0"}

    standin.inject_faults(Fault(("ListSubmissions",), Twist(after=after), times=99))
    words = f"^submissions to {COMPETITION}: more than 5 pages; Kaggle always names a further one$"
    with pytest.raises(Mismatch, match=words):
        door.competitions.held(COMPETITION)
    assert len(standin.sent("ListSubmissions")) == 5


def test_a_reply_that_says_nothing_is_a_yes() -> None:
    transport.fail_on("push", SimpleNamespace(error=""), ["invalid_tags"])
    transport.fail_on("push", SimpleNamespace(error=None, invalid_tags=[]), ["invalid_tags"])
    transport.fail_on(
        "publish", SimpleNamespace(error="", invalid_tags=["nlp"])
    )  # none was asked for


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"error": "Not now"}, "push: Kaggle says 'Not now'"),
        ({"error": "No:\n https://host/a?token=b"}, "push: Kaggle says 'No: …'"),
        ({"error": "", "invalid_model_sources": ["a/b", "c/d"]}, "invalid model sources: a/b, c/d"),
    ],
)
def test_a_no_inside_a_reply_is_refused_in_one_line(reply: dict[str, Any], said: str) -> None:
    with pytest.raises(KaggleRejected) as caught:
        transport.fail_on(
            "push", SimpleNamespace(**reply), ["invalid_tags", "invalid_model_sources"]
        )
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
