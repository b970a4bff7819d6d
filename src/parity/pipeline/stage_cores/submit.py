"""11. Submit the checked kernel version to the competition, once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity.competition.kinds import competition_of
from parity.deploy.kaggle_api import client as kaggle_client
from parity.deploy.kaggle_api import submit as submitting
from parity.deploy.kaggle_api.clock import Clock, WallClock
from parity.deploy.kaggle_api.follow import KernelVersion
from parity.pipeline import dag, evidence
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.pipeline.stage_cores.follow import OUTPUT
from parity.run import digest, files
from parity.run.config.competition import CompetitionConfig
from parity.run.errors import Mismatch
from parity.run.experiment import Run
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest


def submit(run: Run, *, clock: Clock | None = None) -> dict[str, Any]:
    """Ensure that Kaggle holds one submission of the followed version; return key and number.

    Raises:
        Mismatch: the downloaded submission is not the one in the ledger.
        KaggleRejected: no submissions are left today, or Kaggle refused this one.
        StaleInput: no version has been followed until complete.
        OutcomeUnknown: it may have been created; the same command checks first.
    """
    StageGraph().require(run, "submit")  # fail before the login
    with (
        kaggle_client.open_client(clock or WallClock()) as client,
        stage_context(run, "submit") as context,
    ):
        version, key = _checked(
            context.required[dag.label_of("follow", run)],
            dag.folder(run, "follow") / OUTPUT,
            run.config.competition,
            evidence.kernels(run.workspace, run.round),
        )
        competition = run.config.data.competition
        file = competition_of(run.config.competition).submission.file
        uploads = run.workspace.uploads
        result = submitting.submit(client, competition, version, key, uploads, file=file)
        refs = {
            "ref": result.ref,
            "competition": competition,
            "kernel": version.ref,
            "version": version.number,
        }
        evidence.note(run.workspace, run.round, "submit", key, refs)
        context.facts = {"key": key, **refs}
        files.write_json(context.out("submitted.json"), context.facts)
    status = "created" if result.sent else "already on Kaggle"
    print(f"submission {result.ref} ({key}): {status}")
    print(f"next: {run.command('follow')}   (collects the score)")
    return {"key": key, **refs}


def show(run: Run, *, clock: Clock | None = None) -> dict[str, list[str]]:
    """Print every call that `submit` would make; only read from Kaggle."""
    inputs = StageGraph().require(run, "submit")
    version, key = _checked(
        inputs[dag.label_of("follow", run)],
        dag.folder(run, "follow") / OUTPUT,
        run.config.competition,
        evidence.kernels(run.workspace, run.round),
    )
    with kaggle_client.open_client(clock or WallClock()) as client:
        file = competition_of(run.config.competition).submission.file
        slug = run.config.data.competition
        lines = submitting.planned_calls(client, slug, version, key, file=file)
    print("\n".join(f"would: {line}" for line in lines))
    return {"would": lines}


def submit_or_show(run: Run, *, dry_run: bool) -> dict[str, Any]:
    """Submit the kernel's version, or with `dry_run` print the calls that would do it."""
    return show(run) if dry_run else submit(run)


def _checked(
    followed: Manifest, output: Path, config: CompetitionConfig, kernels: Sequence[Evidence]
) -> tuple[KernelVersion, str]:
    """Return version and key of the followed kernel, after comparing its output with the ledger."""
    facts = followed.facts
    path = output / competition_of(config).submission.file
    if not kernels or kernels[-1].layers["submission"] != digest.of_file(path):
        raise Mismatch(
            f"{path} is not the submission that the ledger records for this kernel",
            fix=("follow",),
        )
    version = KernelVersion(facts["kernel"], facts["version"])
    return version, submitting.submission_key(facts["bundle"], version.number)
