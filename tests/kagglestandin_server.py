"""The HTTP server of the stand-in for Kaggle on 127.0.0.1, with faults by name.

`python tests/kagglestandin_server.py` starts it and prints the environment variables with which the
official client talks to it. With them, no request of the client can leave the machine.
"""

import argparse
import base64
import contextlib
import importlib
import json
import os
import re
import shlex
import signal
import socket
import socketserver
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

from kagglestandin import Kaggle, events
from kagglestandin_faults import CATALOGUE
from kagglestandin_plan import (
    Call,
    Drop,
    Effect,
    Empty,
    Fault,
    Fired,
    HalfGet,
    HalfPut,
    Hang,
    Plan,
    Reply,
)
from kagglestandin_state import Competition, HttpError, Json

NOWHERE = "http://127.0.0.1:9"
"""The address of a proxy that does not exist."""
_KEY = "k"
_UPLOAD, _OUTPUT = "/upload/", "/output/"
_LOGS = "/api/v1/kernels/logs/stream/"
_API = "/api/v1/"


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply before it is sent."""

    status: int
    payload: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json; charset=utf-8"


class StandIn:
    """A server that runs inside a `with` block.

    Attributes:
        kaggle: state; may be read and changed between calls.
        plan: active faults; see also `inject` and `clear_faults`.
        calls: every call so far.
        crashes: errors of the stand-in itself; the end of the `with` block raises the first.
    """

    def __init__(self, kaggle: Kaggle | None = None, *, port: int = 0) -> None:
        self.kaggle = kaggle or Kaggle()
        self.plan = Plan()
        self.calls: list[Call] = []
        self.crashes: list[BaseException] = []
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler, bind_and_activate=False)
        self._server.standin = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._server.server_bind()
        self._server.server_activate()
        self.kaggle.base = self.url
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self.crashes and error is None:
            raise self.crashes[0]

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inject(self, *names: str) -> None:
        """Activate faults of the catalogue from the next call on, in this order."""
        with self.lock:
            for name in names:
                self.plan.add(name, CATALOGUE[name]())

    def inject_faults(self, *faults: Fault) -> None:
        """Activate faults that are not in the catalogue from the next call on."""
        with self.lock:
            self.plan.add("custom", faults)

    def clear_faults(self) -> None:
        """Deactivate all faults and correct the clock."""
        with self.lock:
            self.plan.clear()
            self.kaggle.skew = timedelta()

    def check(self) -> None:
        """Raise AssertionError if anything is duplicated or matches no build."""
        with self.lock:
            self.kaggle.check()

    def sent(self, endpoint: str) -> list[Json]:
        """Return the bodies of all calls to an endpoint."""
        with self.lock:
            return [call.body for call in self.calls if call.endpoint == endpoint]

    def environment(self, home: Path) -> dict[str, str]:
        """Return the complete environment of a client in another process.

        Args:
            home: a scratch folder; its folder `tmp` is created.
        """
        scratch = home / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        proxies = {"http_proxy": self.url, "https_proxy": NOWHERE, "no_proxy": ""}
        return {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            **proxies,
            **{name.upper(): value for name, value in proxies.items()},
            "HOME": str(home),
            "TMPDIR": str(scratch),
            "KAGGLE_USERNAME": self.kaggle.user,
            "KAGGLE_KEY": _KEY,
        }


@contextlib.contextmanager
def in_process(standin: StandIn, home: Path) -> Iterator[Any]:
    """Connect this process's official client to the stand-in; yield the client, `kaggle.api`.

    All changes are undone afterwards. Proxies are set so that only 127.0.0.1 is reachable.

    Raises:
        AssertionError: kagglesdk or kaggle no longer has the private names that this relies on.
    """
    kaggle_env = importlib.import_module("kagglesdk.kaggle_env")
    endpoints = getattr(kaggle_env, "_env_to_endpoint", None)
    assert isinstance(endpoints, dict), "kagglesdk.kaggle_env no longer has _env_to_endpoint"
    unset = ("KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "KAGGLE_API_VERBOSE", "XDG_CONFIG_HOME")
    proxies = {"http_proxy": NOWHERE, "https_proxy": NOWHERE, "no_proxy": "127.0.0.1"}
    changed = standin.environment(home) | proxies
    changed |= {name.upper(): value for name, value in proxies.items()}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | changed
    local = {kaggle_env.KaggleEnv.LOCAL: standin.url}
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.dict(endpoints, local),
        mock.patch.object(tempfile, "tempdir", changed["TMPDIR"]),
    ):
        api = importlib.import_module("kaggle").api  # the import logs in, so not before
        kind = type(api)
        folder = home / ".kaggle"
        folder.mkdir(exist_ok=True)
        assert isinstance(getattr(kind, "args", None), list), "KaggleApi no longer has args"
        with (
            mock.patch.object(kind, "args", ["--local"]),
            mock.patch.object(kind, "config_dir", str(folder)),
            mock.patch.object(kind, "config", str(folder / "kaggle.json")),
            mock.patch.object(api, "config_values", {}),
        ):
            api.authenticate()
            yield api


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    standin: StandIn

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # the parent's version queries a name server

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.standin.crashes.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # header and body are two writes
    server: _Server

    @property
    def standin(self) -> StandIn:
        return self.server.standin

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(self.standin.kaggle.now(), usegmt=True)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        method = path.removeprefix(_API)
        if not path.startswith(_API):
            return self._send(_error(404, f"the stand-in has no {path}"))
        if not self._logged_in() and not method.endswith("/IntrospectToken"):
            return self._send(_error(401, "Unauthenticated"))
        body = json.loads(data or b"{}")
        endpoint = method.split("/")[-1]
        fired = self._fire(endpoint)

        def act() -> Answer:
            for hook in fired.hooks:
                hook.before(self.standin.kaggle, body)
            reply = self.standin.kaggle.answer(method, body)
            for hook in fired.hooks:
                reply = hook.after(self.standin.kaggle, body, reply)
            return _json(200, reply)

        return self._serve(endpoint, body, fired, act)

    def do_PUT(self) -> None:
        token = urlsplit(self.path).path.removeprefix(_UPLOAD)
        size = int(self.headers.get("Content-Length", 0))
        span = self.headers.get("Content-Range", "")
        kaggle = self.standin.kaggle
        if span.startswith("bytes */"):
            return self._upload("QUERY", {"token": token}, lambda: kaggle.query(token))
        fired = self._fire("PUT")
        data = self.rfile.read(size // 2 if isinstance(fired.effect, HalfPut) else size)
        if isinstance(fired.effect, HalfPut) and fired.effect.status:
            self.rfile.read(size - len(data))
        match = re.match(r"bytes (\d+)-", span)
        first = int(match.group(1)) if match else 0
        body = {"token": token, "first": first, "bytes": len(data)}
        return self._upload("PUT", body, lambda: kaggle.put(token, first, data), fired)

    def _upload(
        self,
        endpoint: str,
        body: Json,
        take: Callable[[], tuple[int, dict[str, str]]],
        fired: Fired | None = None,
    ) -> None:
        fired = fired or self._fire(endpoint)

        def act() -> Answer:
            for hook in fired.hooks:
                hook.before(self.standin.kaggle, body)
            status, headers = take()
            return Answer(status, b"{}" if status == 200 else b"", headers)

        self._serve(endpoint, body, fired, act)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith(_OUTPUT):
            owner, slug, label, name = url.path.removeprefix(_OUTPUT).split("/", 3)
            body = {"userName": owner, "kernelSlug": slug, "versionLabel": label}
            return self._get("OUTPUT", {**body, "fileName": unquote(name)}, self._output)
        if url.path.startswith(_LOGS):
            owner, slug = url.path.removeprefix(_LOGS).split("/")
            labels = parse_qs(url.query).get("versionLabel", [""])
            body = {"userName": owner, "kernelSlug": slug, "versionLabel": labels[0]}
            return self._get("LOG", body, self._log)
        return self._send(_error(404, f"the stand-in has no {url.path}"))

    def _get(self, endpoint: str, body: Json, find: Callable[[Json], Answer]) -> None:
        self._serve(endpoint, body, self._fire(endpoint), lambda: find(body))

    def _output(self, body: Json) -> Answer:
        kaggle = self.standin.kaggle
        content = kaggle.run(kaggle.saved(body)).files.get(body["fileName"])
        if content is None:
            raise HttpError(404, "no such file")
        return Answer(200, content, kind="application/octet-stream")

    def _log(self, body: Json) -> Answer:
        kaggle = self.standin.kaggle
        saved = kaggle.saved(body)
        lines = events(kaggle.run(saved).log)
        if not saved.waits:
            return Answer(200, json.dumps(lines).encode())
        events_sent = [*map(json.dumps, lines), "END_OF_LOG"]
        stream = "".join(f"data: {event}\n\n" for event in events_sent)
        return Answer(200, stream.encode(), kind="text/event-stream")

    # Serving of every call

    def _logged_in(self) -> bool:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return kind == "Bearer" and bool(value)
        return base64.b64decode(value).decode() == f"{self.standin.kaggle.user}:{_KEY}"

    def _fire(self, endpoint: str) -> Fired:
        with self.standin.lock:
            return self.standin.plan.fire(endpoint)

    def _serve(self, endpoint: str, body: Json, fired: Fired, act: Callable[[], Answer]) -> None:
        standin, effect = self.standin, fired.effect
        with standin.lock:
            received = json.loads(json.dumps(body))  # a hook may change it
            answer = self._carry_out(effect, act)
            silent = isinstance(effect, Drop | Hang) or effect == HalfPut()
            status = 0 if silent else answer.status
            standin.calls.append(Call(endpoint, received, status, fired.names))
        if isinstance(effect, Hang):
            standin.closing.wait()
        if silent:
            return self._hang_up()
        length = len(answer.payload)
        if isinstance(effect, HalfGet):
            answer = replace(answer, payload=answer.payload[: length // 2])
        return self._send(answer, length)

    def _carry_out(self, effect: Effect | None, act: Callable[[], Answer]) -> Answer:
        if isinstance(effect, Hang) or effect == Drop():
            return Answer(0)
        if isinstance(effect, Reply):
            return self._replacement(effect)
        try:
            answer = act()
        except HttpError as refusal:
            answer = _error(refusal.status, refusal.message)
        if isinstance(effect, HalfPut):
            return Answer(effect.status)
        return replace(answer, payload=b"") if isinstance(effect, Empty) else answer

    def _replacement(self, effect: Reply) -> Answer:
        later = self.standin.kaggle.now() + timedelta(seconds=2)
        after = format_datetime(later, usegmt=True) if effect.retry_after == "date" else None
        value = after or effect.retry_after
        answer = _json(effect.status, effect.body) if effect.body else Answer(effect.status)
        return replace(answer, headers={"Retry-After": value} if value else {})

    def _send(self, answer: Answer, length: int | None = None) -> None:
        length = len(answer.payload) if length is None else length
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind if answer.payload else "text/plain")
        self.send_header("Content-Length", str(length))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.payload)
        if length > len(answer.payload):
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client may have disconnected
            self.connection.shutdown(socket.SHUT_RDWR)


def _json(status: int, reply: Json) -> Answer:
    return Answer(status, json.dumps(reply).encode())


def _error(status: int, message: str) -> Answer:
    return _json(status, {"code": status, "message": message})


def main(words: list[str] | None = None) -> None:
    """Run the stand-in until it is interrupted."""
    parser = argparse.ArgumentParser(description="A stand-in for Kaggle on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0 selects a free port")
    parser.add_argument("--fault", nargs="+", default=[], choices=CATALOGUE, metavar="NAME")
    parser.add_argument("--competition", default="buggy-rules", help="slug of the competition")
    parser.add_argument("--list", action="store_true", help="print all faults and exit")
    options = parser.parse_args(words)
    if options.list:
        lines = [f"{name:36}{entry.description}\n" for name, entry in CATALOGUE.items()]
        sys.stdout.writelines(lines)
        return
    kaggle = Kaggle()
    kaggle.competitions[options.competition] = Competition()
    # A shell starts background jobs with SIGINT ignored, so they would never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted = contextlib.suppress(KeyboardInterrupt)
    with interrupted, StandIn(kaggle, port=options.port) as standin:
        standin.inject(*options.fault)
        with tempfile.TemporaryDirectory() as home:
            exported = standin.environment(Path(home)).items()
            lines = [f"export {name}={shlex.quote(value)}\n" for name, value in exported]
            example = f"python -m kaggle competitions submissions {options.competition}\n"
            sys.stdout.writelines(["unset KAGGLE_API_TOKEN\n", *lines, example])
            sys.stdout.flush()
            standin.closing.wait()


if __name__ == "__main__":
    main()
