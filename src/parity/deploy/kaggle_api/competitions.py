"""Submissions to a competition: what is held, how many are left today, and making one."""

from typing import Any

from parity.deploy.kaggle_api import retry
from parity.deploy.kaggle_api import transport as wire
from parity.deploy.kaggle_api.transport import PAGE, Transport
from parity.deploy.kaggle_api.types import KaggleSubmission
from parity.run.errors import KaggleRejected


class Competitions:
    """Kaggle's submissions, as this project asks for and makes them."""

    def __init__(self, wire: Transport) -> None:
        """Talk through `wire`."""
        self._wire = wire

    def held(self, competition: str) -> list[KaggleSubmission]:
        """Return all own submissions to a competition, from all pages."""
        asked = wire.types("competitions.types.competition_api_service").ApiListSubmissionsRequest()
        asked.competition_name, asked.page_size = competition, PAGE
        what = f"submissions to {competition}"
        with self._wire.client() as client:
            api = client.competitions.competition_api_client
            pages = list(self._wire.pages(what, api.list_submissions, asked))
        return [_submission(submission) for page in pages for submission in page.submissions or []]

    def left(self, competition: str) -> int:
        """Return how many more submissions are allowed today."""
        types = wire.types("competitions.types.competition_api_service")
        asked = types.ApiGetSubmissionLimitsRequest()
        asked.competition_name = competition
        with self._wire.client() as client:
            api = client.competitions.competition_api_client
            what = f"limits of {competition}"
            return int(
                retry.read(
                    self._wire.clock, what, lambda: api.get_submission_limits(asked)
                ).num_allowed_now
            )

    def submit(self, competition: str, kernel: str, version: int, *, file: str, key: str) -> int:
        """Submit what one kernel version wrote; return Kaggle's number of the submission.

        Raises:
            Refused: Kaggle took none.
            Unknown: it may have.
        """
        what = f"submit {kernel} version {version}"
        owner, slug = kernel.split("/")
        types = wire.types("competitions.types.competition_api_service")
        request = types.ApiCreateCodeSubmissionRequest()
        request.competition_name, request.file_name = competition, file
        request.kernel_owner, request.kernel_slug = owner, slug
        request.kernel_version, request.submission_description = version, key
        with self._wire.client() as client:
            api = client.competitions.competition_api_client
            reply = retry.write(self._wire.clock, what, lambda: api.create_code_submission(request))
        if not reply.ref:
            raise KaggleRejected(
                f"{what}: Kaggle made none and says {retry.plain(reply.message or '')!r}"
            )
        return int(reply.ref)


def _submission(one: Any) -> KaggleSubmission:
    return KaggleSubmission(
        ref=int(one.ref),
        status=one.status.name,
        description=one.description or "",
        error=one.error_description or "",
        public=one.public_score or "",
        private=one.private_score or "",
    )
