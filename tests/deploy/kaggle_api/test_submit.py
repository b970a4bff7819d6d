"""One submission per key, even if replies are lost, and only if submissions are left."""

import re
from pathlib import Path

import pytest
from deploy.kaggle_api.end_to_end import COMPETITION, FILE, FakeClock
from kagglestandin import Kaggle
from kagglestandin_plan import Drop, Fault, Hook, Reply
from kagglestandin_server import StandIn
from kagglestandin_state import Json, Kernel, SavedVersion, Submission, run_default

from parity.deploy.kaggle_api import competitions, submit
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.follow import KernelVersion
from parity.deploy.kaggle_api.idempotency import GRACE
from parity.deploy.kaggle_api.submit import Submitted
from parity.run.errors import KaggleRejected, OutcomeUnknown

REF = "me/small-kernel"
ONE = KernelVersion(REF, 1)
KEY = "kp1:01234567:v1"


@pytest.fixture(autouse=True)
def _done(standin: StandIn) -> None:
    """Add three complete kernel versions."""
    versions = [
        SavedVersion(n, {"slug": REF}, {}, {}, [], "", result=run_default({}, {}))
        for n in (1, 2, 3)
    ]
    standin.kaggle.kernels[REF] = Kernel(1, REF, versions)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def send(client: KaggleClient, scratch: Path) -> Submitted:
    return submit.submit(client, COMPETITION, ONE, KEY, scratch, file=FILE)


def add_submissions(standin: StandIn, *keys: str) -> None:
    """Add older submissions, oldest first."""
    standin.kaggle.competitions[COMPETITION].daily = 200
    for ref, key in enumerate(keys, start=1):
        when, scores = "2026-01-01T00:00:00.000Z", ("0.5", "")
        submission = Submission(ref, COMPETITION, REF, 1, "submission.csv", key, when, scores, 0)
        standin.kaggle.submissions.append(submission)


def count_sent(standin: StandIn) -> int:
    return len(standin.sent("CreateCodeSubmission"))


# The key


def test_a_key_identifies_bundle_and_version() -> None:
    bundles, versions = ("ab" * 32, "cd" * 32), (1, 2, 12)
    keys = {submit.submission_key(bundle, version) for bundle in bundles for version in versions}
    assert len(keys) == 6
    assert all(re.fullmatch(r"kp1:[0-9a-f]{8}:v\d+", key) for key in keys)


def test_the_key_is_the_description_of_the_submission(
    client: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    submit.submit(client, COMPETITION, KernelVersion(REF, 2), KEY, scratch, file=FILE)
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


# Idempotency


def test_a_version_is_submitted_once(client: KaggleClient, standin: StandIn, scratch: Path) -> None:
    assert send(client, scratch) == Submitted(1001, KEY, sent=True)
    assert send(client, scratch) == Submitted(1001, KEY, sent=False)
    assert count_sent(standin) == 1
    assert list(scratch.iterdir()) == []


def test_another_version_gives_another_submission(
    client: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    keys = [submit.submission_key("ab" * 32, number) for number in (1, 2, 1)]
    refs = [submit.submit(client, COMPETITION, ONE, key, scratch, file=FILE).ref for key in keys]
    assert refs == [1001, 1002, 1001]


def test_a_submission_on_a_later_page_is_found(
    client: KaggleClient, standin: StandIn, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(competitions, "PAGE", 3)
    add_submissions(standin, KEY, *[f"by hand {number}" for number in range(10)])
    assert send(client, scratch) == Submitted(1, KEY, sent=False)
    assert (count_sent(standin), len(standin.sent("ListSubmissions"))) == (0, 4)


@pytest.mark.parametrize("similar", [f"{KEY}2", f"x{KEY}", KEY[:-1], "", KEY.upper()])
def test_a_similar_key_does_not_match(
    similar: str, client: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    add_submissions(standin, similar)
    assert send(client, scratch).sent


def test_a_lost_reply_gives_one_submission(
    client: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    standin.inject_faults(Fault(("CreateCodeSubmission",), Drop(committed=True)))
    assert send(client, scratch) == Submitted(1001, KEY, sent=True)
    assert (count_sent(standin), len(standin.kaggle.submissions)) == (1, 1)


def test_a_lost_request_is_unknown_and_the_next_run_submits(
    client: KaggleClient, standin: StandIn, scratch: Path, clock: FakeClock
) -> None:
    standin.inject_faults(Fault(("CreateCodeSubmission",), Drop()))
    with pytest.raises(
        OutcomeUnknown, match=f"^submit {REF} version 1: connection lost; it is unclear"
    ):
        send(client, scratch)
    started = clock.time
    assert send(client, scratch).sent
    assert clock.time - started >= GRACE
    assert len(standin.kaggle.submissions) == 1


def empty_lists(count: int) -> Fault:
    """Return a fault that empties the next `count` lists of submissions."""

    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        return {**reply, "submissions": []}

    return Fault(("ListSubmissions",), Hook(after=after), times=count)


def test_a_submission_that_is_listed_late_is_not_sent_again(
    client: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    standin.inject_faults(empty_lists(5))
    assert send(client, scratch).sent
    assert not send(client, scratch).sent
    assert count_sent(standin) == 1


def test_a_submission_that_is_not_listed_is_unknown_and_found_later(
    client: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    standin.inject_faults(empty_lists(99))
    message = rf"^submission 1001 \({KEY}\) is not listed by Kaggle yet; run the same command again"
    with pytest.raises(OutcomeUnknown, match=message):
        send(client, scratch)
    standin.clear_faults()
    standin.inject_faults(empty_lists(5))
    assert send(client, scratch) == Submitted(1001, KEY, sent=False)
    assert count_sent(standin) == 1


# Limits and rejections


def test_nothing_is_sent_if_no_submissions_are_left_today(
    client: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    add_submissions(standin, "one", "two")
    standin.kaggle.competitions[COMPETITION].daily = 2
    message = f"^{COMPETITION}: no submissions left today .*; run the same command tomorrow$"
    for _ in range(2):
        with pytest.raises(KaggleRejected, match=message):
            send(client, scratch)
    with pytest.raises(KaggleRejected, match=message):
        submit.planned_calls(client, COMPETITION, ONE, KEY, file=FILE)
    assert count_sent(standin) == 0
    standin.kaggle.competitions[COMPETITION].daily = 3
    assert send(client, scratch).sent


def test_an_existing_submission_needs_no_remaining_limit(
    client: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    add_submissions(standin, KEY)
    standin.kaggle.competitions[COMPETITION].daily = 1
    assert not send(client, scratch).sent


def test_an_unknown_competition_is_refused(client: KaggleClient, scratch: Path) -> None:
    with pytest.raises(
        KaggleRejected, match=r"^submissions to another: Kaggle says 'Competition not"
    ):
        submit.submit(client, "another", ONE, KEY, scratch, file=FILE)


def test_a_reply_without_a_number_is_a_rejection_with_kaggles_message(
    client: KaggleClient, standin: StandIn, scratch: Path, clock: FakeClock
) -> None:
    reply = {"message": "You must accept the rules, see https://host/rules?t=1"}
    standin.inject_faults(Fault(("CreateCodeSubmission",), Reply(200, reply)))
    message = "Kaggle created no submission and says 'You must accept the rules, see …'$"
    with pytest.raises(KaggleRejected, match=message):
        send(client, scratch)
    assert send(client, scratch).sent
    assert clock.time == 0


# Dry run


def test_planned_calls_are_those_that_submit_makes(
    client: KaggleClient, standin: StandIn, scratch: Path
) -> None:
    assert submit.planned_calls(client, COMPETITION, ONE, KEY, file=FILE) == [
        f"{COMPETITION}: 5 submissions left today",
        f"CreateCodeSubmission {REF} version 1, submission.csv, description {KEY}",
    ]
    assert count_sent(standin) == 0
    send(client, scratch)
    assert submit.planned_calls(client, COMPETITION, ONE, KEY, file=FILE) == [
        f"{COMPETITION}: submission 1001 has key {KEY}: nothing to submit"
    ]
    assert count_sent(standin) == 1
