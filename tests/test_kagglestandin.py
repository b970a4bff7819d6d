"""The stand-in for Kaggle: the real client believes it, and what it holds is checked."""

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
    ASKED,
    GAME,
    KERNEL,
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
    with StandIn(kaggle()) as one:
        yield one


@pytest.fixture
def client(standin: StandIn) -> Client:
    return Client(standin)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let nobody sleep; return the seconds that somebody would have slept."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def api(standin: StandIn, tmp_path: Path, slept: list[float]) -> Iterator[Any]:
    with in_process(standin, tmp_path / "home") as one:
        yield one


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
    named = {"id": KERNEL, "title": "Demo kernel", "enable_internet": False, **code, **facts}
    return folder(path / "kernel", {"kernel.py": b"print(1)\n"}, "kernel-metadata.json", **named)


# The real client in this process


def test_the_client_makes_a_dataset_and_then_a_version(
    api: Any, standin: StandIn, tmp_path: Path
) -> None:
    made = api.dataset_create_new(dataset(tmp_path, OLD), quiet=True)
    assert (made.status, made.error) == ("ok", "")
    held = standin.kaggle.datasets[REF]
    assert (held.private, held.license, held.title) == (True, "other", "Demo bundle")
    told = [json.loads(api.dataset_status(REF, "json")) for _ in range(2)]
    assert [list(one.values()) for one in told] == [["blobs_received", 0], ["ready", 1]]
    assert api.dataset_create_new(dataset(tmp_path, OLD), quiet=True).status == "error"
    api.dataset_create_version(dataset(tmp_path, NEW), "sha256:00000002", quiet=True)
    for _ in range(2):
        told = [json.loads(api.dataset_status(REF, "json"))]
    assert told == [{"status": "ready", "current_version_number": 2}]
    assert [version.contents for version in held.versions] == [sha256(OLD), sha256(NEW)]
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
    given: list[dict[str, dict[str, bytes]]] = []

    def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
        given.append(mounted)
        files = {f"part-{number:02}.txt": b"x" for number in range(24)}
        return KernelResult({"submission.csv": b"id\n1\n", **files}, "one\ntwo\n")

    standin.kaggle.runner = runner
    standin.kaggle.models["you/gem/transformers/2b/3"] = Model({"w": b"1"})
    Client(standin).create()
    sources = {"dataset_sources": [f"{REF}/1", f"{REF}/7"], "competition_sources": [GAME, "other"]}
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
    assert given == [{"demo-bundle": OLD, GAME: {"test.csv": b"id\n1\n"}, **model}]
    files, _ = api.kernels_output(f"{KERNEL}/1", str(tmp_path / "out"))
    assert len(files) == 26
    assert (tmp_path / "out" / "submission.csv").read_bytes() == b"id\n1\n"
    assert [one["data"] for one in api.kernels_logs_stream(f"{KERNEL}/1")] == ["one\n", "two\n"]
    api.kernels_pull(f"{KERNEL}/1", str(tmp_path / "pulled"), metadata=True)
    pulled = json.loads((tmp_path / "pulled" / "kernel-metadata.json").read_text())
    assert (pulled["enable_internet"], pulled["dataset_sources"]) == (False, [f"{REF}/1"])
    made = api.competition_submit_code("submission.csv", "kp1:1", GAME, KERNEL, 1)
    assert [api.get_submission(made.ref).status.name for _ in range(2)] == ["PENDING", "COMPLETE"]
    (listed,) = api.competition_submissions(GAME)
    assert (listed.public_score, listed.description) == ("0.51200", "kp1:1")
    assert api.competition_get_submission_limits(GAME).num_allowed_now == 4
    assert standin.kaggle.kernels[KERNEL].versions[0].request["enableInternet"] is False


@pytest.mark.parametrize(
    "name",
    [
        *("PUT-503-halfway", "PUT-drop-halfway", "PUT-lost", "PUT-503", "QUERY-308-no-range"),
        *("session-expired", "StartBlobUpload-429", "CreateDataset-drop", "CreateDataset-429-date"),
    ],
)
def test_the_client_gets_over(name: str, api: Any, standin: StandIn, tmp_path: Path) -> None:
    standin.inject(name)
    assert api.dataset_create_new(dataset(tmp_path, OLD), quiet=True).status == "ok"
    standin.check()
    assert len(standin.kaggle.datasets[REF].versions) == 1


@pytest.mark.parametrize("name", ["PUT-403", "PUT-308", "QUERY-500", "PUT-503-for-ever"])
def test_the_client_gives_up_on(name: str, api: Any, standin: StandIn, tmp_path: Path) -> None:
    standin.inject(name)
    with pytest.raises(ValueError, match="Upload unsuccessful"):
        api.dataset_create_new(dataset(tmp_path, OLD), quiet=True)
    assert standin.kaggle.datasets == {}


def test_the_client_doubles_a_version_whose_reply_is_lost(
    api: Any, standin: StandIn, client: Client, tmp_path: Path
) -> None:
    client.create()
    standin.inject("CreateDatasetVersion-lost")
    api.dataset_create_version(dataset(tmp_path, NEW), "sha256:00000002", quiet=True)
    assert len(standin.sent("CreateDatasetVersion")) == 2
    with pytest.raises(AssertionError, match="doubled: versions of me/demo-bundle"):
        standin.check()


def test_the_client_waits_as_long_as_it_is_told(
    api: Any, standin: StandIn, slept: list[float]
) -> None:
    standin.inject("GetSubmission-429-seconds", "GetSubmission-429-date")
    with pytest.raises(Exception, match="Submission not found"):
        api.get_submission(1)
    assert slept == [2.0, 0.0]  # a date that has passed


@pytest.mark.parametrize("name", ["OUTPUT-truncated", "OUTPUT-403"])
def test_the_client_sees_that_an_output_is_not_whole(
    name: str, api: Any, standin: StandIn, client: Client, tmp_path: Path
) -> None:
    client.create()
    client.run()
    standin.inject(name)
    with pytest.raises(importlib.import_module("requests").exceptions.RequestException):
        api.kernels_output(KERNEL, str(tmp_path / "out"))


def test_the_client_sees_that_a_log_is_cut(api: Any, standin: StandIn, client: Client) -> None:
    client.rpc("SaveKernel", PUSH)  # it runs still
    assert [one["data"] for one in api.kernels_logs_stream(KERNEL)][-1] == "done\n"
    standin.inject("LOG-cut")
    with pytest.raises(importlib.import_module("requests").exceptions.ChunkedEncodingError):
        list(api.kernels_logs_stream(KERNEL))


def test_the_names_that_the_client_is_turned_by_are_there() -> None:
    environment = importlib.import_module("kagglesdk.kaggle_env")
    assert hasattr(environment, "_env_to_endpoint"), "in_process() must find another way"
    assert environment._env_to_endpoint[environment.KaggleEnv.LOCAL] == "http://localhost"
    assert isinstance(importlib.import_module("kaggle").KaggleApi.args, list)


def test_a_client_without_the_name_is_refused_and_not_let_loose(
    standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("kagglesdk.kaggle_env._env_to_endpoint")
    gone = pytest.raises(AssertionError, match="no _env_to_endpoint any more")
    with gone, in_process(standin, tmp_path):
        pass


def test_everything_is_as_before_afterwards(standin: StandIn, tmp_path: Path) -> None:
    api = importlib.import_module("kaggle").api
    environment = importlib.import_module("kagglesdk.kaggle_env")

    def state() -> list[Any]:
        endpoints = dict(environment._env_to_endpoint)
        kept = [api.args, api.config_dir, dict(api.config_values), tempfile.tempdir]
        return [dict(os.environ), endpoints, *kept]

    before = state()
    with in_process(standin, tmp_path) as inside:
        assert inside is api
        assert state() != before
    assert state() == before


# The real client in a process of its own


def run(standin: StandIn, home: Path, *words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "kaggle", *words],
        env=standin.environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_command_line_goes_from_files_to_a_score(standin: StandIn, tmp_path: Path) -> None:
    standin.inject("GetDataset-429", "PUT-503-halfway")
    home = tmp_path / "home"
    said = run(standin, home, "datasets", "create", "-p", dataset(tmp_path, OLD))
    assert "is being created" in said
    Client(standin).settle()
    told = json.loads(run(standin, home, "datasets", "status", REF, "--format", "json"))
    assert told == {"status": "ready", "current_version_number": 1}
    said = run(standin, home, "kernels", "push", "-p", script(tmp_path))
    assert "Kernel version 1 successfully pushed" in said
    standin.kaggle.kernels[KERNEL].versions[0].waits.clear()
    assert "COMPLETE" in run(standin, home, "kernels", "status", f"{KERNEL}/1")
    words = ("-k", KERNEL, "-v", "1", "-f", "submission.csv", "-m", "kp1:1")
    said = run(standin, home, "competitions", "submit", GAME, *words)
    assert said == (
        "Submission ref: 1001\n4 submissions remaining today.\n"
        "Successfully submitted to buggy-rules"
    )
    assert [call.place for call in standin.calls if call.place in ("PUT", "QUERY")] == [
        *("PUT", "QUERY", "PUT", "PUT"),
    ]
    assert list((home / "tmp").glob(".kaggle-uploads-*/*")) == []
    standin.check()


def test_the_environment_is_the_recipe(standin: StandIn, tmp_path: Path) -> None:
    found = standin.environment(tmp_path)
    dead = "http://127.0.0.1:9"
    proxies = {"http_proxy": standin.url, "https_proxy": dead, "no_proxy": ""}
    assert found == {
        **proxies,
        **{name.upper(): value for name, value in proxies.items()},
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_USERNAME": "me",
        "KAGGLE_KEY": "k",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
    }


# The contract


def test_both_forms_of_a_request_line_are_understood(standin: StandIn) -> None:
    client = Client(standin)
    for path in ("/api/v1", "http://localhost/api/v1"):
        url = f"{path}/security.OAuthService/IntrospectToken"
        seen = client.say("IntrospectToken", "POST", url, b'{"token": "t"}')
        assert seen.body == {"active": True, "username": "me"}


def test_what_is_not_there_is_not_there(client: Client) -> None:
    assert client.rpc("GetDataset", {"ownerSlug": "me", "datasetSlug": "x"}).status == 404
    assert client.rpc("GetKernel", ASKED).status == 403
    client.rpc("SaveKernel", PUSH)
    assert client.rpc("CreateCodeSubmission", SUBMIT).status == 400  # it runs still
    for label, status in (("v1", 200), ("1", 404), ("v2", 404), ("", 200)):
        asked = {**ASKED, "versionLabel": label}
        assert client.rpc("GetKernelSessionStatus", asked).status == status
    assert client.rpc("GetSubmissionLimits", {"competitionName": "other"}).status == 404
    assert client.rpc("SaveKernel", {**PUSH, "slug": "you/kernel"}).status == 403
    url = "/api/v1/datasets.DatasetApiService/GetDataset"
    assert client.say("GetDataset", "POST", url, b"{}", Authorization="Basic eDp5").status == 401


def test_an_upload_takes_up_where_it_was_and_may_mix_two_builds(client: Client) -> None:
    begun = client.rpc("StartBlobUpload", {"name": "a.bin", "contentLength": 10}).body
    assert client.query(begun["createUrl"], 10).headers.get("Range") is None
    client.standin.inject("PUT-503-halfway")
    client.put(begun["createUrl"], OLD["a.bin"])
    assert client.query(begun["createUrl"], 10).headers["Range"] == "bytes=0-4"
    assert client.put(begun["createUrl"], NEW["a.bin"][7:], 7).status == 400
    assert client.put(begun["createUrl"], NEW["a.bin"][5:], 5).status == 200
    assert client.standin.kaggle.blobs[begun["token"]].data == OLD["a.bin"][:5] + NEW["a.bin"][5:]
    client.rpc("CreateDataset", {"ownerSlug": "me", "slug": "demo-bundle", "files": [begun]})
    with pytest.raises(AssertionError, match=r"version 1 holds .* which nobody built"):
        client.standin.check()


def test_a_file_that_did_not_arrive_makes_no_version(client: Client) -> None:
    begun = client.rpc("StartBlobUpload", {"name": "a.bin", "contentLength": 10}).body
    made = {"ownerSlug": "me", "slug": "demo-bundle", "files": [begun]}
    assert client.rpc("CreateDataset", made).body["status"] == "error"
    assert client.standin.kaggle.datasets == {}


def test_a_source_that_is_not_ready_is_left_out(client: Client) -> None:
    client.files(OLD)
    made = {"ownerSlug": "me", "slug": "demo-bundle", "files": [{"token": "blob-1"}]}
    client.rpc("CreateDataset", made)
    push = {**PUSH, "datasetDataSources": [REF, f"{REF}/1"]}
    assert client.rpc("SaveKernel", push).body["invalidDatasetSources"] == [REF, f"{REF}/1"]
    client.settle()
    assert "invalidDatasetSources" not in client.rpc("SaveKernel", push).body


def test_models_and_quota_are_told(client: Client, api: Any) -> None:
    for number in (3, 20):
        client.standin.kaggle.models[f"you/gem/transformers/2b/{number}"] = Model({})
    asked = {"ownerSlug": "you", "modelSlug": "gem", "instanceSlug": "2b"}
    found = client.rpc("GetModelInstance", {**asked, "framework": "MODEL_FRAMEWORK_TRANSFORMERS"})
    assert (found.body["versionNumber"], found.body["licenseName"]) == (20, "Apache 2.0")
    assert api.quota_view().gpu_quota.total_time_allowed.total_seconds() == 36000


def test_a_day_has_only_so_many_submissions(client: Client) -> None:
    client.play()
    for number in range(2, 6):
        body = {**SUBMIT, "submissionDescription": f"kp1:{number}"}
        assert client.rpc("CreateCodeSubmission", body).status == 200
    assert client.rpc("CreateCodeSubmission", SUBMIT).status == 400
    limits = client.rpc("GetSubmissionLimits", {"competitionName": GAME}).body
    assert limits == {"numToday": 5, "numTotal": 5, "numAllowedNow": 0}


# What it holds


def test_a_whole_chain_is_consistent_and_every_call_is_kept(client: Client) -> None:
    client.play()
    client.standin.check()
    assert {seen.status for _, seen in client.seen} == {200}
    assert [call.place for call in client.standin.calls] == [place for place, _ in client.seen]
    assert client.standin.sent("SaveKernel") == [PUSH]


@pytest.mark.parametrize("twice", ["version", "run", "submit"])
def test_what_is_doubled_is_found(twice: str, client: Client) -> None:
    client.play()
    getattr(client, twice)()
    with pytest.raises(AssertionError, match="doubled"):
        client.standin.check()


def test_two_plays_are_the_same() -> None:
    def play() -> list[Any]:
        with StandIn(kaggle()) as standin:
            client = Client(standin)
            client.play()
            return [
                (place, str(seen).replace(str(standin.port), "")) for place, seen in client.seen
            ]

    assert play() == play()


def test_a_fault_of_the_stand_in_itself_is_not_hidden() -> None:
    def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
        raise ValueError("no rehearsal")

    with pytest.raises(ValueError, match="no rehearsal"), StandIn(kaggle(runner=runner)) as one:
        Client(one).play()


# By hand


def test_it_runs_by_hand_and_says_how_to_reach_it(tmp_path: Path) -> None:
    words = [sys.executable, kagglestandin_server.__file__, "--fault", "hang", "PUT-403"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(13)]
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
    assert said[0] == "unset KAGGLE_API_TOKEN\n"
    assert "export KAGGLE_API_ENVIRONMENT=LOCALHOST\n" in said
    assert said[-1] == "python -m kaggle competitions submissions buggy-rules\n"
