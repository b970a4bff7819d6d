"""Follow a kernel version to its end and fetch all it wrote; follow a submission to its score."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parity.deploy.kaggle_api import polling
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.types import COMPLETE, FAILED, KaggleSubmission
from parity.run import files
from parity.run.errors import Mismatch, OutcomeUnknown, ParityError, RunFailed

_PENDING = "PENDING"
_FETCHES = 3
_SETTLE = 60.0  # seconds between two tries of an output that came broken or stale


@dataclass(frozen=True, slots=True)
class Version:
    """A kernel version.

    Attributes:
        ref: owner/slug.
        number: of the version.
    """

    ref: str
    number: int

    def __str__(self) -> str:
        """Return how a person is told of it."""
        return f"{self.ref} version {self.number}"


def wait(door: KaggleClient, version: Version, minutes: float) -> None:
    """Return when the version's run has ended well.

    Raises:
        RunFailed: it ended badly; has Kaggle's words.
        Unknown: it has not ended in time; the same command goes on.
    """
    last = ""

    def look() -> str | None:
        nonlocal last
        last, why = door.kernels.status(version.ref, version.number)
        if last in FAILED:
            raise RunFailed(f"{version}: {last} on Kaggle{f', {why!r}' if why else ''}")
        return last if last == COMPLETE else None

    if polling.poll_until(door.clock, look, minutes * 60) is None:
        raise OutcomeUnknown(
            f"{version} is still {last} after {minutes:.0f} minutes; the same command goes on"
        )


def fetch(
    door: KaggleClient, version: Version, folder: Path, judge: Callable[[Path], None]
) -> list[str]:
    """Fetch all output and the log of a version into `folder`, which is replaced whole.

    Args:
        door: to Kaggle.
        version: one whose run has ended.
        folder: where to.
        judge: raises an error where what was fetched is not what this version must have written;
            it is then fetched again, for Kaggle may still give the version before.

    Returns:
        The files' names.

    Raises:
        Unknown: what came is cut short each time.
    """
    problem: ParityError | None = None
    for attempt in range(_FETCHES):
        if attempt:
            door.clock.sleep(_SETTLE)
        try:
            with files.replacing(folder) as temporary:
                temporary.mkdir()
                names = door.kernels.output(version.ref, version.number, temporary)
                judge(temporary)
                return names
        except (ValueError, OSError) as error:
            told = " ".join(str(error).split())[:120]
            problem = OutcomeUnknown(
                f"output of {version} came broken ({told}); the same command again"
            )
        except (Mismatch, RunFailed) as error:
            problem = error
    assert problem is not None
    raise problem


def log_of(door: KaggleClient, version: Version, folder: Path) -> str:
    """Return the last words of a version's log, empty where there are none to be had."""
    try:
        with files.replacing(folder) as temporary:
            temporary.mkdir()
            door.kernels.output(version.ref, version.number, temporary)
        return last_words(folder)
    except (ParityError, ValueError, OSError):
        return ""  # the failure itself is what has to be told


def last_words(folder: Path) -> str:
    """Return the last line that a fetched kernel wrote, from its log; empty where that was cut."""
    for path in sorted(folder.glob("*.log")):
        try:
            rows = files.read_json(path)
        except ParityError:
            continue  # cut short, or a log of the kernel's own
        if not isinstance(rows, list):
            continue
        text = "".join(str(row.get("data", "")) for row in rows if isinstance(row, dict))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""
    return ""


def score(
    door: KaggleClient, competition: str, ref: int, key: str, minutes: float
) -> KaggleSubmission:
    """Return the submission once it has ended, or as it is when the time is up.

    It is found by Kaggle's number of it, and where that is not known by its key.

    Raises:
        RunFailed: it ended in an error.
        Mismatch: Kaggle holds none of either.
    """

    def look() -> KaggleSubmission | None:
        found = find(door, competition, ref, key)
        if found is None:
            raise Mismatch(f"{competition}: Kaggle holds no submission {key}; run: invoke submit")
        if found.status == "ERROR":
            raise RunFailed(
                f"submission {found.ref} ({key}) ended in an error: {found.error or 'no reason'}"
            )
        return found if found.status != _PENDING else None

    ended = polling.poll_until(door.clock, look, minutes * 60)
    if ended is None:
        raise OutcomeUnknown(
            f"submission {key} is still pending after {minutes:.0f} minutes; "
            "the same command looks again"
        )
    return ended


def find(door: KaggleClient, competition: str, ref: int, key: str) -> KaggleSubmission | None:
    """Return the submission of this number, or the one whose description has the key."""
    held = door.competitions.held(competition)
    by_ref = [one for one in held if ref and one.ref == ref]
    by_key = [one for one in held if key in one.description.split()]
    return next(iter([*by_ref, *by_key]), None)
