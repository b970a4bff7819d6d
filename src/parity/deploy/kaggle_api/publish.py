"""Publish a sealed folder: once for each content, and proven to have arrived.

The content's digest stands in the notes of the version, so Kaggle itself says what it holds: a
second publish of the same content sends nothing, and a lost reply is looked up, never repeated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.idempotency import ensure_once, taken
from parity.deploy.kaggle_api.types import KaggleDataset
from parity.run import files
from parity.run.errors import BadConfig, BadData, Mismatch, OutcomeUnknown, RunFailed

MINUTES = 30.0
"""How long Kaggle may take to make a version ready."""
_SURE = 3  # looks
_LISTED = 120.0  # seconds in which a list of files may still be short
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{4,48}[a-z0-9]")
_READY, _FAILED = "READY", ("FAILED", "DELETED")


@dataclass(frozen=True, slots=True)
class DatasetUpload:
    """A sealed folder and where it goes.

    Attributes:
        ref: owner/slug.
        title: of the dataset, 6 to 50 characters.
        license: Kaggle's name of it.
        folder: flat; everything in it is sent.
        sizes: file name → bytes of what was sealed, the manifest among them.
        digest: of the content.
    """

    ref: str
    title: str
    license: str
    folder: Path
    sizes: dict[str, int]
    digest: str

    def __post_init__(self) -> None:
        """Refuse what Kaggle would refuse or bend."""
        if not _SLUG.fullmatch(self.ref.partition("/")[2]):
            raise BadConfig(f"{self.ref}: a dataset's name is 6 to 50 of a-z, 0-9 and -")
        if not 6 <= len(self.title) <= 50:
            raise BadConfig(f"{self.ref}: title {self.title!r} has not 6 to 50 characters")
        if not self.license:
            raise BadConfig(
                f"{self.ref}: no license; name it, in Kaggle's words: "
                '--set shipping.license="apache-2.0" (or CC0-1.0, other, …)'
            )

    @property
    def notes(self) -> str:
        """The notes of its version, by which it is known again."""
        return f"sha256:{self.digest}"


@dataclass(frozen=True, slots=True)
class Published:
    """A version that holds the parcel, proven by its list of files.

    Attributes:
        ref: owner/slug.
        version: its number.
        digest: of the content.
        sent: whether anything was sent for it now.
    """

    ref: str
    version: int
    digest: str
    sent: bool

    @property
    def pinned(self) -> str:
        """Return owner/slug/N, as a kernel names its source."""
        return f"{self.ref}/{self.version}"


def publish(door: KaggleClient, parcel: DatasetUpload, scratch: Path) -> Published:
    """Make sure that the dataset's current version is the parcel, whole and ready.

    Args:
        door: to Kaggle.
        parcel: what, and where to.
        scratch: folder for upload state; this content gets its own in it.

    Raises:
        BadData: the folder holds something that was not sealed.
        Mismatch: what arrived is not what was sent, or two versions were made.
        Refused: Kaggle took it not.
        RunFailed: Kaggle could not make it ready.
        Unknown: it may have taken it, or is not ready in time; the same command goes on.
    """
    _only_sealed(parcel)
    version, sent = _told(door, parcel, scratch)
    if not sent:
        _ready(door, parcel, version)
    if odd := _odd(door, parcel, version):
        raise Mismatch(
            f"{parcel.ref} version {version} {odd}; if it stays so, delete that version on its "
            "page, and the same command publishes it again"
        )
    return Published(parcel.ref, version, parcel.digest, sent=sent)


def digest_of(held: KaggleDataset) -> str:
    """Return the digest of the content of a dataset's current version, empty where unknown."""
    found = _DIGEST.findall(held.notes.get(held.version, ""))
    return found[-1] if found else ""


def steps(door: KaggleClient, parcel: DatasetUpload) -> list[str]:
    """Return the calls that `publish` would make, a line each, having only asked.

    Raises:
        BadData: the folder holds something that was not sealed.
        Mismatch: the dataset is public.
    """
    _only_sealed(parcel)
    held = door.datasets.held(parcel.ref)
    listed = "ListDatasetFiles, all pages: compare names and sizes"
    if held is not None:
        _private(held, parcel)
    if held is not None and _holds(held, parcel):
        return [f"{parcel.ref}: version {held.version} is this content: nothing to send", listed]
    number = held.version + 1 if held else 1
    made = "CreateDatasetVersion" if held else f"CreateDataset, license {parcel.license}"
    return [
        f"{parcel.ref}: version {number} is to be {parcel.notes[:19]}",
        *(f"StartBlobUpload, PUT {n} ({size:,} bytes)" for n, size in parcel.sizes.items()),
        f"{made}, private, {len(parcel.sizes)} files",
        f"GetDataset, GetDatasetStatus until READY and version {number}",
        listed,
    ]


def _held(door: KaggleClient, parcel: DatasetUpload) -> int | None:
    """Return the number of the current version where that is this content."""
    held = door.datasets.held(parcel.ref)
    return held.version if held is not None and _holds(held, parcel) else None


def _told(door: KaggleClient, parcel: DatasetUpload, scratch: Path) -> tuple[int, bool]:
    """Upload and make the version unless it was; return its number and whether it was made now.

    An upload alone makes nothing and leaves no mark: who is cut off in it goes on at once.
    """
    mark, place = scratch / f"{parcel.digest}.mark", scratch / parcel.digest
    if (found := taken(door.clock, mark, lambda: _held(door, parcel))) is not None:
        files.remove(place)
        return found, False
    before = _settled(door, parcel)
    if before is not None and _holds(before, parcel):
        return before.version, False
    new = None if before else (parcel.title, parcel.license)

    def make() -> int:
        door.datasets.make_version(parcel.ref, tokens, notes=parcel.notes, new=new)
        return before.version + 1 if before else 1

    with door.datasets.uploaded(parcel.folder, place) as tokens:
        number, sent = ensure_once(
            door.clock,
            mark,
            lambda: _held(door, parcel),
            make,
            lambda number: _ready(door, parcel, number),
        )
    files.remove(place)
    return number, sent


def _settled(door: KaggleClient, parcel: DatasetUpload) -> KaggleDataset | None:
    """Return what Kaggle holds, None where nothing, once it is not making a version of it.

    Raises:
        Mismatch: it is public.
        Unknown: it goes on making one.
    """
    held: KaggleDataset | None = None

    def look() -> bool | None:
        nonlocal held
        held = door.datasets.held(parcel.ref)
        return True if held is None or held.status in (_READY, *_FAILED) else None

    if polling.poll_until(door.clock, look, MINUTES * 60) is None:
        raise OutcomeUnknown(
            f"Kaggle is still making a version of {parcel.ref} after {MINUTES:.0f} minutes; "
            "the same command goes on waiting"
        )
    if held is not None:
        _private(held, parcel)
    return held


def _ready(door: KaggleClient, parcel: DatasetUpload, number: int) -> None:
    """Return once Kaggle has made the version ready.

    `READY` alone says nothing: until the number moves it is said of the version before. A version
    that failed may never get its number; one look at `FAILED` may still be of the one before.
    """
    failures = 0

    def look() -> bool | None:
        nonlocal failures
        held = door.datasets.held(parcel.ref)
        failures = failures + 1 if held is not None and held.status in _FAILED else 0
        if failures >= _SURE and held is not None:
            raise RunFailed(
                f"{parcel.ref} version {number} is {held.status} on Kaggle; the same command "
                "publishes it again"
            )
        if held is None or held.version < number:
            return None
        if held.version > number and digest_of(held) == parcel.digest:
            raise Mismatch(
                f"{parcel.ref} moved to version {held.version}, wanted {number}: it was made "
                "twice; the last is whole too, and the same command goes on with it"
            )
        if held.version > number:
            raise Mismatch(
                f"{parcel.ref} is at version {held.version}, wanted {number}: somebody else "
                "published; the same command publishes this content again"
            )
        _private(held, parcel)
        return True if held.status == _READY else None

    if polling.poll_until(door.clock, look, MINUTES * 60) is None:
        raise OutcomeUnknown(
            f"{parcel.ref} version {number} is not ready after {MINUTES:.0f} minutes; "
            "the same command goes on waiting"
        )


def _holds(held: KaggleDataset, parcel: DatasetUpload) -> bool:
    """Return whether the current version is this content, or is about to be."""
    return digest_of(held) == parcel.digest and held.status not in _FAILED


def _private(held: KaggleDataset, parcel: DatasetUpload) -> None:
    if not held.private:
        raise Mismatch(f"{parcel.ref} is public; make it private in its settings on Kaggle")


def _odd(door: KaggleClient, parcel: DatasetUpload, version: int) -> str:
    """Return in what the version's files differ, empty where names and sizes are those sent.

    A list may be short for a while after a version is ready.
    """
    said = ""

    def look() -> bool | None:
        nonlocal said
        said = _difference(parcel.sizes, door.datasets.files(parcel.ref, version))
        return None if said else True

    polling.poll_until(door.clock, look, _LISTED)
    return said


def _difference(sent: Mapping[str, int], listed: Mapping[str, int]) -> str:
    if names := sorted(listed.keys() ^ sent.keys()):
        return f"{'lacks' if names[0] in sent else 'holds also'} {names[0]}"
    if wrong := [name for name, size in sorted(sent.items()) if listed[name] != size]:
        return f"has {listed[wrong[0]]} bytes of {wrong[0]}, and {sent[wrong[0]]} were sent"
    return ""


def _only_sealed(parcel: DatasetUpload) -> None:
    there = {path.name for path in parcel.folder.iterdir()}
    if odd := sorted(there ^ parcel.sizes.keys()):
        raise BadData(f"{parcel.folder.name}/{odd[0]} is not in its manifest; run: invoke package")
