"""8. Bundle and wheelhouse → private Kaggle datasets, each sent only when its content is new."""

from collections.abc import Callable
from typing import Literal

from parity.remote import door as doors
from parity.remote import publish as publishing
from parity.remote.clock import Clock, WallClock
from parity.remote.door import Door
from parity.remote.publish import Parcel
from parity.run import files
from parity.shipping import scan
from parity.stages import evidence, nouns, parcels
from parity.stages.graph import Survey
from parity.stages.run import Run
from parity.stages.work import working

What = Literal["bundle", "base"]


def publish(run: Run, what: What = "bundle", *, clock: Clock | None = None) -> dict[str, str]:
    """Make sure Kaggle holds the run's datasets; return noun → owner/slug/N.

    Args:
        run: at its round.
        what: `bundle` with its wheelhouse, or the `base` alone, which is large and rarely changes.
        clock: what waiting goes by.

    Raises:
        BadConfig: no licence, no login.
        Mismatch: what arrived is not what was sent.
        Refused: Kaggle said no.
        Unknown: it may have taken it; the same command goes on.
    """
    if what == "base":
        with doors.opened(clock or WallClock()) as door:
            return {"base": _one(run, door, parcels.base(run, door.user))}
    Survey().require(run, "publish")  # before anybody is asked for a login
    with doors.opened(clock or WallClock()) as door, working(run, "publish") as work:
        _scan(run)
        made = {
            "wheelhouse": _one(run, door, parcels.wheelhouse(run, door.user)),
            "bundle": _one(run, door, parcels.bundle(run, door.user)),
        }
        work.facts = made
        files.write_json(work.out("published.json"), made)
    return made


def show(run: Run, what: What = "bundle", *, clock: Clock | None = None) -> dict[str, list[str]]:
    """Print every call that `publish` would make; only ask, change nothing."""
    lines: list[str] = []
    if what == "bundle":
        Survey().require(run, "publish")
        _scan(run)
    with doors.opened(clock or WallClock()) as door:
        makers: dict[str, list[Callable[[Run, str], Parcel]]] = {
            "bundle": [parcels.wheelhouse, parcels.bundle],
            "base": [parcels.base],
        }
        for make in makers[what]:
            lines += publishing.steps(door, make(run, door.user))
    print("\n".join(f"would: {line}" for line in lines))
    return {"would": lines}


def _one(run: Run, door: Door, parcel: Parcel) -> str:
    """Publish one parcel, record it, and tell."""
    done = publishing.publish(door, parcel, run.workspace.uploads)
    refs = {"dataset": done.ref, "version": done.version}
    evidence.note(run, "publish", parcel.digest, refs)
    size = sum(parcel.sizes.values()) / 1e6
    told = f"sent, {len(parcel.sizes)} files, {size:.1f} MB" if done.sent else "was there: not sent"
    print(f"{done.ref} version {done.version}, {parcel.digest[:12]}: {told}")
    return done.pinned


def _scan(run: Run) -> None:
    """Look once more for what must not leave, just before it does."""
    known = nouns.load(run)
    said = [] if run.config.data.licence else nouns.texts(known)
    folder = run.workspace.stage("package", run.round)
    scan.scan(folder / "bundle", said)
    scan.scan(folder / "wheelhouse", said)
