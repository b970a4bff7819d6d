"""8. Bundle and wheelhouse → private Kaggle datasets, each sent only when its content is new."""

from collections.abc import Callable
from typing import Literal

from parity.deploy.bundle import scan
from parity.deploy.kaggle_api import client as doors
from parity.deploy.kaggle_api import publish as publishing
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import Clock, WallClock
from parity.deploy.kaggle_api.publish import DatasetUpload
from parity.pipeline import dataset, dataset_uploads, evidence
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.run import files
from parity.run.experiment import Run

What = Literal["bundle", "base"]


def publish(run: Run, what: What = "bundle", *, clock: Clock | None = None) -> dict[str, str]:
    """Make sure Kaggle holds the run's datasets; return noun → owner/slug/N.

    Args:
        run: at its round.
        what: `bundle` with its wheelhouse, or the `base` alone, which is large and rarely changes.
        clock: what waiting goes by.

    Raises:
        BadConfig: no license, no login.
        Mismatch: what arrived is not what was sent.
        Refused: Kaggle said no.
        Unknown: it may have taken it; the same command goes on.
    """
    if what == "base":
        with doors.opened(clock or WallClock()) as door:
            return {"base": _one(run, door, dataset_uploads.base(run, door.user))}
    StageGraph().require(run, "publish")  # before anybody is asked for a login
    with doors.opened(clock or WallClock()) as door, stage_context(run, "publish") as work:
        _scan(run)
        made = {
            "wheelhouse": _one(run, door, dataset_uploads.wheelhouse(run, door.user)),
            "bundle": _one(run, door, dataset_uploads.bundle(run, door.user)),
        }
        work.facts = made
        files.write_json(work.out("published.json"), made)
    return made


def show(run: Run, what: What = "bundle", *, clock: Clock | None = None) -> dict[str, list[str]]:
    """Print every call that `publish` would make; only ask, change nothing."""
    lines: list[str] = []
    if what == "bundle":
        StageGraph().require(run, "publish")
        _scan(run)
    with doors.opened(clock or WallClock()) as door:
        makers: dict[str, list[Callable[[Run, str], DatasetUpload]]] = {
            "bundle": [dataset_uploads.wheelhouse, dataset_uploads.bundle],
            "base": [dataset_uploads.base],
        }
        for make in makers[what]:
            lines += publishing.steps(door, make(run, door.user))
    print("\n".join(f"would: {line}" for line in lines))
    return {"would": lines}


def _one(run: Run, door: KaggleClient, parcel: DatasetUpload) -> str:
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
    known = dataset.load(run)
    said = [] if run.config.data.license else dataset.texts(known)
    folder = run.workspace.stage("package", run.round)
    scan.scan(folder / "bundle", said)
    scan.scan(folder / "wheelhouse", said)
