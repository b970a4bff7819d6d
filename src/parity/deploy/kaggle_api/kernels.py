"""Kernels on Kaggle: what is held, saving one, which runs it, its status and its output."""

from pathlib import Path

from parity.deploy.kaggle_api import retry
from parity.deploy.kaggle_api import transport as wire
from parity.deploy.kaggle_api.transport import PAGE, Transport
from parity.deploy.kaggle_api.types import KaggleKernel
from parity.run.errors import OutcomeUnknown


class Kernels:
    """Kaggle's kernels, as this project asks for and saves them."""

    def __init__(self, wire: Transport) -> None:
        """Talk through `wire`."""
        self._wire = wire

    def held(self, ref: str) -> KaggleKernel | None:
        """Return the kernel's current version, None where there is none that this account sees."""
        owner, slug = ref.split("/")
        asked = wire.types("kernels.types.kernels_api_service").ApiGetKernelRequest()
        asked.user_name, asked.kernel_slug = owner, slug
        with self._wire.client() as client:
            api = client.kernels.kernels_api_client
            found = retry.ask_for(self._wire.clock, f"kernel {ref}", lambda: api.get_kernel(asked))
        if found is None:
            return None
        meta = found.metadata
        return KaggleKernel(
            ref=ref,
            title=meta.title,
            text=found.blob.source,
            kind=meta.kernel_type,
            image=meta.docker_image or "",
            machine=meta.machine_shape or "",
            gpu=bool(meta.enable_gpu),
            internet=bool(meta.enable_internet),
            private=bool(meta.is_private),
            datasets=tuple(sorted(meta.dataset_data_sources or ())),
            competitions=tuple(sorted(meta.competition_data_sources or ())),
            models=tuple(sorted(meta.model_data_sources or ())),
            version=meta.current_version_number or 0,
        )

    def push(self, kernel: KaggleKernel) -> int:
        """Save a kernel, which starts it; return the number of the version that was made.

        Raises:
            Refused: Kaggle took none, or took it without one of its sources.
            Unknown: it may have taken it.
        """
        request = wire.types("kernels.types.kernels_api_service").ApiSaveKernelRequest()
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
        with self._wire.client() as client:
            api = client.kernels.kernels_api_client
            what = f"push {kernel.ref}"
            reply = retry.write(self._wire.clock, what, lambda: api.save_kernel(request))
        kinds = (
            "tags",
            "dataset_sources",
            "competition_sources",
            "kernel_sources",
            "model_sources",
        )
        wire.fail_on(what, reply, tuple(f"invalid_{kind}" for kind in kinds))
        if not reply.version_number:
            raise OutcomeUnknown(
                f"{what}: Kaggle names no version; the same command looks what it holds"
            )
        return int(reply.version_number)

    def status(self, ref: str, version: int) -> tuple[str, str]:
        """Return the status of one version as Kaggle names it, and why it failed."""
        owner, slug = ref.split("/")
        types = wire.types("kernels.types.kernels_api_service")
        asked = types.ApiGetKernelSessionStatusRequest()
        asked.user_name, asked.kernel_slug, asked.version_label = owner, slug, f"v{version}"
        with self._wire.client() as client:
            api = client.kernels.kernels_api_client
            what = f"status of {ref} version {version}"
            found = retry.read(self._wire.clock, what, lambda: api.get_kernel_session_status(asked))
        return found.status.name, found.failure_message or ""

    def output(self, ref: str, version: int, folder: Path) -> list[str]:
        """Fetch all output files and the log of one version; return the files' names.

        A name has its folders, as Kaggle tells it.
        """
        what = f"output of {ref} version {version}"
        name = f"{ref}/{version}"
        found, _ = retry.read(
            self._wire.clock,
            what,
            lambda: self._wire.api.kernels_output(name, str(folder), force=True, page_size=PAGE),
        )
        return sorted(Path(one).relative_to(folder).as_posix() for one in found)
