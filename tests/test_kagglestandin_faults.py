"""Every fault of the stand-in's catalogue: its effect on a client and on the state."""

from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import kagglestandin_server
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kagglestandin_client import (
    COMPETITION,
    DATASET,
    KERNEL,
    KERNEL_VERSION,
    OLD,
    PUSH,
    SUBMIT,
    Client,
    Response,
)
from kagglestandin_client import kaggle as demo
from kagglestandin_faults import CATALOGUE, COMMITS, FILES, METHODS
from kagglestandin_plan import Fault, Reply
from kagglestandin_server import StandIn
from kagglestandin_state import Json, KernelResult

pytestmark = pytest.mark.faults

STATUS = {"403": 403, "429": 429, "429-seconds": 429, "429-date": 429, "500": 500, "503": 503}
KINDS = (*STATUS, "drop", "hang", "lost")
ANYWHERE = [
    (endpoint, kind)
    for endpoint in (*METHODS, *FILES)
    for kind in KINDS
    if kind != "lost" or endpoint in (*COMMITS, "PUT")
]


def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
    """Write the mount paths of the sources to the log."""
    return KernelResult({"submission.csv": b"id\n1\n"}, "\n".join(sorted(mounted)))


@pytest.fixture
def client() -> Iterator[Client]:
    with StandIn(demo(runner=runner)) as standin:
        yield Client(standin)


# Any endpoint


@pytest.fixture(scope="module")
def ready() -> Iterator[Client]:
    """Return a client for a stand-in with one object of every kind."""
    with StandIn(demo()) as standin:
        standin.kaggle.competitions[COMPETITION].daily = 1000
        client = Client(standin)
        client.run_all()
        yield client


def count_objects(client: Client) -> list[int]:
    kaggle = client.standin.kaggle
    return [
        len(kaggle.submissions),
        sum(len(dataset.versions) for dataset in kaggle.datasets.values()),
        sum(len(kernel.versions) for kernel in kaggle.kernels.values()),
        sum(len(blob.data) for blob in kaggle.blobs.values()),
    ]


def call(client: Client, endpoint: str) -> Response:
    """Make one call to an endpoint; calls that create something are all different."""
    new = f"number {len(client.responses)}"
    output = f"{client.standin.url}/output/{KERNEL}/v1/submission.csv"
    bodies: dict[str, Json] = {
        "StartBlobUpload": {"name": "a", "contentLength": 1},
        **dict.fromkeys(("GetDataset", "GetDatasetStatus", "ListDatasetFiles"), DATASET),
        "CreateDataset": {"ownerSlug": "me", "slug": new, "files": []},
        "CreateDatasetVersion": {**DATASET, "body": {"versionNotes": new}},
        "SaveKernel": {**PUSH, "text": new},
        **dict.fromkeys(
            ("GetKernel", "GetKernelSessionStatus", "ListKernelSessionOutput"), KERNEL_VERSION
        ),
        "CreateCodeSubmission": {**SUBMIT, "submissionDescription": new},
        **{
            name: {"competitionName": COMPETITION}
            for name in ("GetSubmissionLimits", "ListSubmissions")
        },
        "GetSubmission": {"ref": 1001},
    }
    if endpoint == "OUTPUT":
        return client.request(endpoint, "GET", output)
    if endpoint == "LOG":
        return client.request(endpoint, "GET", f"/api/v1/kernels/logs/stream/{KERNEL}")
    if endpoint == "PUT":
        return client.put(call(client, "StartBlobUpload").body["createUrl"], b"1")
    return client.rpc(endpoint, bodies[endpoint])


@pytest.mark.parametrize(("endpoint", "kind"), ANYWHERE)
def test_the_first_call_to_an_endpoint_has(endpoint: str, kind: str, ready: Client) -> None:
    before = count_objects(ready)
    ready.standin.inject(f"{endpoint}-{kind}")
    ready.timeout = 0.3 if kind == "hang" else 5.0
    response = call(ready, endpoint)
    ready.timeout = 5.0
    assert response.status == STATUS.get(kind, 0)
    after = response.headers.get("Retry-After")
    assert after == "2" if kind == "429-seconds" else bool(after) == (kind == "429-date")
    assert after in (None, "2") or parsedate_to_datetime(after).year == 2026
    assert (count_objects(ready) != before) == (kind == "lost")
    assert ready.standin.calls[-1].faults == (f"{endpoint}-{kind}",)
    assert call(ready, endpoint).status == 200


# Named faults


def statuses(client: Client, endpoint: str) -> list[int]:
    return [response.status for response in client.all(endpoint)]


def version_numbers(client: Client) -> list[Any]:
    return client.values("GetDataset", "currentVersionNumber")


def dataset_statuses(client: Client) -> list[Any]:
    return client.values("GetDatasetStatus", "status")


def kernel_statuses(client: Client) -> list[Any]:
    return client.values("GetKernelSessionStatus", "status")


def listings(client: Client) -> list[Any]:
    return client.values("ListDatasetFiles", "datasetFiles")


def is_refused(name: str) -> Callable[[Client], bool]:
    def look(client: Client) -> bool:
        (saved,) = client.standin.kaggle.kernels[KERNEL].versions
        return bool(client.values("SaveKernel", name)[0]) and saved.useless

    return look


def submission_statuses(client: Client) -> list[Any]:
    return [value[0]["status"] for value in client.values("ListSubmissions", "submissions")]


def has_older_output(client: Client) -> bool:
    request = {**KERNEL_VERSION, "versionLabel": "v2"}
    log = client.rpc("ListKernelSessionOutput", request).body["log"]
    return client.values("SaveKernel", "versionNumber") == [2] and "older" in log


def has_year(client: Client, year: str) -> bool:
    (version, *_) = client.values("GetDataset", "versions")[-1]
    return year in client.responses[0][1].headers["Date"] and year in version["creationDate"]


EXPECTED: dict[str, Callable[[Client], bool]] = {
    "PUT-503-halfway": lambda item: (
        statuses(item, "PUT")[:2] == [503, 200]
        and item.all("QUERY")[0].headers["Range"] == "bytes=0-4"
    ),
    "PUT-503-always": lambda item: set(statuses(item, "PUT")) == {503},
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
        item.values("CreateDataset", "invalidTags") == [["nlp"]] and version_numbers(item)[-1] == 2
    ),
    "dataset-404-at-first": lambda item: statuses(item, "GetDataset")[:2] == [404, 200],
    "version-does-not-move": lambda item: (
        item.values("CreateDataset", "status") == ["ok"] and not item.standin.kaggle.datasets
    ),
    "version-late": lambda item: (
        version_numbers(item)[:8] == [None] * 6 + [1, 1] and dataset_statuses(item)[7] == "READY"
    ),
    "version-moves-by-two": lambda item: version_numbers(item)[-1] == 3,
    "version-ready-before-the-number": lambda item: (
        dataset_statuses(item)[:3] == ["READY"] * 3
        and version_numbers(item)[:4] == [None] * 3 + [1]
    ),
    "version-failed": lambda item: (
        dataset_statuses(item)[1:8] == ["FAILED"] * 7 and version_numbers(item)[7] is None
    ),
    "listing-missing-file": lambda item: listings(item) == [[], []],
    "listing-late": lambda item: [len(page) for page in listings(item)] == [0, 1],
    "listing-wrong-size": lambda item: [page[0]["totalBytes"] for page in listings(item)] == [9, 4],
    "push-error": lambda item: (
        "session count" in item.values("SaveKernel", "error")[0] and not item.standin.kaggle.kernels
    ),
    "push-code-in-200": lambda item: (
        item.values("SaveKernel", "code") == [403] and statuses(item, "SaveKernel") == [200]
    ),
    "push-invalid-tags": is_refused("invalidTags"),
    "push-invalid-datasets": is_refused("invalidDatasetSources"),
    "push-invalid-competitions": is_refused("invalidCompetitionSources"),
    "push-invalid-kernels": is_refused("invalidKernelSources"),
    "push-invalid-models": is_refused("invalidModelSources"),
    "mounts-moved": lambda item: (
        "datasets/me/demo-bundle" in item.values("ListKernelSessionOutput", "log")[0]
    ),
    "readback-internet": lambda item: item.values("GetKernel", "metadata")[0]["enableInternet"],
    "readback-image": lambda item: (
        item.values("GetKernel", "metadata")[0]["dockerImage"] != PUSH["dockerImage"]
    ),
    "kernel-error": lambda item: (
        kernel_statuses(item)[-1] == "ERROR"
        and item.values("GetKernelSessionStatus", "failureMessage")[-1] == "Notebook Timeout"
    ),
    "kernel-canceled": lambda item: kernel_statuses(item)[-1] == "CANCEL_ACKNOWLEDGED",
    "kernel-no-submission": lambda item: (
        kernel_statuses(item)[-1] == "COMPLETE" and not item.all("OUTPUT")
    ),
    "kernel-empty-submission": lambda item: item.all("OUTPUT")[0].raw == b"",
    "kernel-never-ends": lambda item: set(kernel_statuses(item)) == {"RUNNING"},
    "kernel-older-status": has_older_output,
    "outputs-late": lambda item: item.values("ListKernelSessionOutput", "files") == [[]],
    "outputs-log-cut": lambda item: (
        not item.values("ListKernelSessionOutput", "log")[0].endswith("]")
    ),
    "OUTPUT-truncated": lambda item: item.all("OUTPUT") == [Response(0, raw=b"id")],
    "OUTPUT-truncated-once": lambda item: (
        item.all("OUTPUT") == [Response(0, raw=b"id")] and call(item, "OUTPUT").raw == b"id\n1\n"
    ),
    "OUTPUT-empty": lambda item: [response.raw for response in item.all("OUTPUT")] == [b""],
    "LOG-cut": lambda item: item.all("LOG")[0].status == 0 and item.all("LOG")[0].raw != b"",
    "limits-none-left": lambda item: item.values("GetSubmissionLimits", "numAllowedNow") == [0],
    "submission-error": lambda item: (
        submission_statuses(item)[-1] == "ERROR"
        and "Scoring" in item.values("GetSubmission", "errorDescription")[-1]
    ),
    "submission-404-at-first": lambda item: statuses(item, "GetSubmission") == [404, 200, 200],
    "submission-never-scored": lambda item: (
        set(submission_statuses(item)) == {"PENDING"} == set(item.values("GetSubmission", "status"))
    ),
    "429-always": lambda item: (
        {response.headers["Retry-After"] for _, response in item.responses} == {"2"}
    ),
    "clock-ahead": lambda item: has_year(item, "2027"),
    "clock-behind": lambda item: has_year(item, "2025"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_end_to_end_run_has(name: str, client: Client) -> None:
    client.standin.inject(name)
    client.run_all()
    assert EXPECTED[name](client)
    assert any(name in call.faults for call in client.standin.calls)


def test_without_a_fault_nothing_of_this_happens(client: Client) -> None:
    client.run_all()
    assert [name for name, look in EXPECTED.items() if _is_met(look, client)] == []


def _is_met(look: Callable[[Client], bool], client: Client) -> bool:
    try:
        return look(client)
    except (AssertionError, IndexError, KeyError, TypeError):
        return False


def test_a_hanging_server_sends_no_reply_until_it_closes(client: Client) -> None:
    client.timeout = 0.1
    client.standin.inject("hang")
    assert call(client, "GetDataset").status == call(client, "SaveKernel").status == 0
    assert count_objects(client) == [0, 0, 0, 0]


def test_these_tests_cover_the_catalogue() -> None:
    names = {f"{endpoint}-{kind}" for endpoint, kind in ANYWHERE}
    assert set(CATALOGUE) == names | set(EXPECTED) | {"hang"}


# Several faults


def test_the_second_of_two_faults_fires_on_the_next_call(client: Client) -> None:
    client.standin.inject("GetDataset-503", "GetDataset-429")
    assert [call(client, "GetDataset").status for _ in range(3)] == [503, 429, 404]


def test_a_fault_may_start_at_a_later_call(client: Client) -> None:
    client.standin.inject_faults(Fault(("GetDataset",), Reply(500), at=2, times=2))
    assert [call(client, "GetDataset").status for _ in range(4)] == [404, 500, 500, 404]


def test_changed_replies_end_when_faults_are_cleared(client: Client) -> None:
    client.standin.inject("submission-never-scored", "kernel-never-ends", "clock-ahead")
    client.run_all()
    client.standin.clear_faults()
    assert call(client, "GetKernelSessionStatus").body["status"] == "COMPLETE"
    last = call(client, "GetDataset")
    assert "2026" in last.headers["Date"]


@pytest.mark.parametrize(
    ("name", "step"),
    [("version-failed", "version"), ("kernel-error", "run"), ("push-invalid-datasets", "run")],
)
def test_a_failed_step_can_be_repeated(name: str, step: str, client: Client) -> None:
    client.create()
    if step == "run":
        client.version()
    client.standin.inject(name)
    getattr(client, step)()
    getattr(client, step)()
    client.standin.check()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([name for name in CATALOGUE if "hang" not in name]), max_size=6))
def test_no_sequence_of_faults_breaks_the_stand_in_itself(names: list[str]) -> None:
    with StandIn(demo()) as standin:
        standin.inject(*names)
        client = Client(standin)
        client.run_all()
        standin.clear_faults()
        client.run_all()


def test_the_command_line_lists_all_faults(capsys: pytest.CaptureFixture[str]) -> None:
    kagglestandin_server.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
