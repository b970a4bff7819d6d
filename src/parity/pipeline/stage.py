"""Run a stage: check its inputs first, let it work, and write its manifest last."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.pipeline import dag
from parity.run import manifest as manifests
from parity.run.experiment import Run
from parity.run.manifest import Manifest


@dataclass(slots=True)
class StageContext:
    """A stage that is running.

    Attributes:
        folder: folder that it writes to.
        required: label → manifest of the stages that it reads.
        outputs: names of the files that it wrote, relative to `folder`.
        facts: numbers for its manifest.
    """

    folder: Path
    required: dict[str, Manifest]
    outputs: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def out(self, name: str) -> Path:
        """Return the path of an output and note it for the manifest."""
        self.outputs.append(name)
        return self.folder / name


@contextmanager
def stage_context(
    run: Run,
    stage: str,
    *,
    folder: Path | None = None,
    inputs: dict[str, str] | None = None,
    main: bool = True,
) -> Iterator[StageContext]:
    """Yield the context of a stage; write its manifest when the block ends without an error.

    Args:
        run: run at its round.
        stage: name of the stage.
        folder: folder to write to, if not the stage's usual one.
        inputs: name → digest of inputs that no stage made.
        main: whether this process writes; of several, one does.

    Raises:
        StaleInput: an input is missing or stale.
    """
    started = time.monotonic()
    required = dag.StageGraph().require(run, stage)
    target = folder or dag.folder(run, stage)
    if main:
        target.mkdir(parents=True, exist_ok=True)
        manifests.forget(target)  # until the new one is written, nothing here can be trusted
    context = StageContext(target, required)
    yield context
    if main:
        manifest = Manifest(
            stage=stage,
            config=dag.config_of(run, stage),
            inputs={**dag.inputs(required), **(inputs or {})},
            outputs={},
            facts=context.facts,
            seconds=time.monotonic() - started,
        )
        manifests.write(target, manifest, context.outputs)
