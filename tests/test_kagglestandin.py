"""The stand-in for Kaggle works with the official client, and its state is checked."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kagglestandin_server
import pytest
from kagglestandin_client import (
    COMPETITION,
    KERNEL,
    KERNEL_VERSION,
    NEW,
    OLD,
    PUSH,
    REF,
    SUBMIT,
    Client,
    kaggle,
    sha256,
)
from kagglestandin_server import StandIn, in_process
from kagglestandin_state import Json, KernelResult, Model


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn(kaggle()) as server:
        yield server


@pytest.fixture
def client(standin: StandIn) -> Client:
    return Client(standin)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace time.sleep; return the seconds of all sleeps."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def api(standin: StandIn, tmp_path: Path, sleeps: list[float]) -> Iterator[Any]:
    with in_process(standin, tmp_path / "home") as official:
        yield official


def folder(path: Path, contents: dict[str, bytes], name: str, **facts: Any) -> str:
    path.mkdir(exist_ok=True)
    for file, content in contents.items():
        (path / file).write_bytes(content)
    (path / name).write_text(json.dumps(facts))
    return str(path)


def dataset(path: Path, contents: dict[str, bytes]) -> str:
    facts = {"id": REF, "title": "Demo bundle", "licenses": [{"name": "other"}]}
    return folder(path / "bundle", contents, "dataset-metadata.json", **facts)


def script(path: Path, **facts: Any) -> str:
    code = {"code_file": "kernel.py", "language": "python", "kernel_type": "script"}
    metadata = {"id": KERNEL, "title": "Demo kernel", "enable_internet": False, **code, **facts}
    return folder(path / "kernel", {"kernel.py": b"print(1)\n"}, "kernel-metadata.json", **metadata)


# The official client in this process


def test_the_client_creates_a_dataset_and_a_version(
    api: Any, standin: StandIn, tmp_path: Path
) -> None:
    reply = api.dataset_create_new(dataset(tmp_path, OLD), quiet=True)
    assert (reply.status, reply.error) == ("ok", "")
    created = standin.kaggle.datasets[REF]
    assert (created.private, created.license, created.title) == (True, "other", "Demo bundle")
    statuses = [json.loads(api.dataset_status(REF, "json")) for _ in range(2)]
    assert [list(status.values()) for status in statuses] == [["blobs_received", 0], ["ready", 1]]
    assert api.dataset_create_new(dataset(tmp_path, OLD), quiet=True).status == "error"
    api.dataset_create_version(dataset(tmp_path, NEW), "sha256:00000002", quiet=True)
    for _ in range(2):
        statuses = [json.loads(api.dataset_status(REF, "json"))]
    assert statuses == [{"status": "ready", "current_version_number": 2}]
    assert [version.contents for version in created.versions] == [sha256(OLD), sha256(NEW)]
    listed = api.dataset_list_files(REF, page_size=1)
    assert [file_path.name for file_path in listed.dataset_files] == ["a.bin"]
    listed = api.dataset_list_files(f"{REF}/2", page_token=listed.next_page_token)
    assert [(file_path.name, file_path.total_bytes) for file_path in listed.dataset_files] == [
        ("b.txt", 5)
    ]
    standin.check()


def test_the_client_runs_a_kernel_and_submits_it(
    api: Any, standin: StandIn, tmp_path: Path
) -> None:
    mounts: list[dict[str, dict[str, bytes]]] = []

    def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
        mounts.append(mounted)
        files = {f"part-{number:02}.txt": b"x" for number in range(24)}
        return KernelResult({"submission.csv": b"id\n1\n", **files}, "one\ntwo\n")

    standin.kaggle.runner = runner
    standin.kaggle.models["you/gem/transformers/2b/3"] = Model({"w": b"1"})
    Client(standin).create()
    sources = {
        "dataset_sources": [f"{REF}/1", f"{REF}/7"],
        "competition_sources": [COMPETITION, "other"],
    }
    models = {"model_sources": ["you/gem/transformers/2b/3"], "kernel_sources": ["me/unknown"]}
    pushed = api.kernels_push(script(tmp_path, **sources, **models))
    assert (pushed.version_number, pushed.error) == (1, "")
    assert list(pushed.invalid_dataset_sources) == [f"{REF}/7"]
    assert list(pushed.invalid_competition_sources) == ["other"]
    assert list(pushed.invalid_kernel_sources) == ["me/unknown"]
    assert [api.kernels_status(f"{KERNEL}/1").status.name for _ in range(3)] == [
        *("QUEUED", "RUNNING", "COMPLETE"),
    ]
    model = {"gem/transformers/2b/3": {"w": b"1"}}
    assert mounts == [{"demo-bundle": OLD, COMPETITION: {"test.csv": b"id\n1\n"}, **model}]
    files, _ = api.kernels_output(f"{KERNEL}/1", str(tmp_path / "out"))
    assert len(files) == 26
    assert (tmp_path / "out" / "submission.csv").read_bytes() == b"id\n1\n"
    assert [event["data"] for event in api.kernels_logs_stream(f"{KERNEL}/1")] == ["one\n", "two\n"]
    api.kernels_pull(f"{KERNEL}/1", str(tmp_path / "pulled"), metadata=True)
    pulled = json.loads((tmp_path / "pulled" / "kernel-metadata.json").read_text())
    assert (pulled["enable_internet"], pulled["dataset_sources"]) == (False, [f"{REF}/1"])
    submitted = api.competition_submit_code("submission.csv", "kp1:1", COMPETITION, KERNEL, 1)
    statuses = [api.get_submission(submitted.ref).status.name for _ in range(2)]
    assert statuses == ["PENDING", "COMPLETE"]
    (listed,) = api.competition_submissions(COMPETITION)
    assert (listed.public_score, listed.description) == ("0.51200", "kp1:1")
    assert api.competition_get_submission_limits(COMPETITION).num_allowed_now == 4
    assert standin.kaggle.kernels[KERNEL].versions[0].request["enableInternet"] is False


@pytest.mark.parametrize(
    "name",
    [
        *("PUT-503-halfway", "PUT-drop-halfway", "PUT-lost", "PUT-503", "QUERY-308-no-range"),
        *("session-expired", "StartBlobUpload-429", "CreateDataset-drop", "CreateDataset-429-date"),
    ],
)
def test_the_client_recovers_from(name: str, api: Any, standin: StandIn, tmp_path: Path) -> None:
    standin.inject(name)
    assert api.dataset_create_new(dataset(tmp_path, OLD), quiet=True).status == "ok"
    standin.check()
    assert len(standin.kaggle.datasets[REF].versions) == 1


@pytest.mark.parametrize("name", ["PUT-403", "PUT-308", "QUERY-500", "PUT-503-always"])
def test_the_client_gives_up_on(name: str, api: Any, standin: StandIn, tmp_path: Path) -> None:
    standin.inject(name)
    with pytest.raises(ValueError, match="Upload unsuccessful"):
        api.dataset_create_new(dataset(tmp_path, OLD), quiet=True)
    assert standin.kaggle.datasets == {}


def test_the_client_duplicates_a_version_with_a_lost_reply(
    api: Any, standin: StandIn, client: Client, tmp_path: Path
) -> None:
    client.create()
    standin.inject("CreateDatasetVersion-lost")
    api.dataset_create_version(dataset(tmp_path, NEW), "sha256:00000002", quiet=True)
    assert len(standin.sent("CreateDatasetVersion")) == 2
    with pytest.raises(AssertionError, match="duplicates in versions of me/demo-bundle"):
        standin.check()


def test_the_client_waits_as_long_as_requested(
    api: Any, standin: StandIn, sleeps: list[float]
) -> None:
    standin.inject("GetSubmission-429-seconds", "GetSubmission-429-date")
    with pytest.raises(Exception, match="Submission not found"):
        api.get_submission(1)
    assert sleeps == [2.0, 0.0]  # a date in the past


@pytest.mark.parametrize("name", ["OUTPUT-truncated", "OUTPUT-403"])
def test_the_client_detects_a_truncated_output(
    name: str, api: Any, standin: StandIn, client: Client, tmp_path: Path
) -> None:
    client.create()
    client.run()
    standin.inject(name)
    with pytest.raises(importlib.import_module("requests").exceptions.RequestException):
        api.kernels_output(KERNEL, str(tmp_path / "out"))


def test_the_client_detects_a_truncated_log(api: Any, standin: StandIn, client: Client) -> None:
    client.rpc("SaveKernel", PUSH)  # it is still running
    assert [event["data"] for event in api.kernels_logs_stream(KERNEL)][-1] == "done\n"
    standin.inject("LOG-cut")
    with pytest.raises(importlib.import_module("requests").exceptions.ChunkedEncodingError):
        list(api.kernels_logs_stream(KERNEL))


def test_the_private_names_that_in_process_patches_exist() -> None:
    environment = importlib.import_module("kagglesdk.kaggle_env")
    assert hasattr(environment, "_env_to_endpoint"), "in_process() needs another way"
    assert environment._env_to_endpoint[environment.KaggleEnv.LOCAL] == "http://localhost"
    assert isinstance(importlib.import_module("kaggle").KaggleApi.args, list)


def test_a_client_without_the_private_name_is_refused(
    standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("kagglesdk.kaggle_env._env_to_endpoint")
    refused = pytest.raises(AssertionError, match="no longer has _env_to_endpoint")
    with refused, in_process(standin, tmp_path):
        pass


def test_changes_to_the_process_are_undone(standin: StandIn, tmp_path: Path) -> None:
    api = importlib.import_module("kaggle").api
    environment = importlib.import_module("kagglesdk.kaggle_env")

    def state() -> list[Any]:
        endpoints = dict(environment._env_to_endpoint)
        patched = [api.args, api.config_dir, dict(api.config_values), tempfile.tempdir]
        return [dict(os.environ), endpoints, *patched]

    before = state()
    with in_process(standin, tmp_path) as connected:
        assert connected is api
        assert state() != before
    assert state() == before


# The official client in another process


def run(standin: StandIn, home: Path, *words: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "kaggle", *words],
        env=standin.environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_command_line_goes_from_files_to_a_score(standin: StandIn, tmp_path: Path) -> None:
    standin.inject("GetDataset-429", "PUT-503-halfway")
    home = tmp_path / "home"
    output = run(standin, home, "datasets", "create", "-p", dataset(tmp_path, OLD))
    assert "is being created" in output
    Client(standin).settle()
    status = json.loads(run(standin, home, "datasets", "status", REF, "--format", "json"))
    assert status == {"status": "ready", "current_version_number": 1}
    output = run(standin, home, "kernels", "push", "-p", script(tmp_path))
    assert "Kernel version 1 successfully pushed" in output
    standin.kaggle.kernels[KERNEL].versions[0].waits.clear()
    assert "COMPLETE" in run(standin, home, "kernels", "status", f"{KERNEL}/1")
    words = ("-k", KERNEL, "-v", "1", "-f", "submission.csv", "-m", "kp1:1")
    output = run(standin, home, "competitions", "submit", COMPETITION, *words)
    assert output == (
        "Submission ref: 1001\n4 submissions remaining today.\n"
        "Successfully submitted to buggy-rules"
    )
    assert [call.endpoint for call in standin.calls if call.endpoint in ("PUT", "QUERY")] == [
        *("PUT", "QUERY", "PUT", "PUT"),
    ]
    assert list((home / "tmp").glob(".kaggle-uploads-*/*")) == []
    standin.check()


def test_the_environment_is_complete(standin: StandIn, tmp_path: Path) -> None:
    environment = standin.environment(tmp_path)
    dead = "http://127.0.0.1:9"
    proxies = {"http_proxy": standin.url, "https_proxy": dead, "no_proxy": ""}
    assert environment == {
        **proxies,
        **{name.upper(): value for name, value in proxies.items()},
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_USERNAME": "me",
        "KAGGLE_KEY": "k",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
    }


# Replies


def test_both_forms_of_a_request_line_work(standin: StandIn) -> None:
    client = Client(standin)
    for path in ("/api/v1", "http://localhost/api/v1"):
        url = f"{path}/security.OAuthService/IntrospectToken"
        response = client.request("IntrospectToken", "POST", url, b'{"token": "t"}')
        assert response.body == {"active": True, "username": "me"}


def test_missing_objects_return_errors(client: Client) -> None:
    assert client.rpc("GetDataset", {"ownerSlug": "me", "datasetSlug": "x"}).status == 404
    assert client.rpc("GetKernel", KERNEL_VERSION).status == 403
    client.rpc("SaveKernel", PUSH)
    assert client.rpc("CreateCodeSubmission", SUBMIT).status == 400  # it is still running
    for label, status in (("v1", 200), ("1", 404), ("v2", 404), ("", 200)):
        request = {**KERNEL_VERSION, "versionLabel": label}
        assert client.rpc("GetKernelSessionStatus", request).status == status
    assert client.rpc("GetSubmissionLimits", {"competitionName": "other"}).status == 404
    assert client.rpc("SaveKernel", {**PUSH, "slug": "you/kernel"}).status == 403
    url = "/api/v1/datasets.DatasetApiService/GetDataset"
    response = client.request("GetDataset", "POST", url, b"{}", Authorization="Basic eDp5")
    assert response.status == 401


def test_an_upload_resumes_and_may_mix_two_builds(client: Client) -> None:
    session = client.rpc("StartBlobUpload", {"name": "a.bin", "contentLength": 10}).body
    assert client.query(session["createUrl"], 10).headers.get("Range") is None
    client.standin.inject("PUT-503-halfway")
    client.put(session["createUrl"], OLD["a.bin"])
    assert client.query(session["createUrl"], 10).headers["Range"] == "bytes=0-4"
    assert client.put(session["createUrl"], NEW["a.bin"][7:], 7).status == 400
    assert client.put(session["createUrl"], NEW["a.bin"][5:], 5).status == 200
    assert client.standin.kaggle.blobs[session["token"]].data == OLD["a.bin"][:5] + NEW["a.bin"][5:]
    client.rpc("CreateDataset", {"ownerSlug": "me", "slug": "demo-bundle", "files": [session]})
    with pytest.raises(AssertionError, match=r"version 1 holds .* which is not a known build"):
        client.standin.check()


def test_an_incomplete_file_creates_no_version(client: Client) -> None:
    session = client.rpc("StartBlobUpload", {"name": "a.bin", "contentLength": 10}).body
    request = {"ownerSlug": "me", "slug": "demo-bundle", "files": [session]}
    assert client.rpc("CreateDataset", request).body["status"] == "error"
    assert client.standin.kaggle.datasets == {}


def test_a_source_that_is_not_ready_is_dropped(client: Client) -> None:
    client.files(OLD)
    request = {"ownerSlug": "me", "slug": "demo-bundle", "files": [{"token": "blob-1"}]}
    client.rpc("CreateDataset", request)
    push = {**PUSH, "datasetDataSources": [REF, f"{REF}/1"]}
    assert client.rpc("SaveKernel", push).body["invalidDatasetSources"] == [REF, f"{REF}/1"]
    client.settle()
    assert "invalidDatasetSources" not in client.rpc("SaveKernel", push).body


def test_models_and_quota_are_returned(client: Client, api: Any) -> None:
    for number in (3, 20):
        client.standin.kaggle.models[f"you/gem/transformers/2b/{number}"] = Model({})
    request = {"ownerSlug": "you", "modelSlug": "gem", "instanceSlug": "2b"}
    reply = client.rpc("GetModelInstance", {**request, "framework": "MODEL_FRAMEWORK_TRANSFORMERS"})
    assert (reply.body["versionNumber"], reply.body["licenseName"]) == (20, "Apache 2.0")
    assert api.quota_view().gpu_quota.total_time_allowed.total_seconds() == 36000


def test_submissions_per_day_are_limited(client: Client) -> None:
    client.run_all()
    for number in range(2, 6):
        body = {**SUBMIT, "submissionDescription": f"kp1:{number}"}
        assert client.rpc("CreateCodeSubmission", body).status == 200
    assert client.rpc("CreateCodeSubmission", SUBMIT).status == 400
    limits = client.rpc("GetSubmissionLimits", {"competitionName": COMPETITION}).body
    assert limits == {"numToday": 5, "numTotal": 5, "numAllowedNow": 0}


# State


def test_an_end_to_end_run_is_consistent_and_every_call_is_recorded(client: Client) -> None:
    client.run_all()
    client.standin.check()
    assert {response.status for _, response in client.responses} == {200}
    assert [call.endpoint for call in client.standin.calls] == [
        endpoint for endpoint, _ in client.responses
    ]
    assert client.standin.sent("SaveKernel") == [PUSH]


@pytest.mark.parametrize("step", ["version", "run", "submit"])
def test_duplicates_are_detected(step: str, client: Client) -> None:
    client.run_all()
    getattr(client, step)()
    with pytest.raises(AssertionError, match="duplicates"):
        client.standin.check()


def test_two_runs_are_identical() -> None:
    def run_client() -> list[Any]:
        with StandIn(kaggle()) as standin:
            client = Client(standin)
            client.run_all()
            return [
                (endpoint, str(response).replace(str(standin.port), ""))
                for endpoint, response in client.responses
            ]

    assert run_client() == run_client()


def test_an_error_of_the_stand_in_itself_is_raised() -> None:
    def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
        raise ValueError("no rehearsal")

    with pytest.raises(ValueError, match="no rehearsal"), StandIn(kaggle(runner=runner)) as server:
        Client(server).run_all()


# Command line


def test_the_command_line_prints_the_environment(tmp_path: Path) -> None:
    words = [sys.executable, kagglestandin_server.__file__, "--fault", "hang", "PUT-403"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(13)]
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
    assert lines[0] == "unset KAGGLE_API_TOKEN\n"
    assert "export KAGGLE_API_ENVIRONMENT=LOCALHOST\n" in lines
    assert lines[-1] == "python -m kaggle competitions submissions buggy-rules\n"
