"""Datasets on Kaggle: what is held, uploading, and making a version."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parity.deploy.kaggle_api import retry, session
from parity.deploy.kaggle_api import transport as wire
from parity.deploy.kaggle_api.transport import PAGE, Transport
from parity.deploy.kaggle_api.types import KaggleDataset
from parity.run.errors import KaggleRejected
from parity.run.files import remove


class _NotTaken(Exception):
    """Kaggle did not take a file."""


class Datasets:
    """Kaggle's datasets, as this project asks for and makes them."""

    def __init__(self, wire: Transport) -> None:
        """Talk through `wire`."""
        self._wire = wire

    def held(self, ref: str) -> KaggleDataset | None:
        """Return the dataset owner/slug, None where there is none that this account sees."""
        owner, slug = ref.split("/")
        types = wire.types("datasets.types.dataset_api_service")
        asked = types.ApiGetDatasetRequest()
        asked.owner_slug, asked.dataset_slug = owner, slug
        state = types.ApiGetDatasetStatusRequest()
        state.owner_slug, state.dataset_slug = owner, slug
        with self._wire.client() as client:
            api = client.datasets.dataset_api_client
            found = retry.ask_for(
                self._wire.clock, f"dataset {ref}", lambda: api.get_dataset(asked)
            )
            status = retry.ask_for(
                self._wire.clock, f"status of {ref}", lambda: api.get_dataset_status(state)
            )
        if found is None or status is None:
            return None
        notes = {
            version.version_number: version.version_notes or "" for version in found.versions or []
        }
        notes[1] = f"{notes.get(1, '')} {found.description or ''}".strip()
        return KaggleDataset(
            status.status.name, found.current_version_number, bool(found.is_private), notes
        )

    def files(self, ref: str, version: int) -> dict[str, int]:
        """Return file name → bytes of one version, from all pages of its list."""
        owner, slug = ref.split("/")
        what = f"files of {ref} version {version}"
        types = wire.types("datasets.types.dataset_api_service")
        asked = types.ApiListDatasetFilesRequest()
        asked.owner_slug, asked.dataset_slug = owner, slug
        asked.dataset_version_number, asked.page_size = version, PAGE
        with self._wire.client() as client:
            api = client.datasets.dataset_api_client
            pages = list(self._wire.pages(what, api.list_dataset_files, asked))
        if said := next((page.error_message for page in pages if page.error_message), ""):
            raise KaggleRejected(f"{what}: Kaggle says {said!r}")
        return {
            file_path.name: file_path.total_bytes
            for page in pages
            for file_path in page.dataset_files or []
        }

    @contextmanager
    def uploaded(self, folder: Path, scratch: Path) -> Iterator[list[Any]]:
        """Yield tokens of all files of a flat folder, uploaded; nothing is published by that.

        What was sent before an interruption is not sent again; after a refusal all of it is, once,
        for the client would go on asking a session that is dead.

        Args:
            folder: what to upload.
            scratch: where the client keeps how far it came; of this content alone.

        Raises:
            Refused: Kaggle took a file neither time.
            Unknown: Kaggle does not answer.
        """
        what = f"upload {folder.name}"
        with session.scratch(scratch):
            try:
                with self._context() as context:
                    yield retry.read(self._wire.clock, what, lambda: self._send(folder, context))
                    return
            except _NotTaken:
                remove(scratch)
        with session.scratch(scratch):
            try:
                with self._context() as context:
                    yield retry.read(self._wire.clock, what, lambda: self._send(folder, context))
            except _NotTaken as error:
                remove(scratch)
                raise KaggleRejected(
                    f"{what}: {error}; nothing was published; try again later"
                ) from error

    def make_version(
        self, ref: str, tokens: list[Any], *, notes: str, new: tuple[str, str] | None
    ) -> None:
        """Make of uploaded files a version, private, of a dataset.

        Args:
            ref: owner/slug.
            tokens: from `uploaded`.
            notes: of the version.
            new: title and Kaggle's name of the license, where the dataset is to be made.

        Raises:
            Refused: Kaggle took no version.
            Unknown: it may have.
        """
        owner, slug = ref.split("/")
        types = wire.types("datasets.types.dataset_api_service")
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
        wire.fail_on(f"publish {ref}", reply)  # tags may be invalid: none is sent
        if (reply.status or "").lower() not in ("", "ok"):
            raise KaggleRejected(f"publish {ref}: Kaggle answers status {reply.status!r}")

    def _context(self) -> Any:
        return importlib.import_module("kaggle.api.kaggle_api_extended").ResumableUploadContext()

    def _send(self, folder: Path, context: Any) -> list[Any]:
        body = wire.types("datasets.types.dataset_api_service").ApiCreateDatasetVersionRequestBody()
        body.files = []
        kind = wire.types("blobs.types.blob_api_service").ApiBlobType.DATASET
        try:
            self._wire.api.upload_files(body, None, str(folder), kind, context, quiet=True)
        except retry.failures():
            raise  # some of them are a ValueError too
        except ValueError as error:  # the client's own word for a file that was not taken
            raise _NotTaken(str(error)) from error
        return list(body.files)
