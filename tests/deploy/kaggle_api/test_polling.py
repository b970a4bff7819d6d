"""Polling looks at once, then less and less often, and a last time when the budget is spent."""

import itertools

import pytest
from deploy.kaggle_api.end_to_end import FakeClock

from parity.deploy.kaggle_api import polling
from parity.run.errors import RunFailed


class Looks:
    """Returns a result from the `at`th look on, and records when it looked."""

    def __init__(self, clock: FakeClock, at: float) -> None:
        self.clock, self.at = clock, at
        self.times: list[float] = []

    def __call__(self) -> str | None:
        self.times.append(self.clock.time)
        return "found" if len(self.times) >= self.at else None


NEVER = float("inf")


def test_the_first_look_is_immediate(clock: FakeClock) -> None:
    looks = Looks(clock, 1)
    assert polling.poll_until(clock, looks, 600) == "found"
    assert looks.times == [0]


def test_pauses_grow_up_to_a_limit(clock: FakeClock) -> None:
    looks = Looks(clock, 40)
    assert polling.poll_until(clock, looks, 36000) == "found"
    pauses = [after - before for before, after in itertools.pairwise(looks.times)]
    assert pauses[:3] == [5.0, 7.5, 11.25]
    assert pauses == sorted(pauses)
    assert pauses[-1] == polling.LONGEST


@pytest.mark.parametrize("seconds", [1, 5, 12, 60, 1800])
def test_the_last_look_is_when_the_budget_is_spent(seconds: float, clock: FakeClock) -> None:
    looks = Looks(clock, NEVER)
    assert polling.poll_until(clock, looks, seconds) is None
    assert looks.times[-1] == clock.time == seconds


@pytest.mark.parametrize("seconds", [0, -1])
def test_without_a_budget_it_looks_once(seconds: float, clock: FakeClock) -> None:
    looks = Looks(clock, NEVER)
    assert polling.poll_until(clock, looks, seconds) is None
    assert looks.times == [0]


def test_the_time_of_a_look_counts(clock: FakeClock) -> None:
    times: list[float] = []

    def slow() -> None:
        times.append(clock.time)
        clock.sleep(50)

    assert polling.poll_until(clock, slow, 100) is None
    assert times == [0, 55]


def test_a_falsy_result_counts(clock: FakeClock) -> None:
    assert polling.poll_until(clock, lambda: 0, 100) == 0
    assert clock.time == 0


def test_an_error_ends_the_polling(clock: FakeClock) -> None:
    def fails() -> None:
        raise RunFailed("it failed")

    with pytest.raises(RunFailed):
        polling.poll_until(clock, fails, 100)
    assert clock.time == 0
