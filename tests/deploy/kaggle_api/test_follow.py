"""Following a kernel version to its status, output and log, and a submission to its score."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from deploy.kaggle_api.end_to_end import COMPETITION, FakeClock
from kagglestandin_plan import Empty, Fault, HalfGet, Hook, Reply
from kagglestandin_server import StandIn
from kagglestandin_state import Json, Kernel, KernelResult, SavedVersion, Submission

from parity.deploy.kaggle_api import follow, kernels
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.follow import KernelVersion
from parity.run.errors import KaggleRejected, Mismatch, OutcomeUnknown, RunFailed

REF = "me/small-kernel"
ONE, TWO = KernelVersion(REF, 1), KernelVersion(REF, 2)
KEY = "kp1:01234567:v1"


def add_versions(standin: StandIn, *results: KernelResult, waits: int = 2) -> None:
    """Add kernel versions with these results to the stand-in."""
    versions = [
        SavedVersion(number, {"slug": REF}, {}, {}, ["RUNNING"] * waits, "", result=result)
        for number, result in enumerate(results, start=1)
    ]
    standin.kaggle.kernels[REF] = Kernel(1, REF, versions)


def output(letter: str, parts: int = 1) -> KernelResult:
    files = {f"part-{number}.txt": letter.encode() * 9 for number in range(parts)}
    return KernelResult(
        {**files, "logs/deep/x.txt": b"x", "two words.txt": b"y"}, f"started\n{letter}\n"
    )


def accept(_: Path) -> None:
    """Accept any output."""


# Status


def test_a_run_is_followed_until_complete(
    client: KaggleClient, standin: StandIn, clock: FakeClock
) -> None:
    add_versions(standin, output("a"), waits=3)
    follow.wait_until_complete(client, ONE, minutes=10)
    assert clock.time == 5.0 + 7.5 + 11.25


def test_after_the_budget_the_same_command_continues(
    client: KaggleClient, standin: StandIn, clock: FakeClock
) -> None:
    add_versions(standin, output("a"), waits=10**6)
    message = (
        r"^me/small-kernel version 1 is still RUNNING after 90 minutes; "
        r"run the same command again to keep waiting$"
    )
    with pytest.raises(OutcomeUnknown, match=message):
        follow.wait_until_complete(client, ONE, minutes=90)
    assert clock.time == 90 * 60
    assert len(standin.sent("GetKernelSessionStatus")) < 110
    standin.kaggle.kernels[REF].versions[0].waits.clear()
    follow.wait_until_complete(client, ONE, minutes=90)


@pytest.mark.parametrize("status", ["ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED"])
def test_a_failed_run_is_reported_with_kaggles_message(
    status: str, client: KaggleClient, standin: StandIn
) -> None:
    add_versions(standin, KernelResult({}, status=status, failure="Notebook Timeout"))
    with pytest.raises(RunFailed) as error:
        follow.wait_until_complete(client, ONE, minutes=10)
    assert str(error.value) == f"{REF} version 1: {status} on Kaggle, 'Notebook Timeout'"


def test_each_version_has_its_own_status(client: KaggleClient, standin: StandIn) -> None:
    add_versions(standin, output("a"), KernelResult({}, status="ERROR"))
    follow.wait_until_complete(client, ONE, minutes=10)
    with pytest.raises(RunFailed, match=f"^{REF} version 2: ERROR on Kaggle$"):
        follow.wait_until_complete(client, TWO, minutes=10)
    labels = {body["versionLabel"] for body in standin.sent("GetKernelSessionStatus")}
    assert labels == {"v1", "v2"}


def test_a_version_that_is_saved_without_a_run_never_completes(
    client: KaggleClient, standin: StandIn
) -> None:
    add_versions(standin, KernelResult({}, status="NEW_SCRIPT"))
    with pytest.raises(OutcomeUnknown, match="is still NEW_SCRIPT after 1 minutes"):
        follow.wait_until_complete(client, ONE, minutes=1)


# Output


def test_all_pages_of_the_output_are_downloaded(
    client: KaggleClient, standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "PAGE", 3)
    add_versions(standin, output("a", parts=10), waits=0)
    names = follow.download_output(client, ONE, tmp_path / "output", accept)
    assert len(standin.sent("ListKernelSessionOutput")) == 4
    assert len(names) == len(set(names)) == 13


def test_names_are_relative_paths(client: KaggleClient, standin: StandIn, tmp_path: Path) -> None:
    add_versions(standin, output("a"), waits=0)
    names = follow.download_output(client, ONE, tmp_path / "output", accept)
    assert names == ["logs/deep/x.txt", "part-0.txt", "small-kernel.log", "two words.txt"]
    paths = {path for path in (tmp_path / "output").rglob("*") if path.is_file()}
    assert paths == {tmp_path / "output" / name for name in names}


def test_a_name_outside_the_folder_is_refused(
    client: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    add_versions(standin, KernelResult({"../../escaped.txt": b"x"}), waits=0)
    with pytest.raises(OutcomeUnknown, match=r"is incomplete \(Refusing to download") as error:
        follow.download_output(client, ONE, tmp_path / "deep" / "output", accept)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("escaped.txt"))


def test_an_older_version_has_its_own_output(
    client: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    add_versions(standin, output("a"), output("b"), waits=0)
    for version, letter in ((ONE, "a"), (TWO, "b"), (ONE, "a")):
        follow.download_output(client, version, tmp_path / "output", accept)
        assert (tmp_path / "output" / "part-0.txt").read_text() == letter * 9
        assert follow.read_last_log_line(tmp_path / "output") == letter


def test_the_folder_is_replaced(client: KaggleClient, standin: StandIn, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "of-yesterday.txt").write_text("old")
    add_versions(standin, output("a"), waits=0)
    follow.download_output(client, ONE, tmp_path / "output", accept)
    assert not (tmp_path / "output" / "of-yesterday.txt").exists()


def test_output_of_another_version_is_downloaded_again(
    client: KaggleClient, standin: StandIn, tmp_path: Path, clock: FakeClock
) -> None:
    add_versions(standin, output("a"), output("b"), waits=0)

    def older(kaggle: object, body: Json) -> None:
        body["versionLabel"] = "v1"

    def check(folder: Path) -> None:
        if (folder / "part-0.txt").read_text() != "b" * 9:
            raise Mismatch("the output is from another version")

    standin.inject_faults(Fault(("ListKernelSessionOutput",), Hook(older), times=2))
    follow.download_output(client, TWO, tmp_path / "output", check)
    assert clock.time == 2 * 60
    standin.inject_faults(Fault(("ListKernelSessionOutput",), Hook(older), times=3))
    with pytest.raises(Mismatch, match="from another version"):
        follow.download_output(client, TWO, tmp_path / "output", check)
    assert (
        tmp_path / "output" / "part-0.txt"
    ).read_text() == "b" * 9  # the complete download stays


@pytest.mark.parametrize("effect", [HalfGet(), Reply(503), Reply(429, retry_after="1")])
def test_a_truncated_file_is_downloaded_again(
    effect: HalfGet | Reply, client: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    add_versions(standin, output("a"), waits=0)
    standin.inject_faults(Fault(("OUTPUT",), effect))
    follow.download_output(client, ONE, tmp_path / "output", accept)
    assert (tmp_path / "output" / "part-0.txt").read_text() == "a" * 9
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == [
        *("logs", "part-0.txt", "small-kernel.log", "two words.txt"),
    ]


def test_a_refused_output_leaves_no_partial_folder(
    client: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    add_versions(standin, output("a"), waits=0)
    standin.inject_faults(Fault(("OUTPUT",), Reply(403), at=2))
    with pytest.raises(KaggleRejected):
        follow.download_output(client, ONE, tmp_path / "output", accept)
    assert not (tmp_path / "output").exists()


# Log


def write_log(folder: Path, text: str, name: str = "small-kernel.log") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["started\n", "failed: no bundle\n"], "failed: no bundle"),
        (["sta", "rted\nfai", "led\n", "\n  \n"], "failed"),
        (["x" * 500], "x" * 200),
        (["\n"], ""),
        ([], ""),
    ],
)
def test_the_last_line_of_a_log_is_read(pieces: list[str], expected: str, tmp_path: Path) -> None:
    rows = [{"stream_name": "stderr", "time": 1.5, "data": piece} for piece in pieces]
    assert follow.read_last_log_line(write_log(tmp_path, json.dumps(rows))) == expected


@pytest.mark.parametrize(
    "text", ["", '[{"data": "started', "null", "7", '{"data": "x"}', '"x"', "[1, null]", "not JSON"]
)
def test_a_log_that_is_truncated_or_not_a_log_has_no_last_line(text: str, tmp_path: Path) -> None:
    assert follow.read_last_log_line(write_log(tmp_path, text)) == ""
    assert follow.read_last_log_line(tmp_path / "nowhere") == ""


def test_a_log_file_of_the_kernel_does_not_hide_kaggles(tmp_path: Path) -> None:
    write_log(tmp_path, "12:00 INFO started", "debug.log")
    assert follow.read_last_log_line(write_log(tmp_path, '[{"data": "failed"}]')) == "failed"


def test_the_log_of_a_failed_run_is_downloaded(
    client: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    add_versions(standin, KernelResult({}, "started\nfailed: no bundle\n", "ERROR"), waits=0)
    assert follow.download_last_log_line(client, ONE, tmp_path / "failed") == "failed: no bundle"


@pytest.mark.parametrize("effect", [Reply(403), Reply(500), Empty(), Hook(after=lambda *_: {})])
def test_a_missing_log_raises_nothing(
    effect: Reply | Empty | Hook, client: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    add_versions(standin, KernelResult({}, "failed\n", "ERROR"), waits=0)
    standin.inject_faults(Fault(("ListKernelSessionOutput",), effect, times=9))
    assert follow.download_last_log_line(client, ONE, tmp_path / "failed") == ""


# Score


def add_submission(standin: StandIn, ref: int, key: str, **changes: object) -> None:
    when, scores = "2026-01-01T00:00:00.000Z", ("0.5", "")
    submission = Submission(ref, COMPETITION, REF, 1, "submission.csv", key, when, scores, 0)
    standin.kaggle.submissions.append(replace(submission, **changes))  # type: ignore[arg-type]


def test_polls_until_the_submission_is_scored(
    client: KaggleClient, standin: StandIn, clock: FakeClock
) -> None:
    add_submission(standin, 1001, KEY, waits=3)
    scored = follow.wait_for_score(client, COMPETITION, 1001, KEY, minutes=10)
    assert (scored.status, scored.public, scored.private) == ("COMPLETE", "0.5", "")
    assert clock.time == 5.0 + 7.5 + 11.25


def test_waiting_for_a_score_has_a_budget(
    client: KaggleClient, standin: StandIn, clock: FakeClock
) -> None:
    add_submission(standin, 1001, KEY, waits=10**6)
    with pytest.raises(
        OutcomeUnknown, match=f"^submission {KEY} is still pending after 5 minutes; run the same"
    ):
        follow.wait_for_score(client, COMPETITION, 1001, KEY, minutes=5)
    assert clock.time == 5 * 60


def test_a_failed_submission_is_reported(client: KaggleClient, standin: StandIn) -> None:
    add_submission(standin, 1001, KEY, error="Submission Scoring Error")
    message = f"submission 1001 ({KEY}) failed: Submission Scoring Error"
    with pytest.raises(RunFailed) as error:
        follow.wait_for_score(client, COMPETITION, 1001, KEY, minutes=5)
    assert str(error.value) == message


def test_an_unknown_submission_is_an_error(client: KaggleClient, standin: StandIn) -> None:
    add_submission(standin, 1001, f"{KEY}2")
    with pytest.raises(Mismatch, match=f"Kaggle has no submission {KEY}$") as error:
        follow.wait_for_score(client, COMPETITION, 0, KEY, minutes=5)
    assert error.value.fix == ("submit",)


def test_a_submission_is_found_by_its_number_before_its_key(
    client: KaggleClient, standin: StandIn
) -> None:
    add_submission(standin, 1001, KEY, scores=("0.1", ""))
    add_submission(standin, 1002, "renamed by hand", scores=("0.2", ""))
    for ref, key, public in ((1002, KEY, "0.2"), (0, KEY, "0.1"), (77, KEY, "0.1")):
        assert follow.wait_for_score(client, COMPETITION, ref, key, minutes=1).public == public
    assert (
        follow.find_submission(client, COMPETITION, 0, "kp1:01234567:v") is None
    )  # a prefix of a key does not match
    add_submission(standin, 1003, f"second try {KEY}x {KEY}y")
    assert follow.find_submission(client, COMPETITION, 0, f"{KEY}y") is not None
