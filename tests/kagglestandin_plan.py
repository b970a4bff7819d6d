"""When something goes wrong between a client and the stand-in, and in which way.

A fault names places (an RPC's method; PUT and QUERY of an upload; OUTPUT, a kernel's file; LOG, its
stream; or EVERY), the calls that it takes (the `at`th, and `times` in a row), and an effect. Where
several would take one call, the first does and the others wait for the next.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kagglestandin import Kaggle
from kagglestandin_state import Json

EVERY = "EVERY"


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer this, and do nothing. `retry_after` "date" is the HTTP date in two seconds."""

    status: int
    body: Json = field(default_factory=dict)
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection; `committed` says whether the call is carried out before."""

    committed: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answer; the connection stays open until the stand-in closes."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Take half of a PUT's bytes, then answer `status`, or close the connection if it is 0."""

    status: int = 0


@dataclass(frozen=True, slots=True)
class Short:
    """Send half of a file or log whose whole length is promised."""


@dataclass(frozen=True, slots=True)
class Empty:
    """Send a file of no bytes."""


def _as_is(kaggle: Kaggle, body: Json) -> None: ...


def _unchanged(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    return reply


@dataclass(frozen=True, slots=True)
class Twist:
    """Change state or request `before` a call is carried out, state or reply `after` it."""

    before: Callable[[Kaggle, Json], None] = _as_is
    after: Callable[[Kaggle, Json, Json], Json] = _unchanged


Effect = Reply | Drop | Hang | Cut | Short | Empty | Twist


@dataclass(frozen=True, slots=True)
class Fault:
    """Calls `at` to `at + times - 1` of those at the places `where` have the effect."""

    where: tuple[str, ...]
    effect: Effect
    at: int = 1
    times: int = 1


@dataclass(frozen=True, slots=True)
class Fired:
    """What happens to one call: its twists, at most one effect more, and the faults' names."""

    twists: tuple[Twist, ...]
    effect: Effect | None
    names: tuple[str, ...]


class Plan:
    """The faults of one stand-in, and how many calls each has seen."""

    def __init__(self) -> None:
        self._active: list[tuple[str, Fault]] = []
        self._seen: dict[int, int] = {}

    def add(self, name: str, faults: Iterable[Fault]) -> None:
        """Let these faults fire from the next call on, after those added before."""
        self._active += [(name, fault) for fault in faults]

    def clear(self) -> None:
        """Let no fault fire any more."""
        self._active.clear()
        self._seen.clear()

    def fire(self, place: str) -> Fired:
        """Return what happens to a call at this place."""
        twists: list[Twist] = []
        names: list[str] = []
        for index, (name, fault) in enumerate(self._active):
            if place not in fault.where and fault.where != (EVERY,):
                continue
            seen = self._seen[index] = self._seen.get(index, 0) + 1
            if not fault.at <= seen < fault.at + fault.times:
                continue
            names.append(name)
            if not isinstance(fault.effect, Twist):
                return Fired(tuple(twists), fault.effect, tuple(names))
            twists.append(fault.effect)
        return Fired(tuple(twists), None, tuple(names))
