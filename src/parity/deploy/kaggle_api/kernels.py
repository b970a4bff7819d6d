"""Kernels on Kaggle: read one, push one, read its status, download its output."""

from pathlib import Path

from parity.deploy.kaggle_api import retry, transport
from parity.deploy.kaggle_api.transport import PAGE, Transport
from parity.deploy.kaggle_api.types import KaggleKernel
from parity.run.errors import OutcomeUnknown

_TYPES = "kernels.types.kernels_api_service"
_SOURCES = ("tags", "dataset_sources", "competition_sources", "kernel_sources", "model_sources")


class Kernels:
    """Calls about kernels."""

    def __init__(self, wire: Transport) -> None:
        """Send requests through `wire`."""
        self._wire = wire

    def get(self, ref: str) -> KaggleKernel | None:
        """Return the kernel's current version, None if this account sees no such kernel."""
        owner, slug = ref.split("/")
        request = transport.request_types(_TYPES).ApiGetKernelRequest()
        request.user_name, request.kernel_slug = owner, slug
        with self._wire.client() as client:
            api = client.kernels.kernels_api_client
            reply = retry.read_or_none(
                self._wire.clock, f"kernel {ref}", lambda: api.get_kernel(request)
            )
        if reply is None:
            return None
        metadata = reply.metadata
        return KaggleKernel(
            ref=ref,
            title=metadata.title,
            text=reply.blob.source,
            kind=metadata.kernel_type,
            image=metadata.docker_image or "",
            machine=metadata.machine_shape or "",
            gpu=bool(metadata.enable_gpu),
            internet=bool(metadata.enable_internet),
            private=bool(metadata.is_private),
            datasets=tuple(sorted(metadata.dataset_data_sources or ())),
            competitions=tuple(sorted(metadata.competition_data_sources or ())),
            models=tuple(sorted(metadata.model_data_sources or ())),
            version=metadata.current_version_number or 0,
        )

    def push(self, kernel: KaggleKernel) -> int:
        """Save a kernel, which starts a run; return the number of the new version.

        Raises:
            KaggleRejected: Kaggle refused it, or saved it without one of its sources.
            OutcomeUnknown: it may have been saved.
        """
        request = transport.request_types(_TYPES).ApiSaveKernelRequest()
        request.slug, request.new_title, request.text = kernel.ref, kernel.title, kernel.text
        request.language, request.kernel_type = "python", kernel.kind
        request.is_private, request.enable_internet = kernel.private, kernel.internet
        request.enable_gpu, request.enable_tpu = kernel.gpu, False
        request.machine_shape = kernel.machine or None
        request.docker_image = kernel.image
        request.docker_image_pinning_type = "original"
        request.dataset_data_sources = list(kernel.datasets)
        request.competition_data_sources = list(kernel.competitions)
        request.model_data_sources = list(kernel.models)
        request.kernel_data_sources, request.category_ids = [], []
        label = f"push {kernel.ref}"
        with self._wire.client() as client:
            api = client.kernels.kernels_api_client
            reply = retry.write(self._wire.clock, label, lambda: api.save_kernel(request))
        transport.check_reply(label, reply, tuple(f"invalid_{kind}" for kind in _SOURCES))
        if not reply.version_number:
            raise OutcomeUnknown(
                f"{label}: Kaggle returned no version number; run the same command again to check"
            )
        return int(reply.version_number)

    def status(self, ref: str, version: int) -> tuple[str, str]:
        """Return Kaggle's status of one version, and the reason of a failure."""
        owner, slug = ref.split("/")
        request = transport.request_types(_TYPES).ApiGetKernelSessionStatusRequest()
        request.user_name, request.kernel_slug, request.version_label = owner, slug, f"v{version}"
        label = f"status of {ref} version {version}"
        with self._wire.client() as client:
            api = client.kernels.kernels_api_client
            reply = retry.read(
                self._wire.clock, label, lambda: api.get_kernel_session_status(request)
            )
        return reply.status.name, reply.failure_message or ""

    def download_output(self, ref: str, version: int, folder: Path) -> list[str]:
        """Download all output files and the log of one version; return the file names.

        A name includes its folders.
        """
        name = f"{ref}/{version}"
        paths, _ = retry.read(
            self._wire.clock,
            f"output of {ref} version {version}",
            lambda: self._wire.api.kernels_output(name, str(folder), force=True, page_size=PAGE),
        )
        return sorted(Path(path).relative_to(folder).as_posix() for path in paths)
