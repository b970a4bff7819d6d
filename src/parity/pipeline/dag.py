"""Which stage needs which, and whether a stage's work is done, stale or missing.

A manifest holds the digests of what a stage read and the settings that it used. The stage is stale
when one of them is another one now, or when its files were changed. What it did not use may change.
"""

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from parity.pipeline import changes, model_reference
from parity.pipeline.model_reference import Model
from parity.pipeline.registry import find_stage, import_function, stage_names
from parity.retrieval.models import base_model
from parity.run import ledger
from parity.run import manifest as manifests
from parity.run.config.run_file import Config
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import Run
from parity.run.file_digests import FileDigests
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest

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
    subfolder = _evaluated(declared.subfolder, run) if declared.subfolder else ""
    return run.workspace.stage(stage, run.round) / subfolder


def evaluation_label(model: Model, run: Run) -> str:
    """Return the name of a model's evaluation: `epoch-4`, or `epoch-4@bnb4` under others."""
    return _evaluated(model.label, run)


def evaluation_folder(run: Run, model: Model) -> Path:
    """Return the folder of a model's evaluation under the run's settings."""
    return run.workspace.evaluation(model.round, evaluation_label(model, run))


def rounds(run: Run) -> int:
    """Return how many rounds of the run have started."""
    first, count = stage_names(has_round=True)[0], 0
    while run.workspace.stage(first, count).is_dir():
        count += 1
    return count


def applies(run: Run, stage: str) -> bool:
    """Return whether the run has this stage: without a validation set nothing is scored."""
    return run.config.split.kind != "full" or not find_stage(stage).needs_validation


def evaluation_words(run: Run, model: Model) -> tuple[str, ...]:
    """Return the command that scores a model under the run's settings, as an error's `fix`."""
    flags = [] if model.label == model_reference.BEST else ["--model", model.reference]
    if run.evaluation in run.config.evaluations:
        flags += ["--as", run.evaluation]
    return run.command_words("eval", *flags)


def needs(run: Run, stage: str) -> list[tuple[str, Run]]:
    """Return the stages whose work `stage` reads, each with its round, in order."""
    declared = find_stage(stage)
    names = declared.needs
    if run.config.split.kind == "full" and declared.needs_without_validation is not None:
        names = declared.needs_without_validation
    return [(name, _at_its_round(run, name)) for name in names if applies(run, name)]


def default_model(run: Run, stage: str) -> str:
    """Return the reference of the model that a stage loads unless the user names one."""
    kind = find_stage(stage).model
    if kind == "initial":
        text = run.config.training.init_from
        if text != "parent" and not model_reference.is_trained_later(text, run):
            return text
    if kind in ("previous", "initial"):
        return f"round-{run.round - 1}/{model_reference.BEST}" if run.round else "base"
    return kind


def config_of(run: Run, stage: str) -> dict[str, Any]:
    """Return the sections of the run file as a stage uses them, for its manifest."""
    declared = find_stage(stage)
    config: Config = run.config
    if declared.settings:
        config = import_function(declared.settings)(config)
    return manifests.sections(config, declared.config)


class StageGraph:
    """States of the stages of one run; each is checked once."""

    def __init__(self) -> None:
        """Start with nothing checked."""
        self._checked: dict[tuple[Path, str, bool], StageStatus] = {}

    def standing(self, run: Run, stage: str, *, with_split: bool = True) -> StageStatus:
        """Return whether the stage's work exists and agrees with run file and inputs.

        Args:
            run: run at its round.
            stage: name of the stage.
            with_split: False to accept the work of another split.
        """
        return self._status(run, stage, folder(run, stage), with_split=with_split)

    def evaluation(self, run: Run, model: Model) -> StageStatus:
        """Return the state of a model's evaluation under the run's settings."""
        return self._status(run, "eval", evaluation_folder(run, model), with_split=True)

    def require(self, run: Run, stage: str) -> dict[str, Manifest]:
        """Return label → manifest of what `stage` needs; each exists and is not stale.

        Raises:
            StaleInput: names the first stage to run again, the reason and the command.
        """
        manifests_needed = {}
        for name, needed in needs(run, stage):
            self.require(needed, name)  # what comes first in the pipeline is reported first
            status = self._needed(needed, name, stage)
            label = label_of(name, needed)
            if status.manifest is None:
                self.model(needed, name)  # names the training that the missing stage waits for
            if status.manifest is None or status.state != "done":
                state = f"is stale ({status.reason})" if status.reason else "is missing"
                raise StaleInput(f"{label} {state}", fix=needed.command_words(name))
            manifests_needed[label] = status.manifest
        return manifests_needed

    def model(self, run: Run, stage: str, reference: str = "") -> Model | None:
        """Return the model that a stage loads; None if it loads none.

        Args:
            run: run at its round.
            stage: name of the stage.
            reference: reference that the user names; empty for the stage's default.

        Raises:
            BadConfig: there is no such model, or the stage decides how it is trained.
            StaleInput: its training has not finished.
        """
        text = reference or default_model(run, stage)
        if not text:
            return None
        if find_stage(stage).model in ("previous", "initial"):
            model_reference.need_earlier(text, run)
        try:
            return model_reference.resolve(text, run)
        except StaleInput:
            missing = None if reference else model_reference.own_round(text, run)
            if missing is not None:
                self.require(run.at(missing), "train")  # what comes first is reported first
            raise

    def compared(self, run: Run) -> dict[str, Evidence]:
        """Return kind → newest evidence of each step from CV to score, in pipeline order.

        What Kaggle ran counts while `follow` is done, and a rehearsal in the image counts until
        another rehearsal follows: otherwise they belong to another bundle.
        """
        newest: dict[str, Evidence] = {}
        scored = shipped_evaluation(run)
        for record in ledger.read(run.workspace.ledger):
            is_of_round = record.round == run.round
            if record.kind == "cv":
                is_of_round = (record.round, record.label) == scored
            if record.run != run.config.name or not is_of_round:
                continue
            if record.kind == "rehearsal":
                newest.pop("image", None)
            newest[record.kind] = record
        if self.standing(run, "follow").state != "done":
            newest = {kind: record for kind, record in newest.items() if kind not in _KAGGLE}
        return {kind: newest[kind] for kind in _EVIDENCE if kind in newest}

    def _status(self, run: Run, stage: str, path: Path, *, with_split: bool) -> StageStatus:
        """Return the state of a stage's work in a folder; it is checked once."""
        key = (path, run.evaluation, with_split)
        if key not in self._checked:
            self._checked[key] = self._check(run, stage, path, () if with_split else ("split",))
        return self._checked[key]

    def _check(self, run: Run, stage: str, path: Path, ignored: Collection[str]) -> StageStatus:
        manifest = manifests.read(path)
        if manifest is None:
            return StageStatus("missing")
        try:
            used = changes.as_recorded(run, manifest)
        except BadConfig as error:
            return StageStatus("stale", str(error), manifest)
        reason = (
            changes.changed_config(find_stage(stage), config_of(used, stage), manifest, ignored)
            or self._changed_inputs(used, stage, manifest)
            or changes.changed_model(used, manifest, default_model(used, stage))
            or changes.changed_outputs(path, manifest, FileDigests(run.workspace.digests))
        )
        return StageStatus("stale" if reason else "done", reason, manifest)

    def _needed(self, run: Run, name: str, stage: str) -> StageStatus:
        """Return the state of a stage as another one needs it."""
        return self.standing(run, name, with_split=not find_stage(stage).has_any_split)

    def _changed_inputs(self, run: Run, stage: str, manifest: Manifest) -> str:
        """Return which input has changed since the stage ran; empty where none has."""
        if check := find_stage(stage).changed_inputs:
            reason: str = import_function(check)(self, run, manifest)
            if reason:
                return reason
        for name, needed in needs(run, stage):
            status = self._needed(needed, name, stage)
            label = label_of(name, needed)
            if status.manifest is None or status.state != "done":
                return f"{label} is {status.state}"
            for key, sha256 in _read_files(stage, name, label, status.manifest).items():
                if manifest.inputs.get(key) != sha256:
                    return f"{key} has changed since"
        return ""


def shipped_evaluation(run: Run) -> tuple[int, str]:
    """Return round and label of the evaluation in the round's bundle, or of its best adapter's."""
    packed = manifests.read(folder(run, "package"))
    if packed is not None and packed.facts.get("label"):
        return packed.facts["scored_round"], packed.facts["label"]
    return run.round, _evaluated(model_reference.BEST, run)


def inputs(
    run: Run, stage: str, required: dict[str, Manifest], model: Model | None
) -> dict[str, str]:
    """Return the digests of what a stage reads, for its manifest.

    Args:
        run: run at its round.
        stage: name of the stage.
        required: what `StageGraph.require` returned.
        model: what `StageGraph.model` returned.
    """
    read: dict[str, str] = {}
    for name, needed in needs(run, stage):
        label = label_of(name, needed)
        read |= _read_files(stage, name, label, required[label])
    if model is not None:
        encoder = run.config.encoder
        base = base_model.resolve(encoder.base, encoder.revision, run.workspace.bases)
        read |= {"model": model.digest, "base": base.digest()}
    return read


def label_of(stage: str, run: Run) -> str:
    """Return the name of a stage of a round, in manifests and messages."""
    return f"{stage} of round {run.round}" if find_stage(stage).has_round else stage


def _at_its_round(run: Run, stage: str) -> Run:
    """Return the run at its round; at the first for a stage that all rounds share."""
    return run if find_stage(stage).has_round else run.at(0)


def _evaluated(label: str, run: Run) -> str:
    return f"{label}@{run.evaluation}" if run.evaluation else label


def _read_files(stage: str, name: str, label: str, manifest: Manifest) -> dict[str, str]:
    """Return name → digest of what a stage reads of another one's work."""
    patterns = dict(find_stage(stage).reads).get(name)
    if patterns is None:
        return {label: manifest.digest()}
    return {
        f"{output} of {label}": sha256
        for output, sha256 in manifest.outputs.items()
        if any(fnmatchcase(output, pattern) for pattern in patterns)
    }
