"""Idempotent publishing of a sealed folder as a Kaggle dataset, verified by its list of files.

The version notes contain the content digest, so Kaggle itself records what each version holds.
Publishing the same content again sends nothing, and a lost reply is looked up, never repeated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.idempotency import ensure_once, find_existing
from parity.deploy.kaggle_api.types import KaggleDataset
from parity.run import files
from parity.run.errors import BadConfig, BadData, Mismatch, OutcomeUnknown, RunFailed

READY_MINUTES = 30.0
"""Longest time, in minutes, that Kaggle may take to process a version."""
_FAILED_LOOKS = 3  # consecutive looks with a failed status before it counts
_LISTING_DELAY = 120.0  # seconds in which a list of files may be incomplete
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{4,48}[a-z0-9]")
_READY, _FAILED = "READY", ("FAILED", "DELETED")


@dataclass(frozen=True, slots=True)
class DatasetUpload:
    """A sealed folder and its target dataset.

    Attributes:
        ref: owner/slug.
        title: title of the dataset, 6 to 50 characters.
        license: Kaggle's name of the license.
        folder: flat folder; all its files are uploaded.
        sizes: file name → bytes of the sealed files, including the manifest.
        digest: content digest.
    """

    ref: str
    title: str
    license: str
    folder: Path
    sizes: dict[str, int]
    digest: str

    def __post_init__(self) -> None:
        """Refuse values that Kaggle would refuse or change."""
        if not _SLUG.fullmatch(self.ref.partition("/")[2]):
            raise BadConfig(f"{self.ref}: dataset name must be 6-50 characters of a-z, 0-9 and -")
        if not 6 <= len(self.title) <= 50:
            raise BadConfig(f"{self.ref}: title {self.title!r} must be 6-50 characters")
        if not self.license:
            raise BadConfig(
                f"{self.ref}: no license; set shipping.license to Kaggle's name of it, for "
                "example apache-2.0, CC0-1.0 or other"
            )

    @property
    def notes(self) -> str:
        """The version notes, which identify the content."""
        return f"sha256:{self.digest}"


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset version whose files match an upload.

    Attributes:
        ref: owner/slug.
        version: version number.
        digest: content digest.
        sent: whether this call created it.
    """

    ref: str
    version: int
    digest: str
    sent: bool

    @property
    def pinned(self) -> str:
        """The reference owner/slug/N for a kernel's sources."""
        return f"{self.ref}/{self.version}"


def publish(client: KaggleClient, upload: DatasetUpload, scratch: Path) -> Published:
    """Ensure that the dataset's current version is the upload, complete and ready.

    Args:
        client: Kaggle client.
        upload: content and target.
        scratch: folder for upload state, with one subfolder per content.

    Raises:
        BadData: the folder has files that are not sealed.
        Mismatch: the files on Kaggle differ, or two versions were created.
        KaggleRejected: Kaggle refused it.
        RunFailed: Kaggle could not process it.
        OutcomeUnknown: it may have been created, or is not ready in time; the same command
            continues.
    """
    _check_sealed(upload)
    version, sent = _ensure_version(client, upload, scratch)
    if not sent:
        _wait_until_ready(client, upload, version)
    if difference := _listing_difference(client, upload, version):
        raise Mismatch(
            f"{upload.ref} version {version} {difference}; if this persists, delete that version "
            "on its Kaggle page and run the same command to publish it again"
        )
    return Published(upload.ref, version, upload.digest, sent=sent)


def content_digest(dataset: KaggleDataset) -> str:
    """Return the content digest of a dataset's current version, empty if unknown."""
    digests = _DIGEST.findall(dataset.notes.get(dataset.version, ""))
    return digests[-1] if digests else ""


def planned_calls(client: KaggleClient, upload: DatasetUpload) -> list[str]:
    """Return the calls that `publish` would make, one per line; only read from Kaggle.

    Raises:
        BadData: the folder has files that are not sealed.
        Mismatch: the dataset is public.
    """
    _check_sealed(upload)
    dataset = client.datasets.get(upload.ref)
    listing = "ListDatasetFiles, all pages: compare names and sizes"
    if dataset is not None:
        _check_private(dataset, upload)
    if dataset is not None and _has_content(dataset, upload):
        return [
            f"{upload.ref}: version {dataset.version} is this content: nothing to send",
            listing,
        ]
    number = dataset.version + 1 if dataset else 1
    create = "CreateDatasetVersion" if dataset else f"CreateDataset, license {upload.license}"
    return [
        f"{upload.ref}: version {number} is to be {upload.notes[:19]}",
        *(f"StartBlobUpload, PUT {n} ({size:,} bytes)" for n, size in upload.sizes.items()),
        f"{create}, private, {len(upload.sizes)} files",
        f"GetDataset, GetDatasetStatus until READY and version {number}",
        listing,
    ]


def _matching_version(client: KaggleClient, upload: DatasetUpload) -> int | None:
    """Return the number of the current version if it has this content."""
    dataset = client.datasets.get(upload.ref)
    return dataset.version if dataset is not None and _has_content(dataset, upload) else None


def _ensure_version(client: KaggleClient, upload: DatasetUpload, scratch: Path) -> tuple[int, bool]:
    """Upload and create the version if needed; return its number and whether it was created.

    An upload alone creates no version and writes no mark, so an interrupted one resumes at once.
    """
    mark, state = scratch / f"{upload.digest}.mark", scratch / upload.digest
    existing = find_existing(client.clock, mark, lambda: _matching_version(client, upload))
    if existing is not None:
        files.remove(state)
        return existing, False
    before = _settled_dataset(client, upload)
    if before is not None and _has_content(before, upload):
        return before.version, False
    new = None if before else (upload.title, upload.license)

    def create() -> int:
        client.datasets.create_version(upload.ref, tokens, notes=upload.notes, new=new)
        return before.version + 1 if before else 1

    with client.datasets.upload(upload.folder, state) as tokens:
        number, sent = ensure_once(
            client.clock,
            mark,
            lambda: _matching_version(client, upload),
            create,
            lambda number: _wait_until_ready(client, upload, number),
        )
    files.remove(state)
    return number, sent


def _settled_dataset(client: KaggleClient, upload: DatasetUpload) -> KaggleDataset | None:
    """Return the dataset, None if it does not exist, once Kaggle is not processing a version.

    Raises:
        Mismatch: it is public.
        OutcomeUnknown: Kaggle is still processing a version.
    """
    dataset: KaggleDataset | None = None

    def look() -> bool | None:
        nonlocal dataset
        dataset = client.datasets.get(upload.ref)
        return True if dataset is None or dataset.status in (_READY, *_FAILED) else None

    if polling.poll_until(client.clock, look, READY_MINUTES * 60) is None:
        raise OutcomeUnknown(
            f"Kaggle is still processing a version of {upload.ref} after {READY_MINUTES:.0f} "
            "minutes; run the same command again to keep waiting"
        )
    if dataset is not None:
        _check_private(dataset, upload)
    return dataset


def _wait_until_ready(client: KaggleClient, upload: DatasetUpload, number: int) -> None:
    """Wait until Kaggle has processed the version.

    `READY` alone proves nothing: until the version number changes it refers to the previous
    version. A failed version may never get its number, and one look at `FAILED` may also refer to
    the previous version.
    """
    failures = 0

    def look() -> bool | None:
        nonlocal failures
        dataset = client.datasets.get(upload.ref)
        failures = failures + 1 if dataset is not None and dataset.status in _FAILED else 0
        if failures >= _FAILED_LOOKS and dataset is not None:
            raise RunFailed(
                f"{upload.ref} version {number} is {dataset.status} on Kaggle; run the same "
                "command to publish it again"
            )
        if dataset is None or dataset.version < number:
            return None
        if dataset.version > number:
            raise _unexpected_version(dataset, upload, number)
        _check_private(dataset, upload)
        return True if dataset.status == _READY else None

    if polling.poll_until(client.clock, look, READY_MINUTES * 60) is None:
        raise OutcomeUnknown(
            f"{upload.ref} version {number} is not ready after {READY_MINUTES:.0f} minutes; "
            "run the same command again to keep waiting"
        )


def _unexpected_version(dataset: KaggleDataset, upload: DatasetUpload, number: int) -> Mismatch:
    """Return the error for a current version after the one that was created."""
    message = f"{upload.ref} is at version {dataset.version}, expected {number}: "
    if content_digest(dataset) == upload.digest:
        return Mismatch(
            f"{message}this content was published twice. The last version is complete; run the "
            "same command again to use it"
        )
    return Mismatch(
        f"{message}someone else published; run the same command to publish this content again"
    )


def _has_content(dataset: KaggleDataset, upload: DatasetUpload) -> bool:
    """Return whether the current version has this content, or will once processed."""
    return content_digest(dataset) == upload.digest and dataset.status not in _FAILED


def _check_private(dataset: KaggleDataset, upload: DatasetUpload) -> None:
    if not dataset.private:
        raise Mismatch(f"{upload.ref} is public; make it private in its settings on Kaggle")


def _listing_difference(client: KaggleClient, upload: DatasetUpload, version: int) -> str:
    """Return how the version's files differ from the upload, empty if names and sizes match.

    The list may be incomplete for a while after a version is ready.
    """
    difference = ""

    def look() -> bool | None:
        nonlocal difference
        difference = _difference(upload.sizes, client.datasets.list_files(upload.ref, version))
        return None if difference else True

    polling.poll_until(client.clock, look, _LISTING_DELAY)
    return difference


def _difference(sent: Mapping[str, int], listed: Mapping[str, int]) -> str:
    if names := sorted(listed.keys() ^ sent.keys()):
        return f"{'is missing' if names[0] in sent else 'has an extra file'} {names[0]}"
    if wrong := [name for name, size in sorted(sent.items()) if listed[name] != size]:
        return f"has {listed[wrong[0]]} bytes of {wrong[0]}, expected {sent[wrong[0]]}"
    return ""


def _check_sealed(upload: DatasetUpload) -> None:
    names = {path.name for path in upload.folder.iterdir()}
    if unexpected := sorted(names ^ upload.sizes.keys()):
        raise BadData(
            f"{upload.folder.name}/{unexpected[0]} is not in its manifest", fix=("package",)
        )
