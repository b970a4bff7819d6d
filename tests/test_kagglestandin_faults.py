"""Each fault of the stand-in's catalogue, by what it does to a client and what is held after."""

from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import kagglestandin_server
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kagglestandin_client import ASKED, GAME, KERNEL, OLD, OWN, PUSH, SUBMIT, Client, Seen
from kagglestandin_client import kaggle as demo
from kagglestandin_faults import CATALOGUE, COMMITS, FILES, METHODS
from kagglestandin_plan import Fault, Reply
from kagglestandin_server import StandIn
from kagglestandin_state import Json, KernelResult

pytestmark = pytest.mark.faults

STATUS = {"403": 403, "429": 429, "429-seconds": 429, "429-date": 429, "500": 500, "503": 503}
KINDS = (*STATUS, "drop", "hang", "lost")
ANYWHERE = [
    (place, kind)
    for place in (*METHODS, *FILES)
    for kind in KINDS
    if kind != "lost" or place in (*COMMITS, "PUT")
]


def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
    """Tell in the log where the sources were mounted."""
    return KernelResult({"submission.csv": b"id\n1\n"}, "\n".join(sorted(mounted)))


@pytest.fixture
def client() -> Iterator[Client]:
    with StandIn(demo(runner=runner)) as standin:
        yield Client(standin)


# At any place


@pytest.fixture(scope="module")
def ready() -> Iterator[Client]:
    """Return a client where one of everything is there."""
    with StandIn(demo()) as standin:
        standin.kaggle.competitions[GAME].daily = 1000
        client = Client(standin)
        client.play()
        yield client


def held(client: Client) -> list[int]:
    kaggle = client.standin.kaggle
    return [
        len(kaggle.submissions),
        sum(len(dataset.versions) for dataset in kaggle.datasets.values()),
        sum(len(kernel.versions) for kernel in kaggle.kernels.values()),
        sum(len(blob.data) for blob in kaggle.blobs.values()),
    ]


def call(client: Client, place: str) -> Seen:
    """Make one call at a place, never the same twice where it makes something."""
    new = f"number {len(client.seen)}"
    output = f"{client.standin.url}/output/{KERNEL}/v1/submission.csv"
    bodies: dict[str, Json] = {
        "StartBlobUpload": {"name": "a", "contentLength": 1},
        **dict.fromkeys(("GetDataset", "GetDatasetStatus", "ListDatasetFiles"), OWN),
        "CreateDataset": {"ownerSlug": "me", "slug": new, "files": []},
        "CreateDatasetVersion": {**OWN, "body": {"versionNotes": new}},
        "SaveKernel": {**PUSH, "text": new},
        **dict.fromkeys(("GetKernel", "GetKernelSessionStatus", "ListKernelSessionOutput"), ASKED),
        "CreateCodeSubmission": {**SUBMIT, "submissionDescription": new},
        **{name: {"competitionName": GAME} for name in ("GetSubmissionLimits", "ListSubmissions")},
        "GetSubmission": {"ref": 1001},
    }
    if place == "OUTPUT":
        return client.say(place, "GET", output)
    if place == "LOG":
        return client.say(place, "GET", f"/api/v1/kernels/logs/stream/{KERNEL}")
    if place == "PUT":
        return client.put(call(client, "StartBlobUpload").body["createUrl"], b"1")
    return client.rpc(place, bodies[place])


@pytest.mark.parametrize(("place", "kind"), ANYWHERE)
def test_the_first_call_at_a_place_meets(place: str, kind: str, ready: Client) -> None:
    before = held(ready)
    ready.standin.inject(f"{place}-{kind}")
    ready.patience = 0.3 if kind == "hang" else 5.0
    seen = call(ready, place)
    ready.patience = 5.0
    assert seen.status == STATUS.get(kind, 0)
    after = seen.headers.get("Retry-After")
    assert after == "2" if kind == "429-seconds" else bool(after) == (kind == "429-date")
    assert after in (None, "2") or parsedate_to_datetime(after).year == 2026
    assert (held(ready) != before) == (kind == "lost")
    assert ready.standin.calls[-1].faults == (f"{place}-{kind}",)
    assert call(ready, place).status == 200


# What has a name of its own


def statuses(client: Client, place: str) -> list[int]:
    return [seen.status for seen in client.all(place)]


def numbers(client: Client) -> list[Any]:
    return client.values("GetDataset", "currentVersionNumber")


def told(client: Client) -> list[Any]:
    return client.values("GetDatasetStatus", "status")


def ended(client: Client) -> list[Any]:
    return client.values("GetKernelSessionStatus", "status")


def listed(client: Client) -> list[Any]:
    return client.values("ListDatasetFiles", "datasetFiles")


def refused(name: str) -> Callable[[Client], bool]:
    def look(client: Client) -> bool:
        (saved,) = client.standin.kaggle.kernels[KERNEL].versions
        return bool(client.values("SaveKernel", name)[0]) and saved.useless

    return look


def scores(client: Client) -> list[Any]:
    return [value[0]["status"] for value in client.values("ListSubmissions", "submissions")]


def older(client: Client) -> bool:
    asked = {**ASKED, "versionLabel": "v2"}
    log = client.rpc("ListKernelSessionOutput", asked).body["log"]
    return client.values("SaveKernel", "versionNumber") == [2] and "older" in log


def dates(client: Client, year: str) -> bool:
    (version, *_) = client.values("GetDataset", "versions")[-1]
    return year in client.seen[0][1].headers["Date"] and year in version["creationDate"]


EXPECTED: dict[str, Callable[[Client], bool]] = {
    "PUT-503-halfway": lambda item: (
        statuses(item, "PUT")[:2] == [503, 200]
        and item.all("QUERY")[0].headers["Range"] == "bytes=0-4"
    ),
    "PUT-503-for-ever": lambda item: set(statuses(item, "PUT")) == {503},
    "PUT-drop-halfway": lambda item: (
        statuses(item, "PUT")[0] == 0
        and item.standin.kaggle.blobs["blob-1"].data == OLD["a.bin"][:5]
    ),
    "PUT-308": lambda item: statuses(item, "PUT")[:2] == [308, 200],
    "QUERY-308-no-range": lambda item: (
        statuses(item, "QUERY") == [308] and "Range" not in item.all("QUERY")[0].headers
    ),
    "QUERY-500": lambda item: statuses(item, "QUERY") == [500],
    "session-expired": lambda item: (
        statuses(item, "QUERY") == [404] and len(item.all("StartBlobUpload")) == 5
    ),
    "dataset-error": lambda item: (
        item.values("CreateDataset", "status") == ["error"] and not item.standin.kaggle.datasets
    ),
    "dataset-error-tags": lambda item: (
        item.values("CreateDataset", "invalidTags") == [["nlp"]]
        and not item.standin.kaggle.datasets
    ),
    "dataset-invalid-tags": lambda item: (
        item.values("CreateDataset", "invalidTags") == [["nlp"]] and numbers(item)[-1] == 2
    ),
    "dataset-404-at-first": lambda item: statuses(item, "GetDataset")[:2] == [404, 200],
    "version-does-not-move": lambda item: (
        item.values("CreateDataset", "status") == ["ok"] and not item.standin.kaggle.datasets
    ),
    "version-late": lambda item: (
        numbers(item)[:8] == [None] * 6 + [1, 1] and told(item)[7] == "READY"
    ),
    "version-moves-by-two": lambda item: numbers(item)[-1] == 3,
    "version-ready-before-the-number": lambda item: (
        told(item)[:3] == ["READY"] * 3 and numbers(item)[:4] == [None] * 3 + [1]
    ),
    "version-failed": lambda item: told(item)[1:8] == ["FAILED"] * 7 and numbers(item)[7] is None,
    "listing-missing-file": lambda item: listed(item) == [[], []],
    "listing-late": lambda item: [len(page) for page in listed(item)] == [0, 1],
    "listing-wrong-size": lambda item: [page[0]["totalBytes"] for page in listed(item)] == [9, 4],
    "push-error": lambda item: (
        "session count" in item.values("SaveKernel", "error")[0] and not item.standin.kaggle.kernels
    ),
    "push-code-in-200": lambda item: (
        item.values("SaveKernel", "code") == [403] and statuses(item, "SaveKernel") == [200]
    ),
    "push-invalid-tags": refused("invalidTags"),
    "push-invalid-datasets": refused("invalidDatasetSources"),
    "push-invalid-competitions": refused("invalidCompetitionSources"),
    "push-invalid-kernels": refused("invalidKernelSources"),
    "push-invalid-models": refused("invalidModelSources"),
    "mounts-moved": lambda item: (
        "datasets/me/demo-bundle" in item.values("ListKernelSessionOutput", "log")[0]
    ),
    "readback-internet": lambda item: item.values("GetKernel", "metadata")[0]["enableInternet"],
    "readback-image": lambda item: (
        item.values("GetKernel", "metadata")[0]["dockerImage"] != PUSH["dockerImage"]
    ),
    "kernel-error": lambda item: (
        ended(item)[-1] == "ERROR"
        and item.values("GetKernelSessionStatus", "failureMessage")[-1] == "Notebook Timeout"
    ),
    "kernel-canceled": lambda item: ended(item)[-1] == "CANCEL_ACKNOWLEDGED",
    "kernel-no-submission": lambda item: ended(item)[-1] == "COMPLETE" and not item.all("OUTPUT"),
    "kernel-empty-submission": lambda item: item.all("OUTPUT")[0].raw == b"",
    "kernel-never-ends": lambda item: set(ended(item)) == {"RUNNING"},
    "kernel-older-status": older,
    "outputs-late": lambda item: item.values("ListKernelSessionOutput", "files") == [[]],
    "outputs-log-cut": lambda item: (
        not item.values("ListKernelSessionOutput", "log")[0].endswith("]")
    ),
    "OUTPUT-truncated": lambda item: item.all("OUTPUT") == [Seen(0, raw=b"id")],
    "OUTPUT-truncated-once": lambda item: (
        item.all("OUTPUT") == [Seen(0, raw=b"id")] and call(item, "OUTPUT").raw == b"id\n1\n"
    ),
    "OUTPUT-empty": lambda item: [seen.raw for seen in item.all("OUTPUT")] == [b""],
    "LOG-cut": lambda item: item.all("LOG")[0].status == 0 and item.all("LOG")[0].raw != b"",
    "limits-none-left": lambda item: item.values("GetSubmissionLimits", "numAllowedNow") == [0],
    "submission-error": lambda item: (
        scores(item)[-1] == "ERROR"
        and "Scoring" in item.values("GetSubmission", "errorDescription")[-1]
    ),
    "submission-404-at-first": lambda item: statuses(item, "GetSubmission") == [404, 200, 200],
    "submission-never-scored": lambda item: (
        set(scores(item)) == {"PENDING"} == set(item.values("GetSubmission", "status"))
    ),
    "429-for-ever": lambda item: {seen.headers["Retry-After"] for _, seen in item.seen} == {"2"},
    "clock-ahead": lambda item: dates(item, "2027"),
    "clock-behind": lambda item: dates(item, "2025"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_chain_from_files_to_a_score_meets(name: str, client: Client) -> None:
    client.standin.inject(name)
    client.play()
    assert EXPECTED[name](client)
    assert any(name in call.faults for call in client.standin.calls)


def test_nothing_of_that_is_met_without_a_fault(client: Client) -> None:
    client.play()
    assert [name for name, met in EXPECTED.items() if _met(met, client)] == []


def _met(look: Callable[[Client], bool], client: Client) -> bool:
    try:
        return look(client)
    except (AssertionError, IndexError, KeyError, TypeError):
        return False


def test_a_server_that_hangs_answers_nothing_until_it_closes(client: Client) -> None:
    client.patience = 0.1
    client.standin.inject("hang")
    assert call(client, "GetDataset").status == call(client, "SaveKernel").status == 0
    assert held(client) == [0, 0, 0, 0]


def test_the_tables_here_are_the_whole_catalogue() -> None:
    named = {f"{place}-{kind}" for place, kind in ANYWHERE}
    assert set(CATALOGUE) == named | set(EXPECTED) | {"hang"}


# How faults go together


def test_of_two_faults_the_second_waits_for_the_next_call(client: Client) -> None:
    client.standin.inject("GetDataset-503", "GetDataset-429")
    assert [call(client, "GetDataset").status for _ in range(3)] == [503, 429, 404]


def test_a_fault_may_take_later_calls(client: Client) -> None:
    client.standin.inject_faults(Fault(("GetDataset",), Reply(500), at=2, times=2))
    assert [call(client, "GetDataset").status for _ in range(4)] == [404, 500, 500, 404]


def test_what_is_only_told_ends_when_it_is_calm(client: Client) -> None:
    client.standin.inject("submission-never-scored", "kernel-never-ends", "clock-ahead")
    client.play()
    client.standin.calm()
    assert call(client, "GetKernelSessionStatus").body["status"] == "COMPLETE"
    last = call(client, "GetDataset")
    assert "2026" in last.headers["Date"]


@pytest.mark.parametrize(
    ("name", "twice"),
    [("version-failed", "version"), ("kernel-error", "run"), ("push-invalid-datasets", "run")],
)
def test_what_failed_may_be_done_again(name: str, twice: str, client: Client) -> None:
    client.create()
    if twice == "run":
        client.version()
    client.standin.inject(name)
    getattr(client, twice)()
    getattr(client, twice)()
    client.standin.check()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([one for one in CATALOGUE if "hang" not in one]), max_size=6))
def test_no_row_of_faults_breaks_the_stand_in_itself(names: list[str]) -> None:
    with StandIn(demo()) as standin:
        standin.inject(*names)
        client = Client(standin)
        client.play()
        standin.calm()
        client.play()


def test_it_tells_what_can_go_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    kagglestandin_server.main(["--list"])
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == list(CATALOGUE)
    assert all(len(line.split(maxsplit=1)) == 2 for line in told)
