"""Run a stage: check its inputs first, let it work, and write its manifest last."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.pipeline import dag
from parity.pipeline.model_reference import Model
from parity.run import manifest as manifests
from parity.run.experiment import Run
from parity.run.manifest import Manifest
from parity.run.progress import log, wrap


@dataclass(slots=True)
class StageContext:
    """A stage that is running.

    Attributes:
        folder: folder that it writes to.
        required: label → manifest of the stages that it reads.
        model: model that it loads; None if it loads none.
        inputs: name → digest of what it reads.
        outputs: names of the files that it wrote, relative to `folder`.
        facts: numbers for its manifest.
    """

    folder: Path
    required: dict[str, Manifest]
    model: Model | None
    inputs: dict[str, str]
    outputs: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def out(self, name: str) -> Path:
        """Return the path of an output and note it for the manifest."""
        self.begin()
        self.outputs.append(name)
        return self.folder / name

    def begin(self) -> None:
        """Make the folder, and forget an earlier manifest: it describes files that change now."""
        if not self.outputs:
            self.folder.mkdir(parents=True, exist_ok=True)
            manifests.forget(self.folder)


def _stale_training(graph: dag.StageGraph, run: Run, model: Model) -> str:
    """Return a note if the run file now describes another training than the model's."""
    if not model.trained:
        return ""
    # Settings to score under may be those of an evaluation; training used the run file's.
    runs = (run.at(model.round), run.with_own_settings().at(model.round))
    states = [graph.standing(each, "train") for each in runs]
    if any(state.state == "done" for state in states):
        return ""
    return (
        f"note: {model.trained} is stale ({states[-1].reason}); this uses {model.label} as it was "
        "trained"
    )


@contextmanager
def stage_context(
    run: Run,
    stage: str,
    *,
    model: str | None = "",
    folder: Path | None = None,
    inputs: dict[str, str] | None = None,
    main: bool = True,
) -> Iterator[StageContext]:
    """Yield the context of a stage; write its manifest when the block ends without an error.

    An earlier result of the stage stays valid until the block writes its first output, so a stage
    that is refused destroys nothing.

    Args:
        run: run at its round.
        stage: name of the stage.
        model: reference of the model to load; empty for the stage's default, None for no model.
        folder: folder to write to, if not the stage's usual one.
        inputs: name → digest of inputs that no stage made.
        main: whether this process writes; of several, one does.

    Raises:
        BadConfig: there is no such model.
        StaleInput: an input is missing or stale.
    """
    started = time.monotonic()
    graph = dag.StageGraph()
    required = graph.require(run, stage)
    loaded = None if model is None else graph.model(run, stage, model)
    if main and loaded is not None and (note := _stale_training(graph, run, loaded)):
        log(wrap(note))  # a bar may be on the screen
    read = {**dag.inputs(run, stage, required, loaded), **(inputs or {})}
    context = StageContext(folder or dag.folder(run, stage), required, loaded, read)
    yield context
    if main:
        context.begin()  # a stage may write nothing
        chosen = {"model": loaded.reference, "evaluation": run.evaluation} if loaded else {}
        manifest = Manifest(
            stage=stage,
            config=dag.config_of(run, stage),
            inputs=read,
            outputs={},
            facts={**context.facts, **chosen},
            seconds=time.monotonic() - started,
        )
        manifests.write(context.folder, manifest, context.outputs)
