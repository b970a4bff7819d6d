"""A small end-to-end run, from an adapter to a score: official client, our client, stand-in."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kagglestandin import Kaggle
from kagglestandin_server import StandIn, in_process
from kagglestandin_state import SUBMISSION, Competition, Json, KernelResult

from parity.deploy.bundle import sealed_folder
from parity.deploy.kaggle_api import client as kaggle_client
from parity.deploy.kaggle_api import follow, publish, push, session, submit
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import Clock
from parity.deploy.kaggle_api.follow import KernelVersion
from parity.deploy.kaggle_api.publish import DatasetUpload, Published
from parity.deploy.kaggle_api.types import KaggleKernel, KaggleSubmission
from parity.run import digest, files
from parity.run.errors import Mismatch, RunFailed

COMPETITION = "buggy-rules"
FILE = "submission.csv"
IMAGE = f"gcr.io/kaggle-gpu-images/python@sha256:{'ab' * 32}"
SCORE, PRIVATE = "0.51200", "0.49800"
SHORT_TIMEOUT = (0.4, 0.4)
"""Timeouts in seconds for a server that never replies."""


class FakeClock:
    """A clock whose sleeps take no time but are counted."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
    """Report which bundle is mounted, as the kernel does."""
    bundles = [
        json.loads(contents["manifest.json"])["digest"]
        for contents in mounted.values()
        if json.loads(contents.get("manifest.json", b"{}")).get("kind") == "bundle"
    ]
    if len(bundles) != 1:
        return KernelResult({}, "no bundle under input/\n", "ERROR", "exit code 1")
    report = json.dumps({"bundle": bundles[0]}).encode()
    return KernelResult({SUBMISSION: b"id,ids\n1,2\n", "run_report.json": report}, "done\n")


class Shipment:
    """One adapter to ship; `ship` takes it from uploads to a score and can be repeated.

    Attributes:
        standin: the stand-in for Kaggle.
        clock: clock for all waiting.
        folder: scratch folder.
        failed: kernel versions that failed.
    """

    def __init__(self, standin: StandIn, folder: Path, clock: Clock | None = None) -> None:
        self.standin, self.folder, self.clock = standin, folder, clock or FakeClock()
        self.failed: set[int] = set()
        self.uploads = {kind: self._upload(kind) for kind in ("wheelhouse", "bundle")}

    def _upload(self, kind: Any) -> DatasetUpload:
        folder = self.folder / kind
        if not folder.is_dir():
            folder.mkdir()
            for number in range(3):
                path = folder / f"{kind}-{number}.json"
                path.write_text(json.dumps([kind, "x" * 3000, number]))
            sealed_folder.seal(folder, kind, {})
        sealed = sealed_folder.read(folder)
        upload = DatasetUpload(
            f"me/small-{kind}", f"small {kind}", "other", folder, sealed.sizes(), sealed.digest
        )
        contents = {name: digest.of_file(folder / name) for name in upload.sizes}
        self.standin.kaggle.expect(upload.ref, contents)
        return upload

    @contextmanager
    def client(self) -> Iterator[KaggleClient]:
        with (
            in_process(self.standin, self.folder / "home"),
            kaggle_client.open_client(self.clock) as client,
        ):
            yield client

    def kernel(self, sources: list[Published]) -> KaggleKernel:
        bundle, wheelhouse = (self.uploads[name].digest for name in ("bundle", "wheelhouse"))
        key = push.kernel_key(bundle, wheelhouse, self.failed)
        return KaggleKernel(
            ref="me/small-kernel",
            title="small kernel",
            text=push.add_key("print('ranking')\n", key),
            kind="script",
            image=IMAGE,
            machine="NvidiaTeslaT4",
            gpu=True,
            datasets=tuple(sorted(source.pinned for source in sources)),
            competitions=(COMPETITION,),
        )

    def check_output(self, folder: Path) -> None:
        submission, report = folder / SUBMISSION, folder / "run_report.json"
        if not submission.is_file():
            raise RunFailed(f"the kernel wrote no {SUBMISSION}")
        if not submission.stat().st_size or not report.is_file():
            raise RunFailed("the kernel wrote an empty submission or no report")
        if files.read_json(report)["bundle"] != self.uploads["bundle"].digest:
            raise Mismatch("the output is from another bundle")

    def ship(self) -> KaggleSubmission:
        """Publish, push, follow, submit and collect the score."""
        with self.client() as client:
            scratch = self.folder / "uploads"
            sources = [publish.publish(client, upload, scratch) for upload in self.uploads.values()]
            pushed = push.push(client, self.kernel(sources), scratch, self.failed)
            version = KernelVersion(pushed.ref, pushed.version)
            try:
                return self._follow(client, version, scratch)
            except RunFailed:
                self.failed.add(version.number)
                raise

    def _follow(
        self, client: KaggleClient, version: KernelVersion, scratch: Path
    ) -> KaggleSubmission:
        follow.wait_until_complete(client, version, minutes=600)
        follow.download_output(client, version, self.folder / "output", self.check_output)
        key = submit.submission_key(self.uploads["bundle"].digest, version.number)
        submitted = submit.submit(client, COMPETITION, version, key, scratch, file=FILE)
        return follow.wait_for_score(client, COMPETITION, submitted.ref, key, minutes=600)


def make_kaggle() -> Kaggle:
    """Return a stand-in's state with the competition, and kernels that behave like ours."""
    kaggle = Kaggle(runner=runner)
    kaggle.competitions[COMPETITION] = Competition({"test.csv": b"QuestionId\n1\n"})
    return kaggle


def shorten_timeouts(patch: pytest.MonkeyPatch) -> None:
    """Give up early on a server that never replies."""
    patch.setattr(session, "TIMEOUT", SHORT_TIMEOUT)


def hide_port(message: str) -> str:
    """Return a message without the stand-in's port, which differs between runs."""
    return re.sub(r"127\.0\.0\.1:\d+", "HOST", message)
