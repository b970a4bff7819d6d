"""One submission for one key, whatever was lost, and none where none is left."""

import re
from pathlib import Path

import pytest
from deploy.kaggle_api.end_to_end import COMPETITION, Stopwatch
from kagglestandin import Kaggle
from kagglestandin_plan import Drop, Fault, Reply, Twist
from kagglestandin_server import StandIn
from kagglestandin_state import Json, Kernel, Saved, Submission, submits

from parity.deploy.kaggle_api import competitions, submit
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.follow import Version
from parity.deploy.kaggle_api.idempotency import GRACE
from parity.deploy.kaggle_api.submit import Submitted
from parity.run.errors import KaggleRejected, OutcomeUnknown

REF = "me/small-kernel"
ONE = Version(REF, 1)
KEY = "kp1:01234567:v1"


@pytest.fixture(autouse=True)
def _done(standin: StandIn) -> None:
    """Let there be three versions whose runs ended well."""
    made = [Saved(n, {"slug": REF}, {}, {}, [], "", result=submits({}, {})) for n in (1, 2, 3)]
    standin.kaggle.kernels[REF] = Kernel(1, REF, made)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def earlier(standin: StandIn, *keys: str) -> None:
    """Let there be older submissions, the first the oldest."""
    standin.kaggle.competitions[COMPETITION].daily = 200
    for ref, key in enumerate(keys, start=1):
        when, scores = "2026-01-01T00:00:00.000Z", ("0.5", "")
        one = Submission(ref, COMPETITION, REF, 1, "submission.csv", key, when, scores, 0)
        standin.kaggle.submissions.append(one)


def made(standin: StandIn) -> int:
    return len(standin.sent("CreateCodeSubmission"))


# The key


def test_a_key_names_the_bundle_and_the_version() -> None:
    bundles, versions = ("ab" * 32, "cd" * 32), (1, 2, 12)
    keys = {submit.key_of(bundle, version) for bundle in bundles for version in versions}
    assert len(keys) == 6
    assert all(re.fullmatch(r"kp1:[0-9a-f]{8}:v\d+", key) for key in keys)


def test_the_key_is_the_description_and_the_file_is_named(
    door: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    submit.submit(door, COMPETITION, Version(REF, 2), KEY, scratch)
    assert standin.sent("CreateCodeSubmission") == [
        {
            "competitionName": COMPETITION,
            "kernelOwner": "me",
            "kernelSlug": "small-kernel",
            "kernelVersion": 2,
            "fileName": "submission.csv",
            "submissionDescription": KEY,
        }
    ]


# Once


def test_it_is_never_submitted_twice(door: KaggleClient, standin: StandIn, scratch: Path) -> None:
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch) == Submitted(1001, KEY, sent=True)
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch) == Submitted(1001, KEY, sent=False)
    assert made(standin) == 1
    assert list(scratch.iterdir()) == []


def test_another_version_is_another_submission(
    door: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    keys = [submit.key_of("ab" * 32, number) for number in (1, 2, 1)]
    found = [submit.submit(door, COMPETITION, ONE, key, scratch).ref for key in keys]
    assert found == [1001, 1002, 1001]


def test_one_that_is_there_is_found_on_a_later_page(
    door: KaggleClient, standin: StandIn, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(competitions, "PAGE", 3)
    earlier(standin, KEY, *[f"by hand {number}" for number in range(10)])
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch) == Submitted(1, KEY, sent=False)
    assert (made(standin), len(standin.sent("ListSubmissions"))) == (0, 4)


@pytest.mark.parametrize("like", [f"{KEY}2", f"x{KEY}", KEY[:-1], "", KEY.upper()])
def test_a_key_that_is_only_like_it_is_another(
    like: str, door: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    earlier(standin, like)
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch).sent


def test_a_lost_reply_makes_one(door: KaggleClient, standin: StandIn, scratch: Path) -> None:
    standin.inject_faults(Fault(("CreateCodeSubmission",), Drop(committed=True)))
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch) == Submitted(1001, KEY, sent=True)
    assert (made(standin), len(standin.kaggle.submissions)) == (1, 1)


def test_one_that_was_lost_on_the_way_is_unknown_and_made_by_the_next(
    door: KaggleClient, standin: StandIn, scratch: Path, clock: Stopwatch
) -> None:
    standin.inject_faults(Fault(("CreateCodeSubmission",), Drop()))
    with pytest.raises(
        OutcomeUnknown, match=f"^submit {REF} version 1: the connection was lost; whether"
    ):
        submit.submit(door, COMPETITION, ONE, KEY, scratch)
    begun = clock.time
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch).sent
    assert clock.time - begun >= GRACE
    assert len(standin.kaggle.submissions) == 1


def late(shows: int) -> Fault:
    """Let the next lists of submissions be empty, as many as given."""

    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        return {**reply, "submissions": []}

    return Fault(("ListSubmissions",), Twist(after=after), times=shows)


def test_one_that_shows_late_is_not_made_again(
    door: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    standin.inject_faults(late(5))
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch).sent
    assert not submit.submit(door, COMPETITION, ONE, KEY, scratch).sent
    assert made(standin) == 1


def test_one_that_does_not_show_is_unknown_and_then_found(
    door: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    standin.inject_faults(late(99))
    words = rf"^submission 1001 \({KEY}\) does not show; the same command looks again$"
    with pytest.raises(OutcomeUnknown, match=words):
        submit.submit(door, COMPETITION, ONE, KEY, scratch)
    standin.calm()
    standin.inject_faults(late(5))
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch) == Submitted(1001, KEY, sent=False)
    assert made(standin) == 1


# None is left, or Kaggle says no


def test_none_is_made_where_none_is_left_today(
    door: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    earlier(standin, "one", "two")
    standin.kaggle.competitions[COMPETITION].daily = 2
    words = f"^{COMPETITION}: no submission is left today .*; the same command tomorrow$"
    for _ in range(2):
        with pytest.raises(KaggleRejected, match=words):
            submit.submit(door, COMPETITION, ONE, KEY, scratch)
    with pytest.raises(KaggleRejected, match=words):
        submit.steps(door, COMPETITION, ONE, KEY)
    assert made(standin) == 0
    standin.kaggle.competitions[COMPETITION].daily = 3
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch).sent


def test_one_that_is_there_needs_none_left(
    door: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    earlier(standin, KEY)
    standin.kaggle.competitions[COMPETITION].daily = 1
    assert not submit.submit(door, COMPETITION, ONE, KEY, scratch).sent


def test_a_competition_that_is_not_there_is_refused(door: KaggleClient, scratch: Path) -> None:
    with pytest.raises(
        KaggleRejected, match=r"^submissions to another: Kaggle says 'Competition not"
    ):
        submit.submit(door, "another", ONE, KEY, scratch)


def test_a_reply_without_a_number_is_a_refusal_in_kaggles_words(
    door: KaggleClient, standin: StandIn, scratch: Path, clock: Stopwatch
) -> None:
    said = {"message": "You must accept the rules, see https://host/rules?t=1"}
    standin.inject_faults(Fault(("CreateCodeSubmission",), Reply(200, said)))
    words = "Kaggle made none and says 'You must accept the rules, see …'$"
    with pytest.raises(KaggleRejected, match=words):
        submit.submit(door, COMPETITION, ONE, KEY, scratch)
    assert submit.submit(door, COMPETITION, ONE, KEY, scratch).sent
    assert clock.time == 0


# Beforehand


def test_steps_tells_what_submit_does_then(
    door: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    assert submit.steps(door, COMPETITION, ONE, KEY) == [
        f"{COMPETITION}: 5 submissions left today",
        f"CreateCodeSubmission {REF} version 1, submission.csv, description {KEY}",
    ]
    assert made(standin) == 0
    submit.submit(door, COMPETITION, ONE, KEY, scratch)
    assert submit.steps(door, COMPETITION, ONE, KEY) == [
        f"{COMPETITION}: submission 1001 has key {KEY}: nothing to submit"
    ]
    assert made(standin) == 1
