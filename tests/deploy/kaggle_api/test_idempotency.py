"""A write request is sent once, even if a reply, the connection or this process is lost."""

import contextlib
from pathlib import Path

import pytest
from deploy.kaggle_api.end_to_end import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.idempotency import GRACE, ensure_once, find_existing
from parity.run.errors import KaggleRejected, Mismatch, OutcomeUnknown, RunFailed

CREATED = 7
"""What Kaggle creates."""


class World:
    """A Kaggle that shows what it accepted `late` seconds later, and records all requests.

    `request_error` is raised by a request, `verify_error` by its verification.
    """

    def __init__(self, clock: FakeClock, mark: Path) -> None:
        self.clock, self.mark = clock, mark
        self.late = 0.0
        self.accepts = True
        self.request_error: BaseException | None = None
        self.verify_error: BaseException | None = None
        self.requests: list[float] = []
        self.accepted: list[float] = []

    def look(self) -> int | None:
        return CREATED if any(self.clock.time >= at + self.late for at in self.accepted) else None

    def create(self) -> int:
        assert self.mark.is_file(), "requested without a mark"
        self.requests.append(self.clock.time)
        if self.accepts:
            self.accepted.append(self.clock.time)
        if self.request_error is not None:
            raise self.request_error
        return CREATED

    def verify(self, created: int) -> None:
        assert created == CREATED
        assert self.mark.is_file(), "verified without a mark"
        if self.verify_error is not None:
            raise self.verify_error
        assert polling.poll_until(self.clock, self.look, 2 * GRACE) == CREATED

    def ensure_once(self) -> tuple[int, bool]:
        return ensure_once(self.clock, self.mark, self.look, self.create, self.verify)


@pytest.fixture
def world(clock: FakeClock, tmp_path: Path) -> World:
    return World(clock, tmp_path / "marks" / "thing.mark")


def test_a_request_is_sent_once_and_leaves_no_mark(world: World) -> None:
    assert world.ensure_once() == (CREATED, True)
    assert not world.mark.exists()
    assert world.ensure_once() == (CREATED, False)
    assert (len(world.requests), world.clock.time) == (1, 0)


def test_an_existing_result_sends_nothing_and_removes_the_mark(world: World) -> None:
    world.accepted.append(0)
    world.mark.parent.mkdir()
    world.mark.touch()
    assert world.ensure_once() == (CREATED, False)
    assert (world.requests, world.mark.exists()) == ([], False)


def test_a_killed_process_leaves_a_mark(world: World) -> None:
    world.request_error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.ensure_once()
    assert world.mark.is_file()


@pytest.mark.parametrize("late", [0.0, 1.0, GRACE - 1, GRACE])
def test_with_a_mark_the_accepted_request_is_found(late: float, world: World) -> None:
    world.request_error, world.late = KeyboardInterrupt(), late
    with pytest.raises(KeyboardInterrupt):
        world.ensure_once()
    world.request_error = None
    assert world.ensure_once() == (CREATED, False)
    assert (len(world.requests), world.mark.exists()) == (1, False)
    assert late <= world.clock.time <= GRACE


def test_with_a_mark_and_no_result_the_request_is_repeated_later(world: World) -> None:
    world.request_error, world.accepts = KeyboardInterrupt(), False  # killed before it was sent
    with pytest.raises(KeyboardInterrupt):
        world.ensure_once()
    world.request_error, world.accepts = None, True
    assert world.ensure_once() == (CREATED, True)
    assert world.requests == [0, GRACE]
    assert not world.mark.exists()


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        OutcomeUnknown("not ready in time"),
        KaggleRejected("not for you to see"),
    ],
)
def test_an_interrupted_verification_does_not_repeat_the_request(
    error: BaseException, world: World
) -> None:
    world.verify_error, world.late = error, 60
    with pytest.raises(type(error)):
        world.ensure_once()
    assert world.mark.is_file()
    world.verify_error = None
    assert world.ensure_once() == (CREATED, False)
    assert (len(world.requests), world.mark.exists()) == (1, False)


@pytest.mark.parametrize("error", [RunFailed("it failed"), Mismatch("created twice")])
def test_a_known_failure_leaves_no_mark(error: Exception, world: World) -> None:
    world.verify_error = error
    with pytest.raises(type(error)):
        world.ensure_once()
    assert not world.mark.exists()


def test_a_rejection_leaves_no_mark_and_does_not_wait(world: World) -> None:
    world.request_error, world.accepts = KaggleRejected("not now"), False
    with pytest.raises(KaggleRejected):
        world.ensure_once()
    assert not world.mark.exists()
    world.request_error, world.accepts = None, True
    assert world.ensure_once() == (CREATED, True)
    assert world.clock.time == 0


@pytest.mark.parametrize("late", [0.0, 3.0, GRACE])
def test_a_lost_reply_is_looked_up(late: float, world: World) -> None:
    world.request_error, world.late = OutcomeUnknown("connection lost"), late
    assert world.ensure_once() == (CREATED, True)
    assert (len(world.requests), world.mark.exists()) == (1, False)


def test_a_lost_reply_without_a_visible_result_is_unknown_and_marked(world: World) -> None:
    world.request_error, world.accepts = OutcomeUnknown("connection lost"), False
    with pytest.raises(OutcomeUnknown, match="connection lost"):
        world.ensure_once()
    assert world.mark.is_file()
    assert (len(world.requests), world.clock.time) == (1, GRACE)


def test_a_rejected_read_keeps_the_mark(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> int | None:
        if world.requests:
            raise KaggleRejected("not for you to see")
        return None

    world.request_error = OutcomeUnknown("connection lost")
    with monkeypatch.context() as patch:
        patch.setattr(world, "look", look)
        with pytest.raises(KaggleRejected):
            world.ensure_once()
    assert world.mark.is_file()
    assert world.ensure_once() == (CREATED, False)


def test_any_other_error_keeps_the_mark(world: World) -> None:
    world.request_error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        world.ensure_once()
    assert world.mark.is_file()


def test_two_requests_do_not_wait_for_each_other(clock: FakeClock, tmp_path: Path) -> None:
    first, second = (World(clock, tmp_path / f"{name}.mark") for name in ("first", "second"))
    first.request_error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        first.ensure_once()
    assert second.ensure_once() == (CREATED, True)
    assert (clock.time, first.mark.is_file()) == (0, True)


def test_find_existing_sends_nothing(world: World) -> None:
    assert find_existing(world.clock, world.mark, world.look) is None
    assert world.clock.time == 0
    world.accepted.append(0)
    assert find_existing(world.clock, world.mark, world.look) == CREATED
    world.accepted.clear()
    world.mark.parent.mkdir()
    world.mark.touch()
    assert find_existing(world.clock, world.mark, world.look) is None
    assert (world.clock.time, world.mark.exists()) == (GRACE, False)


REQUEST_ERRORS = st.sampled_from(
    [None, KeyboardInterrupt(), OutcomeUnknown("lost"), ZeroDivisionError()]
)
VERIFY_ERRORS = st.sampled_from(
    [None, KeyboardInterrupt(), OutcomeUnknown("late"), KaggleRejected("no")]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(REQUEST_ERRORS, st.booleans(), VERIFY_ERRORS), max_size=5),
    st.floats(0, GRACE - 1),
)
def test_any_sequence_of_interruptions_creates_one(
    tmp_path_factory: pytest.TempPathFactory,
    attempts: list[tuple[BaseException | None, bool, BaseException | None]],
    late: float,
) -> None:
    world = World(FakeClock(), tmp_path_factory.mktemp("marks") / "thing.mark")
    world.late = late
    for request_error, accepts, verify_error in attempts:
        refused = isinstance(verify_error, KaggleRejected)
        world.request_error = verify_error if refused else request_error
        world.accepts = not refused and (accepts or request_error is None)
        world.verify_error = verify_error
        with contextlib.suppress(
            KeyboardInterrupt, ZeroDivisionError, OutcomeUnknown, KaggleRejected
        ):
            world.ensure_once()
        assert len(world.accepted) <= 1
    world.request_error, world.verify_error, world.accepts = None, None, True
    assert world.ensure_once()[0] == CREATED
    assert len(world.accepted) == 1
