"""Which stage needs which, and whether a stage's work is done, stale or missing.

A stage is stale when its files were changed, when its inputs have changed since, or when the run
file now has other settings. A stage that needs it stops and names the command to run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from parity.pipeline.registry import find_stage, import_function, stage_names
from parity.run import digest, ledger
from parity.run import manifest as manifests
from parity.run.config.shipping import ShippingConfig
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest

# Where a run reads and computes does not decide its results: digests of data and layers do.
_FREE = {
    ("data", "source"),
    ("encoder", "device"),
    ("encoder", "token_budget"),
    ("training", "tracker"),
    *(("shipping", key) for key in ShippingConfig.model_fields if key != "wheels"),
}
_PARALLELISM = ("encoder", "parallelism")  # how the kernel runs: it decides the bundle alone
_KAGGLE = ("kernel", "public", "private")
_EVIDENCE = ("cv", "rehearsal", "image", *_KAGGLE)

State = Literal["done", "stale", "missing"]


@dataclass(frozen=True, slots=True)
class StageStatus:
    """State of one stage.

    Attributes:
        state: `done`, `stale` or `missing`.
        reason: why it is stale, in a few words; empty otherwise.
        manifest: manifest of the finished stage; None where it is missing.
    """

    state: State
    reason: str = ""
    manifest: Manifest | None = None


def folder(run: Run, stage: str) -> Path:
    """Return the folder a stage of this round writes to; for `eval` that of the best adapter."""
    declared = find_stage(stage)
    if not declared.has_round:
        return run.workspace.root / stage
    return run.workspace.stage(stage, run.round) / declared.subfolder


def rounds(run: Run) -> int:
    """Return how many rounds of the run have started."""
    first, count = stage_names(has_round=True)[0], 0
    while run.workspace.stage(first, count).is_dir():
        count += 1
    return count


def applies(run: Run, stage: str) -> bool:
    """Return whether the run has this stage: without a validation set nothing is scored."""
    return run.config.split.kind != "full" or not find_stage(stage).needs_validation


def needs(run: Run, stage: str) -> list[tuple[str, Run]]:
    """Return the stages whose work `stage` reads, each with its round, in order."""
    declared = find_stage(stage)
    names = declared.needs
    if run.config.split.kind == "full" and declared.needs_without_validation is not None:
        names = declared.needs_without_validation
    needed = [(name, _at_its_round(run, name)) for name in names if applies(run, name)]
    previous = declared.needs_previous if run.round else ()
    return [*needed, *((name, run.at(run.round - 1)) for name in previous)]


def config_of(run: Run, stage: str) -> dict[str, Any]:
    """Return the sections of the run file that a stage depends on, for its manifest."""
    return manifests.sections(run.config, find_stage(stage).config)


class StageGraph:
    """States of the stages of one run; each is checked once."""

    def __init__(self) -> None:
        """Start with nothing checked."""
        self._checked: dict[tuple[str, int], StageStatus] = {}

    def standing(self, run: Run, stage: str) -> StageStatus:
        """Return whether the stage's work exists and agrees with run file and inputs."""
        key = (stage, run.round)
        if key not in self._checked:
            self._checked[key] = self._check(run, stage)
        return self._checked[key]

    def require(self, run: Run, stage: str) -> dict[str, Manifest]:
        """Return label → manifest of what `stage` needs; each exists and is not stale.

        Raises:
            StaleInput: names the first stage to run again, the reason and the command.
        """
        manifests_needed = {}
        for name, needed in needs(run, stage):
            self.require(needed, name)  # what comes first in the pipeline is reported first
            status = self.standing(needed, name)
            label = label_of(name, needed)
            if status.manifest is None or status.state != "done":
                state = f"is stale ({status.reason})" if status.reason else "is missing"
                raise StaleInput(f"{label} {state}", fix=needed.command_words(name))
            manifests_needed[label] = status.manifest
        return manifests_needed

    def compared(self, run: Run) -> dict[str, Evidence]:
        """Return kind → newest evidence of each step from CV to score, in pipeline order.

        What Kaggle ran counts while `follow` is done, and a rehearsal in the image counts until
        another rehearsal follows: otherwise they belong to another bundle.
        """
        newest: dict[str, Evidence] = {}
        for record in ledger.read(run.workspace.ledger):
            if (record.run, record.round) != (run.config.name, run.round):
                continue
            if record.kind == "rehearsal":
                newest.pop("image", None)
            if record.kind != "cv" or record.label == "best":
                newest[record.kind] = record
        if self.standing(run, "follow").state != "done":
            newest = {kind: record for kind, record in newest.items() if kind not in _KAGGLE}
        return {kind: newest[kind] for kind in _EVIDENCE if kind in newest}

    def _check(self, run: Run, stage: str) -> StageStatus:
        path = folder(run, stage)
        manifest = manifests.read(path)
        if manifest is None:
            return StageStatus("missing")
        reason = (
            _changed_config(run, stage, manifest)
            or self._changed_inputs(run, stage, manifest)
            or _changed_outputs(path, manifest)
        )
        return StageStatus("stale" if reason else "done", reason, manifest)

    def _changed_inputs(self, run: Run, stage: str, manifest: Manifest) -> str:
        """Return which input has changed since the stage ran; empty where none has."""
        if check := find_stage(stage).changed_inputs:
            reason: str = import_function(check)(self, run, manifest)
            if reason:
                return reason
        for name, needed in needs(run, stage):
            status = self.standing(needed, name)
            label = label_of(name, needed)
            if status.manifest is None or status.state != "done":
                return f"{label} is {status.state}"
            if manifest.inputs.get(label) != status.manifest.digest():
                return f"{label} has changed since"
        return ""


def changed_raw_files(_: StageGraph, run: Run, manifest: Manifest) -> str:
    """Return which of the competition's files has changed since a stage read it."""
    for name, sha256 in sorted(manifest.inputs.items()):
        path = run.source / name
        if not path.is_file() or digest.of_file(path) != sha256:
            return f"{name} has changed since"
    return ""


def changed_locks(_: StageGraph, run: Run, manifest: Manifest) -> str:
    """Return which lock of image or wheels has changed since a stage read it."""
    current = locks(run)
    changed = sorted(name for name in current if manifest.inputs.get(name) != current[name])
    return f"{changed[0]} has changed since" if changed else ""


def changed_evidence(graph: StageGraph, run: Run, manifest: Manifest) -> str:
    """Return the kind of the newest evidence that a comparison has not read."""
    current = ids(graph.compared(run))
    changed = [kind for kind in current if manifest.inputs.get(kind) != current[kind]]
    return f"there is newer evidence of {changed[-1]}" if changed else ""


def inputs(required: dict[str, Manifest]) -> dict[str, str]:
    """Return the digests of what `require` returned, for the manifest of what reads it."""
    return {name: manifest.digest() for name, manifest in required.items()}


def ids(records: Mapping[str, Evidence]) -> dict[str, str]:
    """Return the ids of what `StageGraph.compared` returned, for the comparison's manifest."""
    return {kind: ledger.id_of(record) for kind, record in records.items()}


def locks(run: Run) -> dict[str, str]:
    """Return name → sha256 of the locks of image and wheels that exist."""
    try:
        paths = (run.workspace.image_lock, run.workspace.wheels_lock)
    except BadConfig:  # they did not travel with the package
        return {}
    return {path.name: digest.of_file(path) for path in paths if path.is_file()}


def label_of(stage: str, run: Run) -> str:
    """Return the name of a stage of a round, in manifests and messages."""
    return f"{stage} of round {run.round}" if find_stage(stage).has_round else stage


def _at_its_round(run: Run, stage: str) -> Run:
    """Return the run at its round; at the first for a stage that all rounds share."""
    return run if find_stage(stage).has_round else run.at(0)


def _changed_config(run: Run, stage: str, manifest: Manifest) -> str:
    declared, current = find_stage(stage), config_of(run, stage)
    for section in declared.config:
        before = manifest.config.get(section, {})
        for key, value in current[section].items():
            # Only a bundle records how the kernel is to run.
            has_parallelism = "shipping" in declared.config
            is_free = (section, key) in _FREE or (
                (section, key) == _PARALLELISM and not has_parallelism
            )
            if not is_free and before.get(key) != value:
                return f"{section}.{key} was {before.get(key)!r}, the run file now has {value!r}"
    return ""


def _changed_outputs(path: Path, manifest: Manifest) -> str:
    for name, sha256 in sorted(manifest.outputs.items()):
        output = path / name
        if not output.is_file() or digest.of_file(output) != sha256:
            return f"{name} is missing or was changed"
    return ""
