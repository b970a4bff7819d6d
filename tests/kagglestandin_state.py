"""What the stand-in for Kaggle holds: datasets, kernels, submissions, and whether they are whole.

It answers nothing; that is kagglestandin.py's part. Nothing is random and no clock is read unless
one is given.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]
DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}")
SUBMISSION = "submission.csv"


@dataclass(slots=True)
class Refusal(Exception):
    """An HTTP status other than 200, and the message in its JSON."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class File:
    """Bytes that were committed, or put out by a kernel."""

    content: bytes
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> "File":
        return cls(content, hashlib.sha256(content).hexdigest())


@dataclass(slots=True)
class Blob:
    """An upload session. `alive` is False once it has expired."""

    token: str
    name: str
    size: int
    data: bytearray = field(default_factory=bytearray)
    alive: bool = True

    @property
    def complete(self) -> bool:
        return len(self.data) == self.size


@dataclass(slots=True)
class Version:
    """A full snapshot of a dataset.

    Attributes:
        statuses: what GetDatasetStatus tells from here on, one a poll; the last one stays.
        hidden: how many more times GetDataset still tells of the version before.
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
        """The digest named in the notes, or where a first version has none, the description."""
        found = DIGEST.search(self.notes) or DIGEST.search(self.description)
        return found.group() if found else ""

    @property
    def contents(self) -> dict[str, str]:
        return {name: one.sha256 for name, one in self.files.items()}


@dataclass(slots=True)
class Dataset:
    """A dataset; `unseen` lookups are still answered with 404."""

    id: int
    ref: str
    title: str
    license: str
    private: bool
    subtitle: str = ""
    description: str = ""
    versions: list[Version] = field(default_factory=list)
    unseen: int = 0

    @property
    def visible(self) -> list[Version]:
        return [version for version in self.versions if not version.hidden and not version.failed]


@dataclass(frozen=True, slots=True)
class KernelResult:
    """What a run of a kernel left: output files, the log's lines, and how it ended."""

    files: dict[str, bytes]
    log: str = ""
    status: str = "COMPLETE"
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """A source under /kaggle/input: its usual place, the one since 2026, and what lies there."""

    place: str
    moved: str
    files: Mapping[str, bytes]


@dataclass(slots=True)
class Saved:
    """A version of a kernel.

    Attributes:
        request: the whole SaveKernel body.
        invalid: reply field → sources (or tags) that it was saved without.
        mounts: source → what it runs with, fixed when it is saved.
        waits: statuses told before the one it ends with, one a poll.
        result: what the runner gave, once it was asked.
        moved: whether its sources are mounted at the places of 2026.
    """

    number: int
    request: Json
    invalid: dict[str, list[str]]
    mounts: dict[str, Mount]
    waits: list[str]
    date: str
    result: KernelResult | None = None
    moved: bool = False

    @property
    def useless(self) -> bool:
        """Whether pushing the same again is right: it failed, or runs without a source."""
        if any(self.invalid.values()):
            return True
        done = self.result
        return done is not None and (done.status != "COMPLETE" or not done.files.get(SUBMISSION))


@dataclass(slots=True)
class Kernel:
    """A kernel and its versions, 1 first."""

    id: int
    ref: str
    versions: list[Saved] = field(default_factory=list)


@dataclass(slots=True)
class Submission:
    """A submission of a kernel's version; it is PENDING for `waits` more polls."""

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
    """A competition: its files, submissions a day, and bytes submitted → public, private score."""

    files: dict[str, bytes] = field(default_factory=dict)
    daily: int = 5
    score: Callable[[bytes], tuple[str, str]] = lambda _: ("0.51200", "0.49800")


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model's variation."""

    files: dict[str, bytes]
    license: str = "Apache 2.0"


Runner = Callable[[Json, dict[str, dict[str, bytes]]], KernelResult]


def submits(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
    """Put out a submission that depends on nothing; the runner unless another is given."""
    return KernelResult({SUBMISSION: b"id,prediction\n1,1\n"}, "started\n1 row\ndone\n")


def ticking(start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> Callable[[], datetime]:
    """Return a clock that moves by one second each time it is read."""
    seconds = itertools.count()
    return lambda: start + timedelta(seconds=next(seconds))


class State:
    """All that is kept between calls.

    Attributes:
        base: the address of the server, without a slash at the end.
        polls: how many polls a dataset, a kernel's queue, its run and a score take.
        skew: how far the clock is off.
        competitions, models: what is there; by slug, and by owner/model/framework/variation/N.
    """

    def __init__(
        self,
        *,
        user: str = "me",
        polls: int = 1,
        runner: Runner = submits,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.user, self.polls, self.runner = user, polls, runner
        self.clock = clock or ticking()
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
        """Return the time as the API writes it."""
        return self.now().replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"

    def expect(self, ref: str, contents: Mapping[str, str]) -> None:
        """Register file name → sha256 of a build; every version of `ref` must be one of them."""
        self.expected.setdefault(ref, []).append(dict(contents))

    def check(self) -> None:
        """Raise AssertionError if anything is doubled, or a version's bytes are nobody's build.

        What failed (a version in state FAILED, a kernel that ended badly or runs without a source)
        may be there again.
        """
        for ref, dataset in self.datasets.items():
            good = [version for version in dataset.versions if not version.failed]
            _distinct(f"versions of {ref}", [one.digest for one in good if one.digest])
            for one in good if ref in self.expected else ():
                assert one.contents in self.expected[ref], (
                    f"{ref} version {one.number} holds {one.contents}, which nobody built"
                )
        for ref, kernel in self.kernels.items():
            kept = [version.request for version in kernel.versions if not version.useless]
            _distinct(f"kernel {ref}", [json.dumps(one, sort_keys=True) for one in kept])
        said = [
            f"{submission.competition}: {submission.description}" for submission in self.submissions
        ]
        _distinct("submissions", said)


def _distinct(what: str, values: Sequence[str]) -> None:
    doubled = sorted({value for value in values if values.count(value) > 1})
    assert not doubled, f"doubled: {what}: {doubled}"
