"""A version's own end, output and last words are brought back, all of them, and a score late."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from deploy.kaggle_api.end_to_end import COMPETITION, Stopwatch
from kagglestandin_plan import Empty, Fault, Reply, Short, Twist
from kagglestandin_server import StandIn
from kagglestandin_state import Json, Kernel, KernelResult, Saved, Submission

from parity.deploy.kaggle_api import follow, kernels
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.follow import Version
from parity.run.errors import KaggleRejected, Mismatch, OutcomeUnknown, RunFailed

REF = "me/small-kernel"
ONE, TWO = Version(REF, 1), Version(REF, 2)
KEY = "kp1:01234567:v1"


def saved(standin: StandIn, *results: KernelResult, waits: int = 2) -> None:
    """Let the stand-in hold versions of the kernel that end like this."""
    made = [
        Saved(number, {"slug": REF}, {}, {}, ["RUNNING"] * waits, "", result=one)
        for number, one in enumerate(results, start=1)
    ]
    standin.kaggle.kernels[REF] = Kernel(1, REF, made)


def output(letter: str, parts: int = 1) -> KernelResult:
    files = {f"part-{number}.txt": letter.encode() * 9 for number in range(parts)}
    return KernelResult(
        {**files, "logs/deep/x.txt": b"x", "two words.txt": b"y"}, f"begun\n{letter}\n"
    )


def taken(_: Path) -> None:
    """Judge anything to be well."""


# To its end


def test_a_run_is_followed_to_its_end(
    door: KaggleClient, standin: StandIn, clock: Stopwatch
) -> None:
    saved(standin, output("a"), waits=3)
    follow.wait(door, ONE, minutes=10)
    assert clock.time == 5.0 + 7.5 + 11.25


def test_there_is_a_budget_and_the_same_command_goes_on(
    door: KaggleClient, standin: StandIn, clock: Stopwatch
) -> None:
    saved(standin, output("a"), waits=10**6)
    words = (
        r"^me/small-kernel version 1 is still RUNNING after 90 minutes; the same command goes on$"
    )
    with pytest.raises(OutcomeUnknown, match=words):
        follow.wait(door, ONE, minutes=90)
    assert clock.time == 90 * 60
    assert len(standin.sent("GetKernelSessionStatus")) < 110
    standin.kaggle.kernels[REF].versions[0].waits.clear()
    follow.wait(door, ONE, minutes=90)


@pytest.mark.parametrize("status", ["ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED"])
def test_a_bad_end_is_told_with_kaggles_words(
    status: str, door: KaggleClient, standin: StandIn
) -> None:
    saved(standin, KernelResult({}, status=status, failure="Notebook Timeout"))
    with pytest.raises(RunFailed) as caught:
        follow.wait(door, ONE, minutes=10)
    assert str(caught.value) == f"{REF} version 1: {status} on Kaggle, 'Notebook Timeout'"


def test_it_is_the_versions_own_end(door: KaggleClient, standin: StandIn) -> None:
    saved(standin, output("a"), KernelResult({}, status="ERROR"))
    follow.wait(door, ONE, minutes=10)
    with pytest.raises(RunFailed, match=f"^{REF} version 2: ERROR on Kaggle$"):
        follow.wait(door, TWO, minutes=10)
    labels = {one["versionLabel"] for one in standin.sent("GetKernelSessionStatus")}
    assert labels == {"v1", "v2"}


def test_a_version_that_was_only_saved_never_ends(door: KaggleClient, standin: StandIn) -> None:
    saved(standin, KernelResult({}, status="NEW_SCRIPT"))
    with pytest.raises(OutcomeUnknown, match="is still NEW_SCRIPT after 1 minutes"):
        follow.wait(door, ONE, minutes=1)


# Its output


def test_all_pages_of_the_output_are_fetched(
    door: KaggleClient, standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "PAGE", 3)
    saved(standin, output("a", parts=10), waits=0)
    names = follow.fetch(door, ONE, tmp_path / "output", taken)
    assert len(standin.sent("ListKernelSessionOutput")) == 4
    assert len(names) == len(set(names)) == 13


def test_names_are_paths_in_the_folder(
    door: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    saved(standin, output("a"), waits=0)
    names = follow.fetch(door, ONE, tmp_path / "output", taken)
    assert names == ["logs/deep/x.txt", "part-0.txt", "small-kernel.log", "two words.txt"]
    found = {path for path in (tmp_path / "output").rglob("*") if path.is_file()}
    assert found == {tmp_path / "output" / name for name in names}


def test_a_name_that_leads_elsewhere_is_not_followed(
    door: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    saved(standin, KernelResult({"../../escaped.txt": b"x"}), waits=0)
    with pytest.raises(OutcomeUnknown, match=r"came broken \(Refusing to download") as caught:
        follow.fetch(door, ONE, tmp_path / "deep" / "output", taken)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("escaped.txt"))


def test_an_older_version_gives_its_own_output(
    door: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    saved(standin, output("a"), output("b"), waits=0)
    for version, letter in ((ONE, "a"), (TWO, "b"), (ONE, "a")):
        follow.fetch(door, version, tmp_path / "output", taken)
        assert (tmp_path / "output" / "part-0.txt").read_text() == letter * 9
        assert follow.last_words(tmp_path / "output") == letter


def test_the_folder_is_replaced_whole(door: KaggleClient, standin: StandIn, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "of-yesterday.txt").write_text("old")
    saved(standin, output("a"), waits=0)
    follow.fetch(door, ONE, tmp_path / "output", taken)
    assert not (tmp_path / "output" / "of-yesterday.txt").exists()


def test_what_is_not_this_versions_is_fetched_again(
    door: KaggleClient, standin: StandIn, tmp_path: Path, clock: Stopwatch
) -> None:
    saved(standin, output("a"), output("b"), waits=0)

    def older(kaggle: object, body: Json) -> None:
        body["versionLabel"] = "v1"

    def judge(there: Path) -> None:
        if (there / "part-0.txt").read_text() != "b" * 9:
            raise Mismatch("the output is of another version")

    standin.inject_faults(Fault(("ListKernelSessionOutput",), Twist(older), times=2))
    follow.fetch(door, TWO, tmp_path / "output", judge)
    assert clock.time == 2 * 60
    standin.inject_faults(Fault(("ListKernelSessionOutput",), Twist(older), times=3))
    with pytest.raises(Mismatch, match="of another version"):
        follow.fetch(door, TWO, tmp_path / "output", judge)
    assert (tmp_path / "output" / "part-0.txt").read_text() == "b" * 9  # the whole one stays


@pytest.mark.parametrize("effect", [Short(), Reply(503), Reply(429, retry_after="1")])
def test_a_file_that_comes_cut_short_is_fetched_again(
    effect: Short | Reply, door: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    saved(standin, output("a"), waits=0)
    standin.inject_faults(Fault(("OUTPUT",), effect))
    follow.fetch(door, ONE, tmp_path / "output", taken)
    assert (tmp_path / "output" / "part-0.txt").read_text() == "a" * 9
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == [
        *("logs", "part-0.txt", "small-kernel.log", "two words.txt"),
    ]


def test_an_output_that_is_refused_is_not_there_half(
    door: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    saved(standin, output("a"), waits=0)
    standin.inject_faults(Fault(("OUTPUT",), Reply(403), at=2))
    with pytest.raises(KaggleRejected):
        follow.fetch(door, ONE, tmp_path / "output", taken)
    assert not (tmp_path / "output").exists()


# Its last words


def logged(folder: Path, text: str, name: str = "small-kernel.log") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (["begun\n", "dead: no bundle\n"], "dead: no bundle"),
        (["be", "gun\nde", "ad\n", "\n  \n"], "dead"),
        (["x" * 500], "x" * 200),
        (["\n"], ""),
        ([], ""),
    ],
)
def test_the_last_line_of_a_log_is_its_last_words(
    pieces: list[str], said: str, tmp_path: Path
) -> None:
    rows = [{"stream_name": "stderr", "time": 1.5, "data": piece} for piece in pieces]
    assert follow.last_words(logged(tmp_path, json.dumps(rows))) == said


@pytest.mark.parametrize(
    "text", ["", '[{"data": "begun', "null", "7", '{"data": "x"}', '"x"', "[1, null]", "no JSON"]
)
def test_a_log_that_was_cut_or_is_none_has_no_last_words(text: str, tmp_path: Path) -> None:
    assert follow.last_words(logged(tmp_path, text)) == ""
    assert follow.last_words(tmp_path / "nowhere") == ""


def test_a_log_of_the_kernels_own_does_not_hide_kaggles(tmp_path: Path) -> None:
    logged(tmp_path, "12:00 INFO started", "debug.log")
    assert follow.last_words(logged(tmp_path, '[{"data": "dead"}]')) == "dead"


def test_the_log_of_a_failed_run_is_fetched(
    door: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    saved(standin, KernelResult({}, "begun\ndead: no bundle\n", "ERROR"), waits=0)
    assert follow.log_of(door, ONE, tmp_path / "failed") == "dead: no bundle"


@pytest.mark.parametrize("effect", [Reply(403), Reply(500), Empty(), Twist(after=lambda *_: {})])
def test_a_log_that_is_not_to_be_had_is_no_error(
    effect: Reply | Empty | Twist, door: KaggleClient, standin: StandIn, tmp_path: Path
) -> None:
    saved(standin, KernelResult({}, "dead\n", "ERROR"), waits=0)
    standin.inject_faults(Fault(("ListKernelSessionOutput",), effect, times=9))
    assert follow.log_of(door, ONE, tmp_path / "failed") == ""


# Its score


def held(standin: StandIn, ref: int, key: str, **changes: object) -> None:
    when, scores = "2026-01-01T00:00:00.000Z", ("0.5", "")
    one = Submission(ref, COMPETITION, REF, 1, "submission.csv", key, when, scores, 0)
    standin.kaggle.submissions.append(replace(one, **changes))  # type: ignore[arg-type]


def test_a_score_is_waited_for(door: KaggleClient, standin: StandIn, clock: Stopwatch) -> None:
    held(standin, 1001, KEY, waits=3)
    found = follow.score(door, COMPETITION, 1001, KEY, minutes=10)
    assert (found.status, found.public, found.private) == ("COMPLETE", "0.5", "")
    assert clock.time == 5.0 + 7.5 + 11.25


def test_a_score_is_not_waited_for_without_end(
    door: KaggleClient, standin: StandIn, clock: Stopwatch
) -> None:
    held(standin, 1001, KEY, waits=10**6)
    with pytest.raises(
        OutcomeUnknown, match=f"^submission {KEY} is still pending after 5 minutes; the same"
    ):
        follow.score(door, COMPETITION, 1001, KEY, minutes=5)
    assert clock.time == 5 * 60


def test_a_submission_that_failed_is_told(door: KaggleClient, standin: StandIn) -> None:
    held(standin, 1001, KEY, error="Submission Scoring Error")
    words = f"submission 1001 ({KEY}) ended in an error: Submission Scoring Error"
    with pytest.raises(RunFailed) as caught:
        follow.score(door, COMPETITION, 1001, KEY, minutes=5)
    assert str(caught.value) == words


def test_a_submission_that_is_not_held_is_told(door: KaggleClient, standin: StandIn) -> None:
    held(standin, 1001, f"{KEY}2")
    with pytest.raises(Mismatch, match=f"holds no submission {KEY}; run: invoke submit$"):
        follow.score(door, COMPETITION, 0, KEY, minutes=5)


def test_a_submission_is_found_by_its_number_before_its_key(
    door: KaggleClient, standin: StandIn
) -> None:
    held(standin, 1001, KEY, scores=("0.1", ""))
    held(standin, 1002, "renamed by hand", scores=("0.2", ""))
    for ref, key, public in ((1002, KEY, "0.2"), (0, KEY, "0.1"), (77, KEY, "0.1")):
        assert follow.score(door, COMPETITION, ref, key, minutes=1).public == public
    assert follow.find(door, COMPETITION, 0, "kp1:01234567:v") is None  # no part of a key
    held(standin, 1003, f"second try {KEY}x {KEY}y")
    assert follow.find(door, COMPETITION, 0, f"{KEY}y") is not None
