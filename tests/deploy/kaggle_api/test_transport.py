"""Paging has a limit, and an error inside a successful reply is a rejection."""

from types import SimpleNamespace
from typing import Any

import pytest
from deploy.kaggle_api.end_to_end import COMPETITION, FakeClock
from kagglestandin_plan import Fault, Hook
from kagglestandin_server import StandIn

from parity.deploy.kaggle_api import transport
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.transport import Transport
from parity.run.errors import KaggleRejected, Mismatch


def test_all_pages_are_read_in_order(clock: FakeClock) -> None:
    tokens = {"": "two", "two": "three", "three": ""}

    def call(request: Any) -> Any:
        return SimpleNamespace(name=request.page_token, next_page_token=tokens[request.page_token])

    pages = Transport(None, clock).pages("files", call, SimpleNamespace(page_token=""))
    assert [page.name for page in pages] == ["", "two", "three"]


def test_a_list_without_an_end_is_an_error(
    client: KaggleClient, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_PAGES", 5)

    def after(*call: Any) -> Any:
        return {**call[2], "nextPageToken": "0"}

    standin.inject_faults(Fault(("ListSubmissions",), Hook(after=after), times=99))
    words = (
        f"^submissions to {COMPETITION}: more than 5 pages; Kaggle keeps sending a next page token$"
    )
    with pytest.raises(Mismatch, match=words):
        client.competitions.list_submissions(COMPETITION)
    assert len(standin.sent("ListSubmissions")) == 5


def test_a_reply_without_an_error_passes() -> None:
    transport.check_reply("push", SimpleNamespace(error=""), ["invalid_tags"])
    transport.check_reply("push", SimpleNamespace(error=None, invalid_tags=[]), ["invalid_tags"])
    transport.check_reply(
        "publish", SimpleNamespace(error="", invalid_tags=["nlp"])
    )  # this field is not checked


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"error": "Not now"}, "push: Kaggle says 'Not now'"),
        ({"error": "No:\n https://host/a?token=b"}, "push: Kaggle says 'No: …'"),
        ({"error": "", "invalid_model_sources": ["a/b", "c/d"]}, "invalid model sources: a/b, c/d"),
    ],
)
def test_an_error_inside_a_reply_is_reported_in_one_line(
    reply: dict[str, Any], message: str
) -> None:
    with pytest.raises(KaggleRejected) as error:
        transport.check_reply(
            "push", SimpleNamespace(**reply), ["invalid_tags", "invalid_model_sources"]
        )
    assert message in str(error.value)
    assert "\n" not in str(error.value)
