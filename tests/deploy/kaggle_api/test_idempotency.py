"""Whatever is lost, a reply, the connection or this process, Kaggle is told once."""

import contextlib
from pathlib import Path

import pytest
from deploy.kaggle_api.end_to_end import Stopwatch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.idempotency import GRACE, ensure_once, taken
from parity.run.errors import KaggleRejected, Mismatch, OutcomeUnknown, RunFailed

TOLD = 7
"""What Kaggle makes of it."""


class World:
    """Kaggle, which shows what it took `late` seconds after it took it, and how it was told.

    `fails` is raised when it is told, `odd` while it is waited for.
    """

    def __init__(self, clock: Stopwatch, mark: Path) -> None:
        self.clock, self.mark = clock, mark
        self.late = 0.0
        self.takes = True
        self.fails: BaseException | None = None
        self.odd: BaseException | None = None
        self.told: list[float] = []
        self.taken: list[float] = []

    def look(self) -> int | None:
        return TOLD if any(self.clock.time >= at + self.late for at in self.taken) else None

    def tell(self) -> int:
        assert self.mark.is_file(), "told without a mark"
        self.told.append(self.clock.time)
        if self.takes:
            self.taken.append(self.clock.time)
        if self.fails is not None:
            raise self.fails
        return TOLD

    def prove(self, made: int) -> None:
        assert made == TOLD
        assert self.mark.is_file(), "waited without a mark"
        if self.odd is not None:
            raise self.odd
        assert polling.poll_until(self.clock, self.look, 2 * GRACE) == TOLD

    def ensure_once(self) -> tuple[int, bool]:
        return ensure_once(self.clock, self.mark, self.look, self.tell, self.prove)


@pytest.fixture
def world(clock: Stopwatch, tmp_path: Path) -> World:
    return World(clock, tmp_path / "marks" / "thing.mark")


def test_it_is_told_once_and_no_mark_is_left(world: World) -> None:
    assert world.ensure_once() == (TOLD, True)
    assert not world.mark.exists()
    assert world.ensure_once() == (TOLD, False)
    assert (len(world.told), world.clock.time) == (1, 0)


def test_what_is_there_is_not_told_and_a_mark_is_taken_away(world: World) -> None:
    world.taken.append(0)
    world.mark.parent.mkdir()
    world.mark.touch()
    assert world.ensure_once() == (TOLD, False)
    assert (world.told, world.mark.exists()) == ([], False)


def test_a_process_that_is_killed_leaves_a_mark(world: World) -> None:
    world.fails = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.ensure_once()
    assert world.mark.is_file()


@pytest.mark.parametrize("late", [0.0, 1.0, GRACE - 1, GRACE])
def test_who_finds_a_mark_waits_for_what_was_taken(late: float, world: World) -> None:
    world.fails, world.late = KeyboardInterrupt(), late
    with pytest.raises(KeyboardInterrupt):
        world.ensure_once()
    world.fails = None
    assert world.ensure_once() == (TOLD, False)
    assert (len(world.told), world.mark.exists()) == (1, False)
    assert late <= world.clock.time <= GRACE


def test_who_finds_a_mark_and_nothing_else_tells_it_after_a_while(world: World) -> None:
    world.fails, world.takes = KeyboardInterrupt(), False  # killed before it was out
    with pytest.raises(KeyboardInterrupt):
        world.ensure_once()
    world.fails, world.takes = None, True
    assert world.ensure_once() == (TOLD, True)
    assert world.told == [0, GRACE]
    assert not world.mark.exists()


@pytest.mark.parametrize(
    "odd",
    [
        KeyboardInterrupt(),
        OutcomeUnknown("not ready in time"),
        KaggleRejected("not for you to see"),
    ],
)
def test_who_is_cut_off_while_it_is_waited_for_does_not_tell_it_again(
    odd: BaseException, world: World
) -> None:
    world.odd, world.late = odd, 60
    with pytest.raises(type(odd)):
        world.ensure_once()
    assert world.mark.is_file()
    world.odd = None
    assert world.ensure_once() == (TOLD, False)
    assert (len(world.told), world.mark.exists()) == (1, False)


@pytest.mark.parametrize("odd", [RunFailed("it failed"), Mismatch("made twice")])
def test_what_is_known_to_have_gone_wrong_leaves_no_mark(odd: Exception, world: World) -> None:
    world.odd = odd
    with pytest.raises(type(odd)):
        world.ensure_once()
    assert not world.mark.exists()


def test_a_refusal_leaves_no_mark_and_nobody_waits(world: World) -> None:
    world.fails, world.takes = KaggleRejected("not now"), False
    with pytest.raises(KaggleRejected):
        world.ensure_once()
    assert not world.mark.exists()
    world.fails, world.takes = None, True
    assert world.ensure_once() == (TOLD, True)
    assert world.clock.time == 0


@pytest.mark.parametrize("late", [0.0, 3.0, GRACE])
def test_a_lost_reply_is_looked_up(late: float, world: World) -> None:
    world.fails, world.late = OutcomeUnknown("the connection was lost"), late
    assert world.ensure_once() == (TOLD, True)
    assert (len(world.told), world.mark.exists()) == (1, False)


def test_a_lost_reply_of_what_does_not_show_is_unknown_and_marked(world: World) -> None:
    world.fails, world.takes = OutcomeUnknown("the connection was lost"), False
    with pytest.raises(OutcomeUnknown, match="the connection was lost"):
        world.ensure_once()
    assert world.mark.is_file()
    assert (len(world.told), world.clock.time) == (1, GRACE)


def test_a_no_to_the_question_is_no_word_of_what_was_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> int | None:
        if world.told:
            raise KaggleRejected("not for you to see")
        return None

    world.fails = OutcomeUnknown("the connection was lost")
    with monkeypatch.context() as patch:
        patch.setattr(world, "look", look)
        with pytest.raises(KaggleRejected):
            world.ensure_once()
    assert world.mark.is_file()
    assert world.ensure_once() == (TOLD, False)


def test_whatever_else_goes_wrong_leaves_the_mark(world: World) -> None:
    world.fails = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        world.ensure_once()
    assert world.mark.is_file()


def test_two_things_do_not_wait_for_each_other(clock: Stopwatch, tmp_path: Path) -> None:
    one, other = (World(clock, tmp_path / f"{name}.mark") for name in ("one", "other"))
    one.fails = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        one.ensure_once()
    assert other.ensure_once() == (TOLD, True)
    assert (clock.time, one.mark.is_file()) == (0, True)


def test_what_was_taken_is_found_without_telling(world: World) -> None:
    assert taken(world.clock, world.mark, world.look) is None
    assert world.clock.time == 0
    world.taken.append(0)
    assert taken(world.clock, world.mark, world.look) == TOLD
    world.taken.clear()
    world.mark.parent.mkdir()
    world.mark.touch()
    assert taken(world.clock, world.mark, world.look) is None
    assert (world.clock.time, world.mark.exists()) == (GRACE, False)


CUT = st.sampled_from([None, KeyboardInterrupt(), OutcomeUnknown("lost"), ZeroDivisionError()])
ANSWERED = st.sampled_from(
    [None, KeyboardInterrupt(), OutcomeUnknown("late"), KaggleRejected("no")]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CUT, st.booleans(), ANSWERED), max_size=5), st.floats(0, GRACE - 1))
def test_whenever_it_is_cut_off_it_is_taken_once(
    tmp_path_factory: pytest.TempPathFactory,
    ways: list[tuple[BaseException | None, bool, BaseException | None]],
    late: float,
) -> None:
    world = World(Stopwatch(), tmp_path_factory.mktemp("marks") / "thing.mark")
    world.late = late
    for fails, takes, odd in ways:
        refused = isinstance(odd, KaggleRejected)
        world.fails = odd if refused else fails
        world.takes = not refused and (takes or fails is None)
        world.odd = odd
        with contextlib.suppress(
            KeyboardInterrupt, ZeroDivisionError, OutcomeUnknown, KaggleRejected
        ):
            world.ensure_once()
        assert len(world.taken) <= 1
    world.fails, world.odd, world.takes = None, None, True
    assert world.ensure_once()[0] == TOLD
    assert len(world.taken) == 1
