"""Submit a kernel version once: the key in the description finds it again, whatever was lost."""

from dataclasses import dataclass
from pathlib import Path

from parity.competition.eedi import submission
from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.follow import Version, find
from parity.deploy.kaggle_api.idempotency import GRACE, ensure_once
from parity.run.errors import KaggleRejected, OutcomeUnknown


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submission that Kaggle holds.

    Attributes:
        ref: Kaggle's number of it.
        key: ours, in its description.
        sent: whether it was made now.
    """

    ref: int
    key: str
    sent: bool


def key_of(bundle: str, version: int) -> str:
    """Return the key of a bundle run as one kernel version.

    >>> key_of("0123456789abcdef", 3)
    'kp1:01234567:v3'
    """
    return f"kp1:{bundle[:8]}:v{version}"


def submit(
    door: KaggleClient, competition: str, version: Version, key: str, scratch: Path
) -> Submitted:
    """Make sure that Kaggle holds one submission with this key.

    Args:
        door: to Kaggle.
        competition: its slug.
        version: a version whose run has ended and was checked.
        key: of bundle and version.
        scratch: folder for marks.

    Raises:
        Refused: no submission is left today, or Kaggle takes it not.
        Unknown: it may have taken it; the same command finds out first.
    """

    def look() -> int | None:
        found = find(door, competition, 0, key)
        return found.ref if found else None

    def prove(ref: int) -> None:
        if polling.poll_until(door.clock, look, GRACE) is None:
            raise OutcomeUnknown(
                f"submission {ref} ({key}) does not show; the same command looks again"
            )

    mark = scratch / f"{competition}-{key.replace(':', '-')}.mark"
    ref, sent = ensure_once(
        door.clock, mark, look, lambda: _submit(door, competition, version, key), prove
    )
    return Submitted(ref, key, sent=sent)


def _submit(door: KaggleClient, competition: str, version: Version, key: str) -> int:
    _left(door, competition)
    return door.competitions.submit(
        competition, version.ref, version.number, file=submission.NAME, key=key
    )


def steps(door: KaggleClient, competition: str, version: Version, key: str) -> list[str]:
    """Return the calls that `submit` would make, a line each, having only asked.

    Raises:
        Refused: no submission is left today.
    """
    if (found := find(door, competition, 0, key)) is not None:
        return [f"{competition}: submission {found.ref} has key {key}: nothing to submit"]
    return [
        f"{competition}: {_left(door, competition)} submissions left today",
        f"CreateCodeSubmission {version}, {submission.NAME}, description {key}",
    ]


def _left(door: KaggleClient, competition: str) -> int:
    """Return how many submissions are left today, at least 1."""
    left = door.competitions.left(competition)
    if left < 1:
        raise KaggleRejected(
            f"{competition}: no submission is left today (Kaggle counts days in UTC); "
            "the same command tomorrow"
        )
    return left
