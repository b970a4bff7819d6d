"""What has changed since a stage ran: settings, files, models, locks and evidence.

Each function returns a reason in a few words, or an empty text.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.pipeline import model_reference
from parity.pipeline.declaration import Stage
from parity.pipeline.registry import find_stage
from parity.retrieval.models import base_model
from parity.run import digest, ledger
from parity.run.config.stage_settings import NEUTRAL, PARALLELISM
from parity.run.errors import BadConfig, ParityError
from parity.run.experiment import Run
from parity.run.file_digests import FileDigests
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest

if TYPE_CHECKING:  # the graph calls these functions
    from parity.pipeline.dag import StageGraph


def changed_raw_files(_: "StageGraph", run: Run, manifest: Manifest) -> str:
    """Return which of the competition's files has changed since a stage read it."""
    for name, sha256 in sorted(manifest.inputs.items()):
        path = run.source / name
        if not path.is_file() or digest.of_file(path) != sha256:
            return f"{name} has changed since"
    return ""


def changed_locks(_: "StageGraph", run: Run, manifest: Manifest) -> str:
    """Return which lock of image or wheels has changed since a stage read it."""
    current = locks(run)
    changed = sorted(name for name in current if manifest.inputs.get(name) != current[name])
    return f"{changed[0]} has changed since" if changed else ""


def changed_evidence(graph: "StageGraph", run: Run, manifest: Manifest) -> str:
    """Return the kind of the newest evidence that a comparison has not read."""
    current = ids(graph.compared(run))
    changed = [kind for kind in current if manifest.inputs.get(kind) != current[kind]]
    return f"there is newer evidence of {changed[-1]}" if changed else ""


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


def as_recorded(run: Run, manifest: Manifest) -> Run:
    """Return the run with the settings of the evaluation that a manifest names."""
    name = manifest.facts.get("evaluation", "")
    if run.evaluation or name not in run.config.evaluations:
        return run
    return run.with_own_settings().evaluated_as(name)


def changed_model(run: Run, manifest: Manifest, default: str) -> str:
    """Return how the model that a stage loaded has changed since; empty where it has not.

    Args:
        run: run at its round, with the settings that the stage used.
        manifest: manifest of the finished stage.
        default: reference of the model that the stage loads unless the user names one.
    """
    if "model" not in manifest.inputs or "model" not in manifest.facts:
        return ""
    before, encoder = manifest.facts["model"], run.config.encoder
    # No option of `train` names a model: the run file does, and it may name another one now.
    reference = default if find_stage(manifest.stage).model == "initial" else before
    try:
        model = model_reference.resolve(reference, run)
        base = base_model.find(encoder.base, encoder.revision, run.workspace.bases)
    except ParityError as error:
        return str(error)
    if model.digest != manifest.inputs["model"]:
        if reference != before:
            return f"it started from {before}, the run file now has {reference}"
        return f"model {reference} has changed since"
    if base is not None and base.digest() != manifest.inputs["base"]:
        return "the base model has changed since"
    return ""


def changed_config(
    declared: Stage, current: Mapping[str, Any], manifest: Manifest, ignored: Collection[str]
) -> str:
    """Return which setting that a stage used has changed since; empty where none has.

    Args:
        declared: the stage.
        current: sections of the run file as the stage would use them now.
        manifest: manifest of the finished stage.
        ignored: sections that may differ.
    """
    unused = NEUTRAL | frozenset(declared.unused)
    if "shipping" not in declared.config:  # only a bundle records how the kernel is to run
        unused |= {PARALLELISM}
    for section in declared.config:
        before = manifest.config.get(section, {})
        for key, value in current[section].items():
            is_used = section not in ignored and f"{section}.{key}" not in unused
            if is_used and before.get(key) != value:
                return f"{section}.{key} was {before.get(key)!r}, the run file now has {value!r}"
    return ""


def changed_outputs(path: Path, manifest: Manifest, digests: FileDigests) -> str:
    """Return which output of a stage is missing or was changed; empty where none is.

    Args:
        path: folder of the stage.
        manifest: its manifest.
        digests: memory of digests.
    """
    for name, sha256 in sorted(manifest.outputs.items()):
        output = path / name
        if not output.is_file() or digests.of_file(output) != sha256:
            return f"{name} is missing or was changed"
    return ""
