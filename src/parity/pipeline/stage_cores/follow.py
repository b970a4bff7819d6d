"""10. The kernel's run → its output here, judged by its report → evidence `kernel`; then scores."""

from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from parity.competition.eedi import submission
from parity.deploy.bundle import sealed_folder
from parity.deploy.kaggle_api import client as doors
from parity.deploy.kaggle_api import follow as following
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import Clock, WallClock
from parity.deploy.kaggle_api.follow import Version
from parity.deploy.kaggle_api.types import KaggleSubmission
from parity.deploy.kernel import run_report
from parity.pipeline import dag, evidence
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.pipeline.stage_cores import rehearse
from parity.run import digest, ledger
from parity.run import manifest as manifests
from parity.run.errors import Mismatch, RunFailed
from parity.run.experiment import Run
from parity.run.ledger import Evidence, KaggleStep, Kind

OUTPUT = "output"
"""Folder of what the kernel wrote, in the stage's own."""
_SPARE = 60.0  # minutes beyond the competition's limit: queues, saving


def follow(run: Run, minutes: float = 0.0, *, clock: Clock | None = None) -> dict[str, str]:
    """Wait for the pushed version, fetch what it wrote, judge it; then look for its score.

    Args:
        run: at its round.
        minutes: the longest wait; 0 is the competition's limit and an hour.
        clock: what waiting goes by.

    Returns:
        The scores as Kaggle writes them; empty where nothing was submitted.

    Raises:
        Mismatch: the output is not of this bundle, or its submission not of its report.
        RunFailed: the kernel or the submission ended in an error.
        Unknown: it has not ended in time; the same command goes on.
    """
    StageGraph().require(run, "follow")  # before anybody is asked for a login
    budget = minutes or run.config.shipping.hours * 60 + _SPARE
    with doors.opened(clock or WallClock()) as door:
        if StageGraph().standing(run, "follow").state != "done":
            _collect(run, door, budget)
        return _score(run, door, budget)


def submitted(run: Run) -> KaggleStep | None:
    """Return the submission of the version that was followed last, from the ledger."""
    pushed = manifests.read(dag.folder(run, "push"))
    found = [
        step
        for step in evidence.steps(run)
        if step.step == "submit"
        and pushed is not None
        and step.refs.get("kernel") == pushed.facts["kernel"]
        and step.refs.get("version") == pushed.facts["version"]
    ]
    return found[-1] if found else None


def _collect(run: Run, door: KaggleClient, minutes: float) -> None:
    """Wait for the kernel's end, fetch its output, and append evidence `kernel`."""
    with stage_context(run, "follow") as work:
        pushed = work.found[dag.label_of("push", run)].facts
        version = Version(pushed["kernel"], pushed["version"])
        bundle = sealed_folder.read(dag.folder(run, "package") / "bundle")
        place = work.folder / OUTPUT
        try:
            following.wait(door, version, minutes)
            names = following.fetch(door, version, place, lambda item: _judge(item, bundle.digest))
        except RunFailed as error:
            _note(run, version, bundle.digest, str(error))
            last = following.log_of(door, version, work.folder / "failed")
            words = f"; its last words: {last}" if last else ""
            raise RunFailed(f"{error}{words}; once mended: {run.command('push')}") from error
        work.outputs = [f"{OUTPUT}/{name}" for name in names]
        found, record = run_report.read(place)
        seen = replace(found, kind="kernel")
        _append(run, seen)
        evidence.keep(run.workspace, seen, {name: place / name for name in evidence.MEASURED})
        _note(run, version, bundle.digest)
        refs = {"kernel": version.ref, "version": version.number}
        work.facts = {**refs, "bundle": bundle.digest, "submission": found.layers["submission"]}
        work.facts["speed"] = record.get("speed")
        print(f"{version}: complete, {len(names)} files: {place}")
        print(rehearse.layers_told(bundle.facts["layers"], found.layers, "kernel"))
        print(f"next: {run.command('submit')}")


def _note(run: Run, version: Version, key: str, failed: str = "") -> None:
    """Record in the ledger how a version ended, so that a bad one may be pushed again."""
    refs = {"kernel": version.ref, "version": version.number, "failed": failed}
    evidence.note(run, "follow", key, refs)


def _judge(there: Path, bundle: str) -> None:
    """Check that a kernel's output is whole and of this bundle."""
    if not (there / submission.NAME).is_file():
        raise RunFailed(f"the kernel ended without {submission.NAME}")
    if not (there / run_report.NAME).is_file():
        raise RunFailed(f"the kernel ended without {run_report.NAME}; is it this project's kernel?")
    found, record = run_report.read(there)
    if record["bundle"] != bundle:
        raise Mismatch(
            f"the output is of bundle {record['bundle'][:12]}, pushed was {bundle[:12]}: Kaggle "
            "gives another version's; the same command again"
        )
    if digest.of_file(there / submission.NAME) != found.layers["submission"]:
        raise Mismatch(f"{submission.NAME} is not the one its report names; the same command again")


def _score(run: Run, door: KaggleClient, minutes: float) -> dict[str, str]:
    """Look for the submission's scores and append what is new of them as evidence."""
    step = submitted(run)
    if step is None:
        return {}
    refs = step.refs
    version = Version(refs["kernel"], refs["version"])
    try:
        ended = following.score(door, refs["competition"], refs["ref"], step.key, minutes)
    except RunFailed as error:
        _note(run, version, step.key, str(error))
        raise RunFailed(f"{error}; another version may be tried: {run.command('push')}") from error
    mine = evidence.kernels(run)
    scores: dict[Kind, str] = {"public": ended.public, "private": ended.private}
    for kind, told in scores.items():
        value = _decimal(told)
        print(f"{kind} score: {told or 'not told yet'}")
        if value is not None and mine:
            _append(run, _scored(mine[-1], kind, value, step, ended))
    return {"public": ended.public, "private": ended.private}


def _scored(
    kernel: Evidence, kind: Kind, value: float, step: KaggleStep, ended: KaggleSubmission
) -> Evidence:
    """Return what the leaderboard says of what the kernel ran."""
    score: dict[str, Any] = {"map@25": value, "ref": ended.ref, "key": step.key}
    return replace(kernel, kind=kind, status="clean", score=score, made=ledger.now())


def _append(run: Run, found: Evidence) -> None:
    """Append evidence unless it stands in the ledger already."""
    known = [replace(one, made="") for one in ledger.read(run.workspace.ledger)]
    if replace(found, made="") not in known:
        ledger.append(run.workspace.ledger, found)


def _decimal(told: str) -> float | None:
    """Return a score that Kaggle writes as text, None where there is none."""
    try:
        return float(Decimal(told))
    except InvalidOperation:
        return None
