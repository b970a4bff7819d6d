"""What all stages do: check inputs first, work, and write the manifest last."""

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
    """A stage under way.

    Attributes:
        folder: where it writes.
        found: the manifests of what it reads, by noun.
        outputs: names of the files it wrote, relative to `folder`.
        facts: numbers worth keeping in its manifest.
    """

    folder: Path
    found: dict[str, Manifest]
    outputs: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def out(self, name: str) -> Path:
        """Return the path of an output, noted for the manifest."""
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
    """Yield the work of one stage; its manifest is written when the block ends without an error.

    Args:
        run: the run at its round.
        stage: its name.
        folder: where it writes, if not where the stage usually does.
        inputs: digests of what it reads that no stage has made.
        main: whether this process writes (of several, one does).

    Raises:
        StaleInput: what it reads is missing or stale.
    """
    started = time.monotonic()
    found = dag.StageGraph().require(run, stage)
    place = folder or dag.folder(run, stage)
    if main:
        place.mkdir(parents=True, exist_ok=True)
        manifests.forget(place)  # until the new one is there, nothing here is to be trusted
    work = StageContext(place, found)
    yield work
    if main:
        done = Manifest(
            stage=stage,
            config=dag.config_of(run, stage),
            inputs={**dag.inputs(found), **(inputs or {})},
            outputs={},
            facts=work.facts,
            seconds=time.monotonic() - started,
        )
        manifests.write(place, done, work.outputs)
