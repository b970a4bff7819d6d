"""A twin of a small run with a given epoch as its best adapter, to compare `--model` with."""

import shutil
from dataclasses import replace
from typing import Any

from pipeline.run_fixture import Files, RunFixture, contents

from parity.pipeline import dag
from parity.run import manifest as manifests
from parity.run.experiment import Run


def twin(fixture: RunFixture, epoch: int = 1, /, **sections: dict[str, Any]) -> Run:
    """Return a copy of the run `small`, `twin.toml`, with an epoch as its best adapter.

    Args:
        fixture: small run that was trained.
        epoch: number of the epoch; 0 keeps the one that `small` has chosen.
        sections: changed settings of the copy.
    """
    fixture.write_config("twin", **sections)
    run = fixture.open(name="twin")
    shutil.copytree(fixture.open().workspace.root, run.workspace.root)
    folder = dag.folder(run, "train")
    manifest = manifests.read(folder)
    assert manifest is not None
    epoch = epoch or manifest.facts["best_epoch"]
    shutil.rmtree(run.workspace.adapter(0))
    shutil.copytree(run.workspace.epoch(0, epoch), run.workspace.adapter(0))
    facts = {**manifest.facts, "best_epoch": epoch}
    manifests.write(folder, replace(manifest, facts=facts), list(manifest.outputs))
    return run


def outputs(run: Run, stage: str) -> Files:
    """Return name → bytes of what a stage wrote, without its manifest."""
    written = contents(dag.folder(run, stage))
    del written["manifest.json"]
    return written
