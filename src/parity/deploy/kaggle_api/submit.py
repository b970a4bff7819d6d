"""Idempotent submission of a kernel version, identified by a key in the description."""

from dataclasses import dataclass
from pathlib import Path

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.follow import KernelVersion, find_submission
from parity.deploy.kaggle_api.idempotency import GRACE, ensure_once
from parity.run.errors import KaggleRejected, OutcomeUnknown


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submission on Kaggle.

    Attributes:
        ref: Kaggle's number of it.
        key: our key, in its description.
        sent: whether this call created it.
    """

    ref: int
    key: str
    sent: bool


def submission_key(bundle: str, version: int) -> str:
    """Return the key for a bundle and the kernel version that ran it.

    >>> submission_key("0123456789abcdef", 3)
    'kp1:01234567:v3'
    """
    return f"kp1:{bundle[:8]}:v{version}"


def submit(
    client: KaggleClient,
    competition: str,
    version: KernelVersion,
    key: str,
    scratch: Path,
    *,
    file: str,
) -> Submitted:
    """Ensure that Kaggle has exactly one submission with this key.

    Args:
        client: Kaggle client.
        competition: competition slug.
        version: a version that is complete and checked.
        key: key of bundle and version.
        scratch: folder for mark files.
        file: name of the submission in the kernel's output.

    Raises:
        KaggleRejected: no submissions are left today, or Kaggle refused this one.
        OutcomeUnknown: it may have been created; the same command checks first.
    """

    def look() -> int | None:
        existing = find_submission(client, competition, 0, key)
        return existing.ref if existing else None

    def verify(ref: int) -> None:
        if polling.poll_until(client.clock, look, GRACE) is None:
            raise OutcomeUnknown(
                f"submission {ref} ({key}) is not listed by Kaggle yet; "
                "run the same command again to check"
            )

    mark = scratch / f"{competition}-{key.replace(':', '-')}.mark"
    ref, sent = ensure_once(
        client.clock, mark, look, lambda: _submit(client, competition, version, key, file), verify
    )
    return Submitted(ref, key, sent=sent)


def _submit(
    client: KaggleClient, competition: str, version: KernelVersion, key: str, file: str
) -> int:
    _submissions_left(client, competition)
    return client.competitions.submit(competition, version.ref, version.number, file=file, key=key)


def planned_calls(
    client: KaggleClient, competition: str, version: KernelVersion, key: str, *, file: str
) -> list[str]:
    """Return the calls that `submit` would make, one per line; only read from Kaggle.

    Raises:
        KaggleRejected: no submissions are left today.
    """
    if (existing := find_submission(client, competition, 0, key)) is not None:
        return [f"{competition}: submission {existing.ref} has key {key}: nothing to submit"]
    return [
        f"{competition}: {_submissions_left(client, competition)} submissions left today",
        f"CreateCodeSubmission {version}, {file}, description {key}",
    ]


def _submissions_left(client: KaggleClient, competition: str) -> int:
    """Return how many submissions are left today, at least 1."""
    count = client.competitions.submissions_left(competition)
    if count < 1:
        raise KaggleRejected(
            f"{competition}: no submissions left today (Kaggle counts days in UTC); "
            "run the same command tomorrow"
        )
    return count
