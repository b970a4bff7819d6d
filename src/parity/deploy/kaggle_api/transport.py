"""What the methods of the door share: the client, its types, pages, and a no inside a yes."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from parity.deploy.kaggle_api import retry
from parity.deploy.kaggle_api.clock import Clock
from parity.run.errors import KaggleRejected, Mismatch

PAGE = 200
"""Items asked for at once, the most that Kaggle gives."""
_PAGES = 1000  # of one list; a server that always names a next page is not followed for ever


class Transport:
    """The real client, logged in, and the clock that waiting on it goes by."""

    def __init__(self, api: Any, clock: Clock) -> None:
        """Talk through `api` and wait by `clock`."""
        self.api, self.clock = api, clock

    def client(self) -> Any:
        """Return the client's own context of one or more calls."""
        return self.api.build_kaggle_client()

    def pages(self, what: str, call: Any, asked: Any) -> Iterator[Any]:
        """Yield all pages of a list.

        Raises:
            Mismatch: it never ends.
        """
        for _ in range(_PAGES):
            page = retry.read(self.clock, what, lambda: call(asked))
            yield page
            if not page.next_page_token:
                return
            asked.page_token = page.next_page_token
        raise Mismatch(f"{what}: more than {_PAGES} pages; Kaggle always names a further one")


def types(module: str) -> Any:
    """Return a module of the client's request types, such as `datasets.types.…`."""
    return importlib.import_module(f"kagglesdk.{module}")


def fail_on(what: str, reply: Any, lists: Sequence[str] = ()) -> None:
    """Refuse a reply that says no inside, whatever its HTTP status.

    Args:
        what: what was told.
        reply: Kaggle's.
        lists: names of fields that have to be empty.

    Raises:
        Refused: `error` is set, or one of the lists is not empty.
    """
    if reply.error:
        raise KaggleRejected(f"{what}: Kaggle says {retry.plain(reply.error)!r}")
    for name in lists:
        if odd := list(getattr(reply, name, None) or []):
            raise KaggleRejected(f"{what}: {name.replace('_', ' ')}: {', '.join(map(str, odd))}")
