"""10. Wait for the kernel, download and check its output, record evidence; then collect scores."""

from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from parity.competition.kinds import competition_of
from parity.deploy.bundle import sealed_folder
from parity.deploy.kaggle_api import client as kaggle_client
from parity.deploy.kaggle_api import follow as following
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import Clock, WallClock
from parity.deploy.kaggle_api.follow import KernelVersion
from parity.deploy.kaggle_api.types import KaggleSubmission
from parity.deploy.kernel import run_report
from parity.pipeline import dag, evidence
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.pipeline.stage_cores import rehearse
from parity.run import digest, ledger
from parity.run import manifest as manifests
from parity.run.config.competition import CompetitionConfig
from parity.run.errors import Mismatch, RunFailed
from parity.run.experiment import Run
from parity.run.ledger import Evidence, KaggleStep, Kind
from parity.run.paths import RunPaths

OUTPUT = "output"
"""Subfolder with the kernel's output."""
_SPARE = 60.0  # extra minutes for queueing and saving


def follow(run: Run, minutes: float = 0.0, *, clock: Clock | None = None) -> dict[str, str]:
    """Wait for the pushed version, download and check its output; then collect its score.

    Args:
        run: the run at its round.
        minutes: longest wait; 0 means the competition's limit plus an hour.
        clock: clock for waiting.

    Returns:
        The scores as Kaggle writes them; empty if nothing was submitted.

    Raises:
        Mismatch: the output is from another bundle, or its submission does not match its report.
        RunFailed: the kernel or the submission failed.
        OutcomeUnknown: it did not end in time; the same command continues.
    """
    StageGraph().require(run, "follow")  # fail before the login
    budget = minutes or run.config.shipping.hours * 60 + _SPARE
    with kaggle_client.open_client(clock or WallClock()) as client:
        if StageGraph().standing(run, "follow").state != "done":
            _collect(run, client, budget)
        return _score(run.workspace, run.round, run.config.competition, client, budget)


def submitted(paths: RunPaths, round_: int) -> KaggleStep | None:
    """Return the submission of the round's pushed version, from the ledger."""
    pushed = manifests.read(paths.stage("push", round_))
    submissions = [
        step
        for step in evidence.steps(paths, round_)
        if step.step == "submit"
        and pushed is not None
        and step.refs.get("kernel") == pushed.facts["kernel"]
        and step.refs.get("version") == pushed.facts["version"]
    ]
    return submissions[-1] if submissions else None


def _collect(run: Run, client: KaggleClient, minutes: float) -> None:
    """Wait for the kernel, download its output, and append evidence `kernel`."""
    with stage_context(run, "follow") as context:
        pushed = context.required[dag.label_of("push", run)].facts
        version = KernelVersion(pushed["kernel"], pushed["version"])
        bundle = sealed_folder.read(dag.folder(run, "package") / "bundle")
        output = context.folder / OUTPUT
        submission = competition_of(run.config.competition).submission.file
        try:
            following.wait_until_complete(client, version, minutes)
            names = following.download_output(
                client,
                version,
                output,
                lambda folder: _check_output(folder, bundle.digest, submission),
            )
        except RunFailed as error:
            _note(run.workspace, run.round, version, bundle.digest, str(error))
            last = following.download_last_log_line(client, version, context.folder / "failed")
            log = f"; last log line: {last}" if last else ""
            raise RunFailed(
                f"{error}{log}; fix the cause, then push again", fix=("push",)
            ) from error
        context.outputs = [f"{OUTPUT}/{name}" for name in names]
        measured, report = run_report.read(output)
        measured = replace(measured, kind="kernel")
        _append(run.workspace.ledger, measured)
        evidence.keep(run.workspace, measured, {name: output / name for name in evidence.MEASURED})
        _note(run.workspace, run.round, version, bundle.digest)
        refs = {"kernel": version.ref, "version": version.number}
        context.facts = {
            **refs,
            "bundle": bundle.digest,
            "submission": measured.layers["submission"],
        }
        context.facts["speed"] = report.get("speed")
        print(f"{version}: complete, {len(names)} files in {output}")
        print(rehearse.describe_layers(bundle.facts["layers"], measured.layers, "kernel"))
        print(f"next: {run.command('submit')}")


def _note(paths: RunPaths, round_: int, version: KernelVersion, key: str, failed: str = "") -> None:
    """Record in the ledger how a version ended, so that a failed one can be pushed again."""
    refs = {"kernel": version.ref, "version": version.number, "failed": failed}
    evidence.note(paths, round_, "follow", key, refs)


def _check_output(folder: Path, bundle: str, submission: str) -> None:
    """Check that a kernel's output is complete and from this bundle."""
    if not (folder / submission).is_file():
        raise RunFailed(f"the kernel wrote no {submission}")
    if not (folder / run_report.NAME).is_file():
        raise RunFailed(
            f"the kernel wrote no {run_report.NAME}; check that it is this run's kernel"
        )
    measured, report = run_report.read(folder)
    if report["bundle"] != bundle:
        raise Mismatch(
            f"the output is from bundle {report['bundle'][:12]}, expected {bundle[:12]}: Kaggle "
            "served another version; run the same command again"
        )
    if digest.of_file(folder / submission) != measured.layers["submission"]:
        raise Mismatch(f"{submission} does not match its report; run the same command again")


def _score(
    paths: RunPaths,
    round_: int,
    config: CompetitionConfig,
    client: KaggleClient,
    minutes: float,
) -> dict[str, str]:
    """Read the submission's scores and append new ones as evidence."""
    step = submitted(paths, round_)
    if step is None:
        return {}
    refs = step.refs
    version = KernelVersion(refs["kernel"], refs["version"])
    try:
        scored = following.wait_for_score(
            client, refs["competition"], refs["ref"], step.key, minutes
        )
    except RunFailed as error:
        _note(paths, round_, version, step.key, str(error))
        raise RunFailed(f"{error}; fix the cause, then push again", fix=("push",)) from error
    kernels = evidence.kernels(paths, round_)
    scores: dict[Kind, str] = {"public": scored.public, "private": scored.private}
    for kind, text in scores.items():
        value = _decimal(text)
        print(f"{kind} score: {text or 'not available yet'}")
        if value is not None and kernels:
            metric = competition_of(config).metric
            score = {**metric.as_json(), metric.key: value}
            record = _leaderboard_evidence(kernels[-1], kind, score, step, scored)
            _append(paths.ledger, record)
    return {"public": scored.public, "private": scored.private}


def _leaderboard_evidence(
    kernel: Evidence, kind: Kind, value: dict[str, Any], step: KaggleStep, scored: KaggleSubmission
) -> Evidence:
    """Return the evidence of a leaderboard score for the kernel's run."""
    score = {**value, "ref": scored.ref, "key": step.key}
    return replace(kernel, kind=kind, status="clean", score=score, made=ledger.utc_now())


def _append(path: Path, record: Evidence) -> None:
    """Append evidence to the ledger unless it has it already."""
    records = [replace(item, made="") for item in ledger.read(path)]
    if replace(record, made="") not in records:
        ledger.append(path, record)


def _decimal(text: str) -> float | None:
    """Return a score from its text, None if it is empty."""
    try:
        return float(Decimal(text))
    except InvalidOperation:
        return None
