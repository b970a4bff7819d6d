"""11. The kernel's checked version → one submission to the competition."""

from typing import Any

from parity.competition.eedi import submission
from parity.deploy.kaggle_api import client as doors
from parity.deploy.kaggle_api import submit as submitting
from parity.deploy.kaggle_api.clock import Clock, WallClock
from parity.deploy.kaggle_api.follow import Version
from parity.pipeline import dag, evidence
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.pipeline.stage_cores.follow import OUTPUT
from parity.run import digest, files
from parity.run.errors import Mismatch
from parity.run.experiment import Run
from parity.run.manifest import Manifest


def submit(run: Run, *, clock: Clock | None = None) -> dict[str, Any]:
    """Make sure Kaggle holds one submission of the followed version; return key and number.

    Raises:
        Mismatch: what was fetched is not what the ledger has of this version.
        Refused: none is left today, or Kaggle said no.
        StaleInput: no version was followed to its end.
        Unknown: it may have taken it; the same command finds out first.
    """
    StageGraph().require(run, "submit")  # before anybody is asked for a login
    with doors.opened(clock or WallClock()) as door, stage_context(run, "submit") as work:
        version, key = _checked(run, work.found[dag.label_of("follow", run)])
        competition = run.config.data.competition
        done = submitting.submit(door, competition, version, key, run.workspace.uploads)
        refs = {
            "ref": done.ref,
            "competition": competition,
            "kernel": version.ref,
            "version": version.number,
        }
        evidence.note(run, "submit", key, refs)
        work.facts = {"key": key, **refs}
        files.write_json(work.out("submitted.json"), work.facts)
    told = "made" if done.sent else "was there: none made"
    print(f"submission {done.ref} ({key}): {told}")
    print(f"next: {run.command('follow')}   (collects the score)")
    return {"key": key, **refs}


def show(run: Run, *, clock: Clock | None = None) -> dict[str, list[str]]:
    """Print every call that `submit` would make; only ask, change nothing."""
    found = StageGraph().require(run, "submit")
    version, key = _checked(run, found[dag.label_of("follow", run)])
    with doors.opened(clock or WallClock()) as door:
        lines = submitting.steps(door, run.config.data.competition, version, key)
    print("\n".join(f"would: {line}" for line in lines))
    return {"would": lines}


def _checked(run: Run, followed: Manifest) -> tuple[Version, str]:
    """Return version and key of what was followed, proven against the ledger."""
    facts = followed.facts
    kernels = evidence.kernels(run)
    place = dag.folder(run, "follow") / OUTPUT / submission.NAME
    if not kernels or kernels[-1].layers["submission"] != digest.of_file(place):
        raise Mismatch(
            f"{place} is not the submission that the ledger has of this kernel; "
            f"run: {run.command('follow')}"
        )
    version = Version(facts["kernel"], facts["version"])
    return version, submitting.key_of(facts["bundle"], version.number)
