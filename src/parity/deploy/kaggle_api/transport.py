"""Helpers shared by all Kaggle calls: the client, its types, paging, and errors inside replies."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from parity.deploy.kaggle_api import retry
from parity.deploy.kaggle_api.clock import Clock
from parity.run.errors import KaggleRejected, Mismatch

PAGE = 200
"""Items per page, Kaggle's maximum."""
_PAGES = 1000  # most pages of one list: a broken server may always send a next page token


class Transport:
    """The official client, logged in, and the clock for waiting on it."""

    def __init__(self, api: Any, clock: Clock) -> None:
        """Wrap `api`; wait by `clock`."""
        self.api, self.clock = api, clock

    def client(self) -> Any:
        """Return the official client's context manager for one or more calls."""
        return self.api.build_kaggle_client()

    def pages(self, label: str, call: Any, request: Any) -> Iterator[Any]:
        """Yield all pages of a list.

        Raises:
            Mismatch: the list has too many pages.
        """
        for _ in range(_PAGES):
            page = retry.read(self.clock, label, lambda: call(request))
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
        raise Mismatch(f"{label}: more than {_PAGES} pages; Kaggle keeps sending a next page token")


def request_types(module: str) -> Any:
    """Return a module of the client's request types, such as `datasets.types.…`."""
    return importlib.import_module(f"kagglesdk.{module}")


def check_reply(label: str, reply: Any, lists: Sequence[str] = ()) -> None:
    """Raise an error if a reply reports one even with HTTP status 200.

    Args:
        label: description of the request, for messages.
        reply: Kaggle's reply.
        lists: names of reply fields that must be empty.

    Raises:
        KaggleRejected: `error` is set, or one of the lists is not empty.
    """
    if reply.error:
        raise KaggleRejected(f"{label}: Kaggle says {retry.strip_addresses(reply.error)!r}")
    for name in lists:
        if items := list(getattr(reply, name, None) or []):
            values = ", ".join(map(str, items))
            raise KaggleRejected(f"{label}: {name.replace('_', ' ')}: {values}")
