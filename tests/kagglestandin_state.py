"""The state of the stand-in for Kaggle: datasets, kernels, submissions, and their consistency.

kagglestandin.py answers requests from it. Nothing is random, and no clock is read unless one is
passed.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

Item = TypeVar("Item")
Json = dict[str, Any]
DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}")
SUBMISSION = "submission.csv"


@dataclass(slots=True)
class HttpError(Exception):
    """A reply with an HTTP status other than 200, and the message in its JSON."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class File:
    """A file of a dataset version or of a kernel's output."""

    content: bytes
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> "File":
        return cls(content, hashlib.sha256(content).hexdigest())


@dataclass(slots=True)
class Blob:
    """An upload session; `alive` is False once it has expired."""

    token: str
    name: str
    size: int
    data: bytearray = field(default_factory=bytearray)
    alive: bool = True

    @property
    def complete(self) -> bool:
        return len(self.data) == self.size


@dataclass(slots=True)
class DatasetVersion:
    """A full snapshot of a dataset.

    Attributes:
        statuses: replies of GetDatasetStatus, one per poll; the last one stays.
        hidden: number of GetDataset replies that still show the previous version.
    """

    number: int
    notes: str
    description: str
    files: dict[str, File]
    statuses: list[str]
    hidden: int
    date: str

    @property
    def failed(self) -> bool:
        return self.statuses[-1] == "FAILED"

    @property
    def digest(self) -> str:
        """The digest in the notes, or in the description of a first version."""
        match = DIGEST.search(self.notes) or DIGEST.search(self.description)
        return match.group() if match else ""

    @property
    def contents(self) -> dict[str, str]:
        return {name: file.sha256 for name, file in self.files.items()}


@dataclass(slots=True)
class Dataset:
    """A dataset; the next `unseen` lookups return 404."""

    id: int
    ref: str
    title: str
    license: str
    private: bool
    subtitle: str = ""
    description: str = ""
    versions: list[DatasetVersion] = field(default_factory=list)
    unseen: int = 0

    @property
    def visible(self) -> list[DatasetVersion]:
        return [version for version in self.versions if not version.hidden and not version.failed]


@dataclass(frozen=True, slots=True)
class KernelResult:
    """The result of a kernel run: output files, log, status, and failure message."""

    files: dict[str, bytes]
    log: str = ""
    status: str = "COMPLETE"
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """A source under /kaggle/input: its usual path, its path since 2026, and its files."""

    path: str
    path_2026: str
    files: Mapping[str, bytes]


@dataclass(slots=True)
class SavedVersion:
    """A version of a kernel.

    Attributes:
        request: complete SaveKernel body.
        invalid: reply field → sources (or tags) that were dropped.
        mounts: source → mount, fixed when the version is saved.
        waits: statuses before the final one, one per poll.
        result: result of the runner, None before the run.
        uses_2026_paths: whether its sources are mounted at the paths of 2026.
    """

    number: int
    request: Json
    invalid: dict[str, list[str]]
    mounts: dict[str, Mount]
    waits: list[str]
    date: str
    result: KernelResult | None = None
    uses_2026_paths: bool = False

    @property
    def useless(self) -> bool:
        """Whether another push of the same kernel is right: it failed or runs without a source."""
        if any(self.invalid.values()):
            return True
        result = self.result
        if result is None:
            return False
        return result.status != "COMPLETE" or not result.files.get(SUBMISSION)


@dataclass(slots=True)
class Kernel:
    """A kernel and its versions, 1 first."""

    id: int
    ref: str
    versions: list[SavedVersion] = field(default_factory=list)


@dataclass(slots=True)
class Submission:
    """A submission of a kernel version; it is PENDING for `waits` more polls."""

    ref: int
    competition: str
    kernel: str
    version: int
    file: str
    description: str
    date: str
    scores: tuple[str, str]
    waits: int
    error: str = ""

    @property
    def status(self) -> str:
        if self.waits:
            return "PENDING"
        return "ERROR" if self.error else "COMPLETE"


@dataclass(slots=True)
class Competition:
    """A competition: files, submissions per day, and a function from file to both scores."""

    files: dict[str, bytes] = field(default_factory=dict)
    daily: int = 5
    score: Callable[[bytes], tuple[str, str]] = lambda _: ("0.51200", "0.49800")


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model variation."""

    files: dict[str, bytes]
    license: str = "Apache 2.0"


Runner = Callable[[Json, dict[str, dict[str, bytes]]], KernelResult]


def run_default(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
    """Write a constant submission; the default runner."""
    return KernelResult({SUBMISSION: b"id,prediction\n1,1\n"}, "started\n1 row\ndone\n")


def make_clock(start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> Callable[[], datetime]:
    """Return a clock that advances by one second each time it is read."""
    seconds = itertools.count()
    return lambda: start + timedelta(seconds=next(seconds))


class State:
    """Everything that persists between calls.

    Attributes:
        base: URL of the server, without a trailing slash.
        polls: number of polls that a dataset, a kernel queue, a run and a score take.
        skew: offset of the clock.
        competitions: by slug.
        models: by owner/model/framework/variation/N.
    """

    def __init__(
        self,
        *,
        user: str = "me",
        polls: int = 1,
        runner: Runner = run_default,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.user, self.polls, self.runner = user, polls, runner
        self.clock = clock or make_clock()
        self.skew = timedelta()
        self.base = ""
        self.blobs: dict[str, Blob] = {}
        self.datasets: dict[str, Dataset] = {}
        self.kernels: dict[str, Kernel] = {}
        self.submissions: list[Submission] = []
        self.competitions: dict[str, Competition] = {}
        self.models: dict[str, Model] = {}
        self.expected: dict[str, list[dict[str, str]]] = {}

    def now(self) -> datetime:
        return self.clock() + self.skew

    def stamp(self) -> str:
        """Return the time in the API's format."""
        return self.now().replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"

    def expect(self, ref: str, contents: Mapping[str, str]) -> None:
        """Register a build, file name → sha256; every version of `ref` must match a build."""
        self.expected.setdefault(ref, []).append(dict(contents))

    def check(self) -> None:
        """Raise AssertionError if anything is duplicated, or a version matches no build.

        A repetition is allowed after a failure: a FAILED dataset version, a failed kernel, or one
        that runs without a source.
        """
        for ref, dataset in self.datasets.items():
            good = [version for version in dataset.versions if not version.failed]
            _distinct(f"versions of {ref}", [version.digest for version in good if version.digest])
            for version in good if ref in self.expected else ():
                assert version.contents in self.expected[ref], (
                    f"{ref} version {version.number} holds {version.contents}, "
                    "which is not a known build"
                )
        for ref, kernel in self.kernels.items():
            requests = [version.request for version in kernel.versions if not version.useless]
            _distinct(f"kernel {ref}", [json.dumps(item, sort_keys=True) for item in requests])
        descriptions = [
            f"{submission.competition}: {submission.description}" for submission in self.submissions
        ]
        _distinct("submissions", descriptions)


def paged(items: Sequence[Item], body: Json) -> tuple[list[Item], str]:
    """Return the requested page and the token of the next one, empty after the last."""
    first = int(body.get("pageToken") or 0)
    last = first + min(body.get("pageSize") or 20, 200)
    return list(items[first:last]), str(last) if last < len(items) else ""


def _distinct(label: str, values: Sequence[str]) -> None:
    duplicates = sorted({value for value in values if values.count(value) > 1})
    assert not duplicates, f"duplicates in {label}: {duplicates}"
