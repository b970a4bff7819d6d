"""Waiting looks at once, then ever less often, a last time at the end, and has an end."""

import itertools

import pytest
from deploy.kaggle_api.end_to_end import Stopwatch

from parity.deploy.kaggle_api import polling
from parity.run.errors import RunFailed


class Looks:
    """Finds something from the `at`th look on, and notes when it looked."""

    def __init__(self, clock: Stopwatch, at: float) -> None:
        self.clock, self.at = clock, at
        self.when: list[float] = []

    def __call__(self) -> str | None:
        self.when.append(self.clock.time)
        return "found" if len(self.when) >= self.at else None


NEVER = float("inf")


def test_what_is_there_is_found_without_waiting(clock: Stopwatch) -> None:
    looks = Looks(clock, 1)
    assert polling.poll_until(clock, looks, 600) == "found"
    assert looks.when == [0]


def test_it_looks_ever_less_often_but_not_seldom(clock: Stopwatch) -> None:
    looks = Looks(clock, 40)
    assert polling.poll_until(clock, looks, 36000) == "found"
    pauses = [after - before for before, after in itertools.pairwise(looks.when)]
    assert pauses[:3] == [5.0, 7.5, 11.25]
    assert pauses == sorted(pauses)
    assert pauses[-1] == polling.LONGEST


@pytest.mark.parametrize("seconds", [1, 5, 12, 60, 1800])
def test_it_looks_a_last_time_when_the_time_is_up(seconds: float, clock: Stopwatch) -> None:
    looks = Looks(clock, NEVER)
    assert polling.poll_until(clock, looks, seconds) is None
    assert looks.when[-1] == clock.time == seconds


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_is_one_look(seconds: float, clock: Stopwatch) -> None:
    looks = Looks(clock, NEVER)
    assert polling.poll_until(clock, looks, seconds) is None
    assert looks.when == [0]


def test_looking_takes_time_too(clock: Stopwatch) -> None:
    when: list[float] = []

    def slow() -> None:
        when.append(clock.time)
        clock.sleep(50)

    assert polling.poll_until(clock, slow, 100) is None
    assert when == [0, 55]


def test_what_is_false_is_found(clock: Stopwatch) -> None:
    assert polling.poll_until(clock, lambda: 0, 100) == 0
    assert clock.time == 0


def test_an_error_ends_the_waiting(clock: Stopwatch) -> None:
    def fails() -> None:
        raise RunFailed("it ended badly")

    with pytest.raises(RunFailed):
        polling.poll_until(clock, fails, 100)
    assert clock.time == 0
