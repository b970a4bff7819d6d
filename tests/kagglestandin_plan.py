"""Faults between a client and the stand-in for Kaggle, and the plan that fires them.

A fault has endpoints (a method of an RPC; PUT and QUERY of an upload; OUTPUT, a file; LOG, a
stream; or EVERY), the calls that it affects (the `at`th, and `times` in a row), and an effect. If
several faults apply to one call, the first fires and the next ones wait for the following call.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kagglestandin import Kaggle
from kagglestandin_state import Json

EVERY = "EVERY"


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this reply and do nothing else; `retry_after` "date" is the HTTP date in two seconds."""

    status: int
    body: Json = field(default_factory=dict)
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection; `committed` says whether the call is carried out first."""

    committed: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """Never reply; the connection stays open until the stand-in closes."""


@dataclass(frozen=True, slots=True)
class HalfPut:
    """Receive half of a PUT, then reply with `status`, or close the connection if it is 0."""

    status: int = 0


@dataclass(frozen=True, slots=True)
class HalfGet:
    """Send half of a file or log, with the full Content-Length."""


@dataclass(frozen=True, slots=True)
class Empty:
    """Send an empty file."""


def _no_change(kaggle: Kaggle, body: Json) -> None: ...


def _unchanged(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    return reply


@dataclass(frozen=True, slots=True)
class Hook:
    """Change the state or request `before` a call is carried out, the state or reply `after` it."""

    before: Callable[[Kaggle, Json], None] = _no_change
    after: Callable[[Kaggle, Json, Json], Json] = _unchanged


Effect = Reply | Drop | Hang | HalfPut | HalfGet | Empty | Hook


@dataclass(frozen=True, slots=True)
class Fault:
    """An effect on calls `at` to `at + times - 1` to these endpoints."""

    endpoints: tuple[str, ...]
    effect: Effect
    at: int = 1
    times: int = 1


@dataclass(frozen=True, slots=True)
class Fired:
    """The effects on one call: its hooks, at most one other effect, and the faults' names."""

    hooks: tuple[Hook, ...]
    effect: Effect | None
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A received call.

    Attributes:
        endpoint: an RPC's method, PUT, QUERY, OUTPUT or LOG.
        body: an RPC's JSON, otherwise values from URL and headers.
        status: HTTP status of the reply, 0 if there was none.
        faults: names of the faults that fired.
    """

    endpoint: str
    body: Json
    status: int
    faults: tuple[str, ...] = ()


class Plan:
    """The active faults of a stand-in, and how many calls each has seen."""

    def __init__(self) -> None:
        self._active: list[tuple[str, Fault]] = []
        self._seen: dict[int, int] = {}

    def add(self, name: str, faults: Iterable[Fault]) -> None:
        """Activate these faults from the next call on, after those added before."""
        self._active += [(name, fault) for fault in faults]

    def clear(self) -> None:
        """Deactivate all faults."""
        self._active.clear()
        self._seen.clear()

    def fire(self, endpoint: str) -> Fired:
        """Return the effects on a call to this endpoint."""
        hooks: list[Hook] = []
        names: list[str] = []
        for index, (name, fault) in enumerate(self._active):
            if endpoint not in fault.endpoints and fault.endpoints != (EVERY,):
                continue
            seen = self._seen[index] = self._seen.get(index, 0) + 1
            if not fault.at <= seen < fault.at + fault.times:
                continue
            names.append(name)
            if not isinstance(fault.effect, Hook):
                return Fired(tuple(hooks), fault.effect, tuple(names))
            hooks.append(fault.effect)
        return Fired(tuple(hooks), None, tuple(names))
