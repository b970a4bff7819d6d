"""The official client is pinned, uses our clock and upload folder, and is restored on exit."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from deploy.kaggle_api import end_to_end
from deploy.kaggle_api.end_to_end import FakeClock, Shipment
from kagglestandin_plan import Fault, Reply
from kagglestandin_server import StandIn, in_process

from parity.deploy.kaggle_api import retry, session
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import LONGEST
from parity.run.errors import BadConfig, KaggleRejected, OutcomeUnknown

LOGINS = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")


@pytest.fixture
def connected(standin: StandIn, tmp_path: Path) -> Iterator[StandIn]:
    """Connect the official client of this process to the stand-in."""
    with in_process(standin, tmp_path / "home"):
        yield standin


@pytest.fixture
def patch(connected: StandIn) -> Iterator[pytest.MonkeyPatch]:
    """Return a patch that is undone before the stand-in disconnects, which restores the login."""
    with pytest.MonkeyPatch.context() as context:
        yield context


def open_error(kind: type[Exception], clock: FakeClock) -> str:
    """Return the error message of opening the client, one line."""
    with pytest.raises(kind) as error, session.open_api(clock):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


# Version and server


@pytest.mark.parametrize(("name", "pinned"), session.CLIENT.items())
@pytest.mark.parametrize("version", ["2.2.4", "99", ""])
def test_another_client_version_is_refused(
    name: str, pinned: str, version: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def installed(package: str) -> str:
        if package == name and not version:
            raise importlib.metadata.PackageNotFoundError(name)
        return version if package == name else real(package)

    monkeypatch.setattr(importlib.metadata, "version", installed)
    assert open_error(BadConfig, clock) == (
        f"{name} must be {pinned} but is {version or 'not installed'}; "
        f"run: pip install --no-deps {name}=={pinned}"
    )


@pytest.mark.parametrize("value", ["TEST", "localhost", "STAGING", "prod", " PROD"])
def test_a_server_name_that_silently_selects_production_is_refused(
    value: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", value)
    message = f"KAGGLE_API_ENVIRONMENT={value!r} silently selects production; unset it"
    assert open_error(BadConfig, clock) == message


@pytest.mark.parametrize("value", [None, *session.ENVIRONMENTS])
def test_a_valid_server_name_is_accepted(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_ENVIRONMENT", raising=False)
    if value is not None:
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", value)
    session.check_client()


# The login


def test_a_missing_login_is_one_line(
    connected: StandIn,
    clock: FakeClock,
    patch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in LOGINS:
        patch.delenv(name, raising=False)
    assert open_error(BadConfig, clock).startswith(
        "no Kaggle login; save an API token as ~/.kaggle"
    )
    assert capfd.readouterr() == ("", "")
    assert connected.calls == []


def test_a_missing_login_in_a_new_process_has_no_traceback(tmp_path: Path) -> None:
    code = (
        "from parity.deploy.kaggle_api import client, clock\n"
        "from parity.run.errors import BadConfig\n"
        "try:\n"
        "    client.open_client(clock.WallClock()).__enter__()\n"
        "except BadConfig as error:\n"
        "    print(error)\n"
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    words = [sys.executable, "-c", code]
    result = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    assert line.startswith("no Kaggle login")


@pytest.mark.parametrize(
    "reply",
    [
        *(Reply(401), Reply(403), Reply(400), Reply(200, {"active": False})),
        Reply(200, {"code": 401, "message": "Expired"}),
    ],
)
def test_a_token_that_kaggle_refuses_is_a_rejection(
    reply: Reply, connected: StandIn, clock: FakeClock, patch: pytest.MonkeyPatch
) -> None:
    for name in LOGINS:
        patch.delenv(name, raising=False)
    patch.setenv("KAGGLE_API_TOKEN", "kp" * 9)
    connected.inject_faults(Fault(("IntrospectToken",), reply, times=9))
    message = "Kaggle refused the login; create a new API token"
    assert open_error(KaggleRejected, clock) == message


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_unavailable_kaggle_is_not_a_refused_login(
    status: int, connected: StandIn, clock: FakeClock, patch: pytest.MonkeyPatch
) -> None:
    patch.setenv("KAGGLE_API_TOKEN", "kp" * 9)
    connected.inject_faults(Fault(("IntrospectToken",), Reply(status), times=9))
    assert (
        open_error(OutcomeUnknown, clock) == "Kaggle does not respond to the login; try again later"
    )


def test_an_accepted_token_gives_the_user(shipment: Shipment) -> None:
    with (
        in_process(shipment.standin, shipment.folder / "home"),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in LOGINS:
            patch.delenv(name, raising=False)
        patch.setenv("KAGGLE_API_TOKEN", "kp" * 9)
        with session.open_api(shipment.clock) as api:
            assert KaggleClient(api, shipment.clock).user == "me"


def test_a_refused_key_is_a_rejection_at_the_first_call(shipment: Shipment) -> None:
    with (
        in_process(shipment.standin, shipment.folder / "home"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("KAGGLE_KEY", "another")
        with session.open_api(shipment.clock) as api:
            message = r"^limits of small: Kaggle says 'Unauthenticated' \(401\)$"
            with pytest.raises(KaggleRejected, match=message):
                KaggleClient(api, shipment.clock).competitions.submissions_left("small")


# Timeouts and sleeps


def test_every_request_has_our_timeout(shipment: Shipment, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = importlib.import_module("requests.adapters").HTTPAdapter
    real, seen = adapter.send, set()

    def send(self: Any, request: Any, **options: Any) -> Any:
        seen.add((request.method, options["timeout"]))
        return real(self, request, **options)

    monkeypatch.setattr(adapter, "send", send)
    shipment.ship()
    assert seen == {(method, session.TIMEOUT) for method in ("GET", "POST", "PUT")}


class RecordingClock(FakeClock):
    """Records every sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.sleeps.append(seconds)


@pytest.fixture
def recorder(shipment: Shipment, monkeypatch: pytest.MonkeyPatch) -> RecordingClock:
    """Return the clock of a shipment in which the wall clock must not be used."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s by the wall clock")

    monkeypatch.setattr(time, "sleep", sleep)
    clock = RecordingClock()
    shipment.clock = clock
    return clock


def upload_bundle(shipment: Shipment) -> None:
    upload = shipment.uploads["bundle"]
    with (
        shipment.client() as client,
        client.datasets.upload(upload.folder, shipment.folder / "uploads"),
    ):
        pass


def test_the_client_sleeps_by_our_clock(shipment: Shipment, recorder: RecordingClock) -> None:
    shipment.standin.inject("StartBlobUpload-429-seconds", "StartBlobUpload-429")
    upload_bundle(shipment)
    assert recorder.sleeps[0] == 2.0
    assert len(recorder.sleeps) == 2


def test_the_clients_connections_sleep_by_our_clock(
    shipment: Shipment, recorder: RecordingClock
) -> None:
    shipment.standin.inject(*["PUT-drop"] * 3)
    upload_bundle(shipment)
    assert recorder.sleeps == [1.0, 2.0]


def test_the_clients_sleeps_are_capped(shipment: Shipment, recorder: RecordingClock) -> None:
    year = Reply(429, {"code": 429, "message": "Later"}, "31536000")
    shipment.standin.inject_faults(Fault(("StartBlobUpload",), year, times=2))
    upload_bundle(shipment)
    assert recorder.sleeps == [LONGEST] * 2


# Replacements


def replaced_objects() -> list[Any]:
    """Return all objects that may be replaced while the client is open."""
    extended = importlib.import_module("kaggle.api.kaggle_api_extended")
    adapters = importlib.import_module("requests.adapters")
    urllib3_retry = importlib.import_module("urllib3.util.retry")
    client = [adapters.HTTPAdapter.send, extended.time, extended.tqdm, urllib3_retry.time]
    return [*client, tempfile.tempdir, sys.stdout, sys.stderr, time.sleep]


def test_replacements_are_undone(connected: StandIn, clock: FakeClock) -> None:
    before = replaced_objects()
    with session.open_api(clock):
        during = replaced_objects()
        assert [new is old for new, old in zip(during, before, strict=True)] == [
            *[False] * 4,  # the client's
            *[True] * 4,  # shared with other code
        ]
    assert replaced_objects() == before


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_replacements_are_undone_after_an_error(
    error: type[BaseException], connected: StandIn, clock: FakeClock
) -> None:
    before = replaced_objects()
    with pytest.raises(error), session.open_api(clock):
        raise error
    assert replaced_objects() == before


def test_replacements_are_undone_without_a_login(
    connected: StandIn, clock: FakeClock, patch: pytest.MonkeyPatch
) -> None:
    for name in LOGINS:
        patch.delenv(name, raising=False)
    before = replaced_objects()
    open_error(BadConfig, clock)
    assert replaced_objects() == before


def test_only_the_client_is_silenced(
    shipment: Shipment, capsys: pytest.CaptureFixture[str]
) -> None:
    shipment.standin.inject("StartBlobUpload-drop", "PUT-503-halfway", "OUTPUT-truncated-once")
    with shipment.client():
        sys.stdout.write("ours")
    shipment.ship()
    assert capsys.readouterr() == ("ours", "")


def test_progress_bars_are_ours_and_visible(
    shipment: Shipment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bar:
        n = 0

        def update(self, count: int) -> None:
            self.n += count

    @contextmanager
    def progress(label: str, total: int, unit: str, done: int) -> Iterator[Bar]:
        bar, terminal = Bar(), sys.stderr
        yield bar
        terminal.write(f"{label} {done + bar.n} of {total} {unit}\n")

    monkeypatch.setattr(session, "progress", progress)
    shipment.ship()
    lines = capsys.readouterr().err.splitlines()
    sizes = [size for upload in shipment.uploads.values() for size in upload.sizes.values()]
    uploads = [line for line in lines if line.startswith("upload")]
    assert sorted(uploads) == sorted(f"upload {size} of {size} B" for size in sizes)
    assert {line.split()[0] for line in lines} == {"upload", "download"}


# Upload state


def test_upload_state_is_only_in_the_given_folder(shipment: Shipment, tmp_path: Path) -> None:
    upload, scratch = shipment.uploads["bundle"], tmp_path / "new" / "abc"
    with shipment.client() as client:
        outside = tempfile.gettempdir()
        with client.datasets.upload(upload.folder, scratch) as tokens:
            states = [path for path in scratch.rglob("*.json") if path.is_file()]
            assert len(states) == len(tokens) == len(upload.sizes)
            assert tempfile.gettempdir() == str(scratch)
        assert tempfile.gettempdir() == outside
    assert list(Path(outside).iterdir()) == []


def test_a_relative_upload_folder_is_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with session.keep_upload_state(Path("state")):
        assert tempfile.gettempdir() == str(tmp_path / "state")


@pytest.mark.parametrize("error", [KaggleRejected("refused"), KeyboardInterrupt()])
def test_the_upload_folder_survives_an_error(error: BaseException, tmp_path: Path) -> None:
    before = tempfile.tempdir
    with pytest.raises(type(error)), session.keep_upload_state(tmp_path / "state"):
        raise error
    assert tempfile.tempdir is before
    assert (tmp_path / "state").is_dir()


# Imports and timeouts


def test_importing_the_package_imports_no_client(root: Path, tmp_path: Path) -> None:
    names = [
        f"parity.deploy.kaggle_api.{path.stem}"
        for path in (root / "src/parity/deploy/kaggle_api").glob("*.py")
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {sorted(names)}: importlib.import_module(name)\n"
        "clients = {'kaggle', 'kagglesdk', 'requests', 'urllib3', 'torch'}\n"
        "print(*(clients & set(sys.modules)))\n"
    )
    words = [sys.executable, "-c", code]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    result = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert (result.stdout, result.stderr) == ("\n", "")


def test_a_server_that_never_replies_times_out(
    shipment: Shipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_to_end.shorten_timeouts(monkeypatch)
    shipment.standin.inject("hang")
    started = time.monotonic()
    with (
        shipment.client() as client,
        pytest.raises(OutcomeUnknown, match="no reply in time after 6 tries"),
    ):
        client.competitions.submissions_left(end_to_end.COMPETITION)
    assert time.monotonic() - started < 10
    assert shipment.clock.now() == sum(2.0**n for n in range(1, retry.TRIES))
