"""The real client is opened as pinned, by our clock and scratch, and put back as it was."""

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
from deploy.kaggle_api.end_to_end import Stopwatch, Voyage
from kagglestandin_plan import Fault, Reply
from kagglestandin_server import StandIn, in_process

from parity.deploy.kaggle_api import retry as calls
from parity.deploy.kaggle_api import session
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import LONGEST
from parity.run.errors import BadConfig, KaggleRejected, OutcomeUnknown

LOGINS = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")


@pytest.fixture
def reached(standin: StandIn, tmp_path: Path) -> Iterator[StandIn]:
    """Let this process's client reach the stand-in, and yield that."""
    with in_process(standin, tmp_path / "home"):
        yield standin


@pytest.fixture
def inner(reached: StandIn) -> Iterator[pytest.MonkeyPatch]:
    """Patch what is undone before the stand-in is left: undone later, it would put a login back."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def refused(kind: type[Exception], clock: Stopwatch) -> str:
    """Return the one line with which the door stays shut."""
    with pytest.raises(kind) as caught, session.opened(clock):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is opened


@pytest.mark.parametrize(("name", "wanted"), session.CLIENT.items())
@pytest.mark.parametrize("version", ["2.2.4", "99", ""])
def test_another_client_is_refused(
    name: str, wanted: str, version: str, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def found(asked: str) -> str:
        if asked == name and not version:
            raise importlib.metadata.PackageNotFoundError(name)
        return version if asked == name else real(asked)

    monkeypatch.setattr(importlib.metadata, "version", found)
    assert refused(BadConfig, clock) == (
        f"{name} is {version or 'not installed'}, wanted {wanted}; "
        f"run: pip install --no-deps {name}=={wanted}"
    )


@pytest.mark.parametrize("value", ["TEST", "localhost", "STAGING", "prod", " PROD"])
def test_an_environment_that_silently_means_production_is_refused(
    value: str, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", value)
    line = f"KAGGLE_API_ENVIRONMENT={value!r} would silently mean production; unset it"
    assert refused(BadConfig, clock) == line


@pytest.mark.parametrize("value", [None, *session.ENVIRONMENTS])
def test_an_environment_that_is_what_it_says_is_taken(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_ENVIRONMENT", raising=False)
    if value is not None:
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", value)
    session.check_client()


# The login


def test_no_login_is_told_in_one_line(
    reached: StandIn,
    clock: Stopwatch,
    inner: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in LOGINS:
        inner.delenv(name, raising=False)
    assert refused(BadConfig, clock).startswith(
        "no login for Kaggle: put an API token at ~/.kaggle"
    )
    assert capfd.readouterr() == ("", "")
    assert reached.calls == []


def test_no_login_ends_a_fresh_process_without_a_traceback(tmp_path: Path) -> None:
    code = (
        "from parity.deploy.kaggle_api import client as door, clock\n"
        "from parity.run.errors import BadConfig\n"
        "try:\n"
        "    door.opened(clock.WallClock()).__enter__()\n"
        "except BadConfig as error:\n"
        "    print(error)\n"
    )
    place = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    words = [sys.executable, "-c", code]
    ended = subprocess.run(words, env=place, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == ""
    (line,) = ended.stdout.splitlines()
    assert line.startswith("no login for Kaggle")


@pytest.mark.parametrize(
    "reply",
    [
        *(Reply(401), Reply(403), Reply(400), Reply(200, {"active": False})),
        Reply(200, {"code": 401, "message": "Expired"}),
    ],
)
def test_a_token_that_kaggle_does_not_take_is_refused(
    reply: Reply, reached: StandIn, clock: Stopwatch, inner: pytest.MonkeyPatch
) -> None:
    for name in LOGINS:
        inner.delenv(name, raising=False)
    inner.setenv("KAGGLE_API_TOKEN", "kp" * 9)
    reached.inject_faults(Fault(("IntrospectToken",), reply, times=9))
    line = "Kaggle refused the login; make a new token, then: invoke doctor"
    assert refused(KaggleRejected, clock) == line


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_kaggle_that_does_not_answer_refuses_no_login(
    status: int, reached: StandIn, clock: Stopwatch, inner: pytest.MonkeyPatch
) -> None:
    inner.setenv("KAGGLE_API_TOKEN", "kp" * 9)
    reached.inject_faults(Fault(("IntrospectToken",), Reply(status), times=9))
    assert refused(OutcomeUnknown, clock) == "Kaggle does not answer at the login; try again later"


def test_a_token_that_kaggle_takes_tells_the_user(way: Voyage) -> None:
    with in_process(way.standin, way.folder / "home"), pytest.MonkeyPatch.context() as inner:
        for name in LOGINS:
            inner.delenv(name, raising=False)
        inner.setenv("KAGGLE_API_TOKEN", "kp" * 9)
        with session.opened(way.clock) as api:
            assert KaggleClient(api, way.clock).user == "me"


def test_a_key_that_kaggle_does_not_take_is_refused_at_the_first_call(way: Voyage) -> None:
    with in_process(way.standin, way.folder / "home"), pytest.MonkeyPatch.context() as inner:
        inner.setenv("KAGGLE_KEY", "another")
        with session.opened(way.clock) as api:
            line = r"^limits of small: Kaggle says 'Unauthenticated' \(401\); run: invoke doctor$"
            with pytest.raises(KaggleRejected, match=line):
                KaggleClient(api, way.clock).competitions.left("small")


# Timeouts and sleeps


def test_every_request_has_our_timeout_whatever_the_client_asks(
    way: Voyage, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = importlib.import_module("requests.adapters").HTTPAdapter
    real, seen = adapter.send, set()

    def send(self: Any, request: Any, **options: Any) -> Any:
        seen.add((request.method, options["timeout"]))
        return real(self, request, **options)

    monkeypatch.setattr(adapter, "send", send)
    way.sail()
    assert seen == {(method, session.TIMEOUT) for method in ("GET", "POST", "PUT")}


class Noted(Stopwatch):
    """Keeps every sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.slept.append(seconds)


@pytest.fixture
def noted(way: Voyage, monkeypatch: pytest.MonkeyPatch) -> Noted:
    """Return the clock of a voyage on which nobody may really sleep."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s by the wall clock")

    monkeypatch.setattr(time, "sleep", sleep)
    clock = Noted()
    way.clock = clock
    return clock


def uploaded(way: Voyage) -> None:
    parcel = way.parcels["bundle"]
    with way.door() as door, door.datasets.uploaded(parcel.folder, way.folder / "uploads"):
        pass


def test_the_clients_sleeps_go_by_our_clock(way: Voyage, noted: Noted) -> None:
    way.standin.inject("StartBlobUpload-429-seconds", "StartBlobUpload-429")
    uploaded(way)
    assert noted.slept[0] == 2.0
    assert len(noted.slept) == 2


def test_sleeps_of_the_clients_connections_go_by_our_clock(way: Voyage, noted: Noted) -> None:
    way.standin.inject(*["PUT-drop"] * 3)
    uploaded(way)
    assert noted.slept == [1.0, 2.0]


def test_the_clients_sleeps_have_an_end(way: Voyage, noted: Noted) -> None:
    year = Reply(429, {"code": 429, "message": "Later"}, "31536000")
    way.standin.inject_faults(Fault(("StartBlobUpload",), year, times=2))
    uploaded(way)
    assert noted.slept == [LONGEST] * 2


# What is replaced


def replaced() -> list[Any]:
    """Return all that is another while the client is open."""
    extended = importlib.import_module("kaggle.api.kaggle_api_extended")
    adapters = importlib.import_module("requests.adapters")
    retry = importlib.import_module("urllib3.util.retry")
    kept = [adapters.HTTPAdapter.send, extended.time, extended.tqdm, retry.time]
    return [*kept, tempfile.tempdir, sys.stdout, sys.stderr, time.sleep]


def test_everything_replaced_is_as_before_afterwards(reached: StandIn, clock: Stopwatch) -> None:
    before = replaced()
    with session.opened(clock):
        inside = replaced()
        assert [here is there for here, there in zip(inside, before, strict=True)] == [
            *[False] * 4,  # the client's
            *[True] * 4,  # everybody's
        ]
    assert replaced() == before


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_everything_is_as_before_after_an_error(
    error: type[BaseException], reached: StandIn, clock: Stopwatch
) -> None:
    before = replaced()
    with pytest.raises(error), session.opened(clock):
        raise error
    assert replaced() == before


def test_everything_is_as_before_where_there_is_no_login(
    reached: StandIn, clock: Stopwatch, inner: pytest.MonkeyPatch
) -> None:
    for name in LOGINS:
        inner.delenv(name, raising=False)
    before = replaced()
    refused(BadConfig, clock)
    assert replaced() == before


def test_the_client_says_nothing_and_we_may(
    way: Voyage, capsys: pytest.CaptureFixture[str]
) -> None:
    way.standin.inject("StartBlobUpload-drop", "PUT-503-halfway", "OUTPUT-truncated-once")
    with way.door():
        sys.stdout.write("ours")
    way.sail()
    assert capsys.readouterr() == ("ours", "")


def test_its_bars_are_ours_and_are_seen(
    way: Voyage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bar:
        n = 0

        def update(self, more: int) -> None:
            self.n += more

    @contextmanager
    def progress(label: str, total: int, unit: str, done: int) -> Iterator[Bar]:
        bar, terminal = Bar(), sys.stderr
        yield bar
        terminal.write(f"{label} {done + bar.n} of {total} {unit}\n")

    monkeypatch.setattr(session, "progress", progress)
    way.sail()
    said = capsys.readouterr().err.splitlines()
    sizes = [size for parcel in way.parcels.values() for size in parcel.sizes.values()]
    uploads = [line for line in said if line.startswith("upload")]
    assert sorted(uploads) == sorted(f"upload {size} of {size} B" for size in sizes)
    assert {line.split()[0] for line in said} == {"upload", "download"}


# Scratch


def test_upload_state_is_kept_in_the_scratch_folder_and_nowhere_else(
    way: Voyage, tmp_path: Path
) -> None:
    parcel, scratch = way.parcels["bundle"], tmp_path / "new" / "abc"
    with way.door() as door:
        outside = tempfile.gettempdir()
        with door.datasets.uploaded(parcel.folder, scratch) as tokens:
            kept = [path for path in scratch.rglob("*.json") if path.is_file()]
            assert len(kept) == len(tokens) == len(parcel.sizes)
            assert tempfile.gettempdir() == str(scratch)
        assert tempfile.gettempdir() == outside
    assert list(Path(outside).iterdir()) == []


def test_the_scratch_folder_is_one_place_wherever_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with session.scratch(Path("here")):
        assert tempfile.gettempdir() == str(tmp_path / "here")


@pytest.mark.parametrize("error", [KaggleRejected, KeyboardInterrupt])
def test_the_scratch_folder_survives_an_error_and_the_place_is_put_back(
    error: type[BaseException], tmp_path: Path
) -> None:
    before = tempfile.tempdir
    with pytest.raises(error), session.scratch(tmp_path / "here"):
        raise error
    assert tempfile.tempdir is before
    assert (tmp_path / "here").is_dir()


# What an import costs


def test_importing_the_room_imports_no_client(root: Path, tmp_path: Path) -> None:
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
    place = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    ended = subprocess.run(words, env=place, capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("\n", "")


def test_a_server_that_never_answers_is_given_up(
    way: Voyage, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_to_end.hurried(monkeypatch)
    way.standin.inject("hang")
    begun = time.monotonic()
    with way.door() as door, pytest.raises(OutcomeUnknown, match="no answer in time, 6 times"):
        door.competitions.left(end_to_end.COMPETITION)
    assert time.monotonic() - begun < 10
    assert way.clock.now() == sum(2.0**n for n in range(1, calls.TRIES))
