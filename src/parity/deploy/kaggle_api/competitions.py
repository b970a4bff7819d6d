"""Submissions to a competition: list them, count how many are left today, create one."""

from typing import Any

from parity.deploy.kaggle_api import retry, transport
from parity.deploy.kaggle_api.transport import PAGE, Transport
from parity.deploy.kaggle_api.types import KaggleSubmission
from parity.run.errors import KaggleRejected

_TYPES = "competitions.types.competition_api_service"


class Competitions:
    """Calls about submissions."""

    def __init__(self, wire: Transport) -> None:
        """Send requests through `wire`."""
        self._wire = wire

    def list_submissions(self, competition: str) -> list[KaggleSubmission]:
        """Return all submissions of this account to a competition, from all pages."""
        request = transport.request_types(_TYPES).ApiListSubmissionsRequest()
        request.competition_name, request.page_size = competition, PAGE
        label = f"submissions to {competition}"
        with self._wire.client() as client:
            api = client.competitions.competition_api_client
            pages = list(self._wire.pages(label, api.list_submissions, request))
        return [_submission(item) for page in pages for item in page.submissions or []]

    def submissions_left(self, competition: str) -> int:
        """Return how many more submissions are allowed today."""
        request = transport.request_types(_TYPES).ApiGetSubmissionLimitsRequest()
        request.competition_name = competition
        label = f"limits of {competition}"
        with self._wire.client() as client:
            api = client.competitions.competition_api_client
            reply = retry.read(self._wire.clock, label, lambda: api.get_submission_limits(request))
        return int(reply.num_allowed_now)

    def submit(self, competition: str, kernel: str, version: int, *, file: str, key: str) -> int:
        """Submit the output of one kernel version; return Kaggle's number of the submission.

        Raises:
            KaggleRejected: Kaggle refused it.
            OutcomeUnknown: it may have been created.
        """
        label = f"submit {kernel} version {version}"
        owner, slug = kernel.split("/")
        request = transport.request_types(_TYPES).ApiCreateCodeSubmissionRequest()
        request.competition_name, request.file_name = competition, file
        request.kernel_owner, request.kernel_slug = owner, slug
        request.kernel_version, request.submission_description = version, key
        with self._wire.client() as client:
            api = client.competitions.competition_api_client
            reply = retry.write(
                self._wire.clock, label, lambda: api.create_code_submission(request)
            )
        if not reply.ref:
            message = retry.strip_addresses(reply.message or "")
            raise KaggleRejected(f"{label}: Kaggle created no submission and says {message!r}")
        return int(reply.ref)


def _submission(reply: Any) -> KaggleSubmission:
    return KaggleSubmission(
        ref=int(reply.ref),
        status=reply.status.name,
        description=reply.description or "",
        error=reply.error_description or "",
        public=reply.public_score or "",
        private=reply.private_score or "",
    )
