"""Datasets on Kaggle: read one, upload files, create a version."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parity.deploy.kaggle_api import retry, session, transport
from parity.deploy.kaggle_api.transport import PAGE, Transport
from parity.deploy.kaggle_api.types import KaggleDataset
from parity.run.errors import KaggleRejected
from parity.run.files import remove

_TYPES = "datasets.types.dataset_api_service"


class _UploadFailed(Exception):
    """Kaggle did not accept a file."""


class Datasets:
    """Calls about datasets."""

    def __init__(self, wire: Transport) -> None:
        """Send requests through `wire`."""
        self._wire = wire

    def get(self, ref: str) -> KaggleDataset | None:
        """Return the dataset owner/slug, None if this account sees no such dataset."""
        owner, slug = ref.split("/")
        types = transport.request_types(_TYPES)
        request = types.ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = owner, slug
        status_request = types.ApiGetDatasetStatusRequest()
        status_request.owner_slug, status_request.dataset_slug = owner, slug
        clock = self._wire.clock
        with self._wire.client() as client:
            api = client.datasets.dataset_api_client
            reply = retry.read_or_none(clock, f"dataset {ref}", lambda: api.get_dataset(request))
            status = retry.read_or_none(
                clock, f"status of {ref}", lambda: api.get_dataset_status(status_request)
            )
        if reply is None or status is None:
            return None
        notes = {
            version.version_number: version.version_notes or "" for version in reply.versions or []
        }
        notes[1] = f"{notes.get(1, '')} {reply.description or ''}".strip()
        return KaggleDataset(
            status.status.name, reply.current_version_number, bool(reply.is_private), notes
        )

    def list_files(self, ref: str, version: int) -> dict[str, int]:
        """Return file name → bytes of one version, from all pages."""
        owner, slug = ref.split("/")
        label = f"files of {ref} version {version}"
        request = transport.request_types(_TYPES).ApiListDatasetFilesRequest()
        request.owner_slug, request.dataset_slug = owner, slug
        request.dataset_version_number, request.page_size = version, PAGE
        with self._wire.client() as client:
            api = client.datasets.dataset_api_client
            pages = list(self._wire.pages(label, api.list_dataset_files, request))
        if message := next((page.error_message for page in pages if page.error_message), ""):
            raise KaggleRejected(f"{label}: Kaggle says {message!r}")
        return {
            file_path.name: file_path.total_bytes
            for page in pages
            for file_path in page.dataset_files or []
        }

    @contextmanager
    def upload(self, folder: Path, scratch: Path) -> Iterator[list[Any]]:
        """Upload all files of a flat folder and yield their tokens; nothing is published.

        An interrupted upload resumes. If Kaggle refuses a file, everything is uploaded once more
        with fresh state, because the client would otherwise resume an expired session.

        Args:
            folder: files to upload.
            scratch: folder for the client's resume state, for this content only.

        Raises:
            KaggleRejected: Kaggle refused a file twice.
            OutcomeUnknown: Kaggle does not respond.
        """
        label = f"upload {folder.name}"
        with session.keep_upload_state(scratch):
            try:
                with self._context() as context:
                    yield retry.read(self._wire.clock, label, lambda: self._send(folder, context))
                    return
            except _UploadFailed:
                remove(scratch)
        with session.keep_upload_state(scratch):
            try:
                with self._context() as context:
                    yield retry.read(self._wire.clock, label, lambda: self._send(folder, context))
            except _UploadFailed as error:
                remove(scratch)
                raise KaggleRejected(
                    f"{label}: {error}; nothing was published, try again later"
                ) from error

    def create_version(
        self, ref: str, tokens: list[Any], *, notes: str, new: tuple[str, str] | None
    ) -> None:
        """Create a private dataset, or a version of one, from uploaded files.

        Args:
            ref: owner/slug.
            tokens: tokens from `upload`.
            notes: version notes.
            new: title and license (Kaggle's name) of a dataset to create; None if it exists.

        Raises:
            KaggleRejected: Kaggle created no version.
            OutcomeUnknown: it may have.
        """
        owner, slug = ref.split("/")
        types = transport.request_types(_TYPES)
        request: Any
        if new is None:
            request = types.ApiCreateDatasetVersionRequest()
            request.owner_slug, request.dataset_slug = owner, slug
            request.body = types.ApiCreateDatasetVersionRequestBody()
            request.body.version_notes, request.body.files = notes, tokens
        else:
            request = types.ApiCreateDatasetRequest()
            request.owner_slug, request.slug = owner, slug
            request.title, request.license_name = new
            request.description = notes
            request.is_private, request.files = True, tokens
        with self._wire.client() as client:
            api = client.datasets.dataset_api_client
            call = api.create_dataset if new else api.create_dataset_version
            reply = retry.write(self._wire.clock, f"publish {ref}", lambda: call(request))
        transport.check_reply(f"publish {ref}", reply)  # invalid tags do not matter: we send none
        if (reply.status or "").lower() not in ("", "ok"):
            raise KaggleRejected(f"publish {ref}: Kaggle returned status {reply.status!r}")

    def _context(self) -> Any:
        return importlib.import_module("kaggle.api.kaggle_api_extended").ResumableUploadContext()

    def _send(self, folder: Path, context: Any) -> list[Any]:
        body = transport.request_types(_TYPES).ApiCreateDatasetVersionRequestBody()
        body.files = []
        kind = transport.request_types("blobs.types.blob_api_service").ApiBlobType.DATASET
        try:
            self._wire.api.upload_files(body, None, str(folder), kind, context, quiet=True)
        except retry.client_errors():
            raise  # some of them are ValueErrors too
        except ValueError as error:  # what the client raises when a file is refused
            raise _UploadFailed(str(error)) from error
        return list(body.files)
