"""An adapter's way to a score and back, in little: real client, real door, our stand-in."""

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
from parity.deploy.kaggle_api import client as doors
from parity.deploy.kaggle_api import follow, publish, push, session, submit
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import Clock
from parity.deploy.kaggle_api.follow import Version
from parity.deploy.kaggle_api.publish import DatasetUpload, Published
from parity.deploy.kaggle_api.types import KaggleKernel, KaggleSubmission
from parity.run import digest, files
from parity.run.errors import Mismatch, RunFailed

COMPETITION = "buggy-rules"
IMAGE = f"gcr.io/kaggle-gpu-images/python@sha256:{'ab' * 32}"
SCORE, PRIVATE = "0.51200", "0.49800"
QUICK = (0.4, 0.4)
"""Seconds that a test waits for a server that never answers."""


class Stopwatch:
    """A clock whose sleeps take no time, and are counted."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
    """Do as the kernel does: report which bundle it was given."""
    bundles = [
        json.loads(contents["manifest.json"])["digest"]
        for contents in mounted.values()
        if json.loads(contents.get("manifest.json", b"{}")).get("kind") == "bundle"
    ]
    if len(bundles) != 1:
        return KernelResult({}, "no bundle under input/\n", "ERROR", "exit code 1")
    report = json.dumps({"bundle": bundles[0]}).encode()
    return KernelResult({SUBMISSION: b"id,ids\n1,2\n", "run_report.json": report}, "done\n")


class Voyage:
    """One adapter's way; `sail` goes all of it, as often as asked.

    Attributes:
        standin: what stands for Kaggle.
        clock: what all waiting goes by.
        folder: scratch.
        failed: versions of the kernel that ended badly.
    """

    def __init__(self, standin: StandIn, folder: Path, clock: Clock | None = None) -> None:
        self.standin, self.folder, self.clock = standin, folder, clock or Stopwatch()
        self.failed: set[int] = set()
        self.parcels = {kind: self._parcel(kind) for kind in ("wheelhouse", "bundle")}

    def _parcel(self, kind: Any) -> DatasetUpload:
        place = self.folder / kind
        if not place.is_dir():
            place.mkdir()
            for number in range(3):
                (place / f"{kind}-{number}.json").write_text(json.dumps([kind, "x" * 3000, number]))
            sealed_folder.seal(place, kind, {})
        found = sealed_folder.read(place)
        parcel = DatasetUpload(
            f"me/small-{kind}", f"small {kind}", "other", place, found.sizes(), found.digest
        )
        contents = {name: digest.of_file(place / name) for name in parcel.sizes}
        self.standin.kaggle.expect(parcel.ref, contents)
        return parcel

    @contextmanager
    def door(self) -> Iterator[KaggleClient]:
        with in_process(self.standin, self.folder / "home"), doors.opened(self.clock) as door:
            yield door

    def kernel(self, sources: list[Published]) -> KaggleKernel:
        bundle, wheelhouse = (self.parcels[name].digest for name in ("bundle", "wheelhouse"))
        key = push.key_of(bundle, wheelhouse, self.failed)
        return KaggleKernel(
            ref="me/small-kernel",
            title="small kernel",
            text=push.keyed("print('ranking')\n", key),
            kind="script",
            image=IMAGE,
            machine="NvidiaTeslaT4",
            gpu=True,
            datasets=tuple(sorted(source.pinned for source in sources)),
            competitions=(COMPETITION,),
        )

    def judge(self, there: Path) -> None:
        wanted = self.parcels["bundle"].digest
        if not (there / SUBMISSION).is_file():
            raise RunFailed(f"the kernel ended without {SUBMISSION}")
        if not (there / SUBMISSION).stat().st_size or not (there / "run_report.json").is_file():
            raise RunFailed("the kernel left an empty submission or no report")
        if files.read_json(there / "run_report.json")["bundle"] != wanted:
            raise Mismatch("the output is of another bundle")

    def sail(self) -> KaggleSubmission:
        """Publish, push, follow, submit and collect the score."""
        with self.door() as door:
            scratch = self.folder / "uploads"
            sources = [publish.publish(door, parcel, scratch) for parcel in self.parcels.values()]
            pushed = push.push(door, self.kernel(sources), scratch, self.failed)
            version = Version(pushed.ref, pushed.version)
            try:
                return self._follow(door, version, scratch)
            except RunFailed:
                self.failed.add(version.number)
                raise

    def _follow(self, door: KaggleClient, version: Version, scratch: Path) -> KaggleSubmission:
        follow.wait(door, version, minutes=600)
        follow.fetch(door, version, self.folder / "output", self.judge)
        key = submit.key_of(self.parcels["bundle"].digest, version.number)
        made = submit.submit(door, COMPETITION, version, key, scratch)
        return follow.score(door, COMPETITION, made.ref, key, minutes=600)


def harbour() -> Kaggle:
    """Return a Kaggle with the competition, and a kernel that does as ours."""
    kaggle = Kaggle(runner=runner)
    kaggle.competitions[COMPETITION] = Competition({"test.csv": b"QuestionId\n1\n"})
    return kaggle


def hurried(patch: pytest.MonkeyPatch) -> None:
    """Let a server that never answers be given up soon."""
    patch.setattr(session, "TIMEOUT", QUICK)


def plain(line: str) -> str:
    """Return a message less what differs from run to run."""
    return re.sub(r"127\.0\.0\.1:\d+", "HOST", line)
