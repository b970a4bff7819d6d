"""Following of a kernel version until its output is here, and of a submission until its score."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.types import COMPLETE, FAILED, KaggleSubmission
from parity.run import files
from parity.run.errors import Mismatch, OutcomeUnknown, ParityError, RunFailed

_PENDING = "PENDING"
_DOWNLOADS = 3
_PAUSE = 60.0  # seconds between two downloads of an output that is broken or stale


@dataclass(frozen=True, slots=True)
class KernelVersion:
    """A kernel version.

    Attributes:
        ref: owner/slug.
        number: version number.
    """

    ref: str
    number: int

    def __str__(self) -> str:
        """Return its name in messages."""
        return f"{self.ref} version {self.number}"


def wait_until_complete(client: KaggleClient, version: KernelVersion, minutes: float) -> None:
    """Wait until the version's run is complete.

    Raises:
        RunFailed: the run failed; contains Kaggle's message.
        OutcomeUnknown: the run did not end in time; the same command continues.
    """
    status = ""

    def look() -> str | None:
        nonlocal status
        status, reason = client.kernels.status(version.ref, version.number)
        if status in FAILED:
            raise RunFailed(f"{version}: {status} on Kaggle{f', {reason!r}' if reason else ''}")
        return status if status == COMPLETE else None

    if polling.poll_until(client.clock, look, minutes * 60) is None:
        raise OutcomeUnknown(
            f"{version} is still {status} after {minutes:.0f} minutes; "
            "run the same command again to keep waiting"
        )


def download_output(
    client: KaggleClient, version: KernelVersion, folder: Path, check: Callable[[Path], None]
) -> list[str]:
    """Download all output and the log of a version into `folder`, replacing its contents.

    Args:
        client: Kaggle client.
        version: a version whose run has ended.
        folder: target folder.
        check: raises an error if the output cannot be this version's. It is then downloaded
            again, because Kaggle may still serve the previous version.

    Returns:
        The file names.

    Raises:
        OutcomeUnknown: every download is incomplete.
    """
    problem: ParityError | None = None
    for attempt in range(_DOWNLOADS):
        if attempt:
            client.clock.sleep(_PAUSE)
        try:
            with files.replacing(folder) as temporary:
                temporary.mkdir()
                names = client.kernels.download_output(version.ref, version.number, temporary)
                check(temporary)
                return names
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            problem = OutcomeUnknown(
                f"output of {version} is incomplete ({reason}); run the same command again"
            )
        except (Mismatch, RunFailed) as error:
            problem = error
    assert problem is not None
    raise problem


def download_last_log_line(client: KaggleClient, version: KernelVersion, folder: Path) -> str:
    """Return the last line of a version's log, empty if it cannot be downloaded."""
    try:
        with files.replacing(folder) as temporary:
            temporary.mkdir()
            client.kernels.download_output(version.ref, version.number, temporary)
        return read_last_log_line(folder)
    except (ParityError, ValueError, OSError):
        return ""  # the caller reports the failed run, which matters more than this error


def read_last_log_line(folder: Path) -> str:
    """Return the last line of a downloaded kernel's log, empty if the log is incomplete."""
    for path in sorted(folder.glob("*.log")):
        try:
            rows = files.read_json(path)
        except ParityError:
            continue  # incomplete, or a log file that the kernel wrote
        if not isinstance(rows, list):
            continue
        text = "".join(str(row.get("data", "")) for row in rows if isinstance(row, dict))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""
    return ""


def wait_for_score(
    client: KaggleClient, competition: str, ref: int, key: str, minutes: float
) -> KaggleSubmission:
    """Return the submission once it is scored.

    It is found by Kaggle's number, or by its key if the number is unknown.

    Raises:
        RunFailed: it ended in an error.
        Mismatch: Kaggle has no submission with this number or key.
        OutcomeUnknown: it is still pending.
    """

    def look() -> KaggleSubmission | None:
        submission = find_submission(client, competition, ref, key)
        if submission is None:
            raise Mismatch(f"{competition}: Kaggle has no submission {key}", fix=("submit",))
        if submission.status == "ERROR":
            reason = submission.error or "no reason given"
            raise RunFailed(f"submission {submission.ref} ({key}) failed: {reason}")
        return submission if submission.status != _PENDING else None

    scored = polling.poll_until(client.clock, look, minutes * 60)
    if scored is None:
        raise OutcomeUnknown(
            f"submission {key} is still pending after {minutes:.0f} minutes; "
            "run the same command again to keep waiting"
        )
    return scored


def find_submission(
    client: KaggleClient, competition: str, ref: int, key: str
) -> KaggleSubmission | None:
    """Return the submission with this number, or else the one whose description has the key."""
    submissions = client.competitions.list_submissions(competition)
    by_ref = [submission for submission in submissions if ref and submission.ref == ref]
    by_key = [submission for submission in submissions if key in submission.description.split()]
    return next(iter([*by_ref, *by_key]), None)
