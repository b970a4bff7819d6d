"""`rehearse --image`: the kernel's script in the built image, compared with the rehearsal here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.competition.eedi import submission
from parity.deploy.image import engines, image_lock
from parity.deploy.image.run_in_image import ContainerJob, Mount, entered
from parity.deploy.kernel import image_comparison, mounts, rehearsal, run_report
from parity.deploy.kernel.image_comparison import RunOutputs
from parity.deploy.kernel.sandbox import SCRIPT, Sandbox
from parity.pipeline import dag, dataset, evidence
from parity.pipeline.command_cores import run_in_image
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage_cores import rehearse
from parity.run import environment
from parity.run.errors import StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Kind

_KAGGLE = Path("/kaggle")
_EXACT = "float32/none"  # the precision in which embeddings must be near


def rehearse_image(run: Run) -> None:
    """Run `kaggle/kernel.py` in the image that was built and compare all it made.

    Another Python and another torch compute there: token ids must be equal and in fp32 embeddings
    near; how far rankings part is told. It is evidence `image` where the image is the locked one.

    Raises:
        Mismatch: the kernel failed, or texts, token ids or embeddings part.
        StaleInput: nothing was rehearsed here to compare with, or no image was built.
    """
    if StageGraph().standing(run, "rehearse").state != "done":
        raise StaleInput(f"nothing to compare with; run: {run.command('rehearse')}")
    record = run_in_image.current(run)
    place = dag.folder(run, "rehearse")
    root = (place / "image").resolve()
    attached = rehearse.attached(run, Path(run.config.data.source))
    rehearsal.lay_out(root, attached, mounts.owner)
    with _within(run, record, root) as isolation:
        ran = rehearsal.run(root, isolation, run.config.shipping.hours)
    print(f"{ran.output.strip()} ({ran.isolation}, {ran.seconds:.0f} s)")
    here, there = _side(place / "kaggle" / "working"), _side(root / "working")
    measured, _ = run_report.read(root / "working")
    evidence.append(run, replace(measured, kind=_kind(run, record)), root / "working")
    print(rehearse.layers_told(here.layers, there.layers, "image"))
    found = image_comparison.compare(here, there, dataset.load(run).qrels)
    print(found)
    image_comparison.compare_outputs(
        found, "fp32" if there.layers["precision"] == _EXACT else "half"
    )


def _side(working: Path) -> RunOutputs:
    measured, _ = run_report.read(working)
    return image_comparison.read(working, measured.layers, working / submission.NAME)


def _kind(run: Run, record: dict[str, Any]) -> Kind:
    locked = image_lock.read(run.workspace.image_lock).reference
    return "image" if record["layers"]["base"] == locked else "rehearsal"


@contextmanager
def _within(run: Run, record: dict[str, Any], root: Path) -> Iterator[Sandbox]:
    """Yield how the script is run in the image: /kaggle is where Kaggle has it, and no network."""
    engine = engines.named(record["engine"])
    threads = os.environ.get("OMP_NUM_THREADS", "")
    job = ContainerJob(
        command=["python", SCRIPT],
        places=[
            Mount(root / "input", _KAGGLE / "input"),
            Mount(root / "working", _KAGGLE / "working", writable=True),
            Mount(run.workspace.kernel, Path(SCRIPT)),
        ],
        cwd=_KAGGLE / "working",
        env={"OMP_NUM_THREADS": threads} if threads else {},
        gpu=bool(environment.gpu()),
    )
    with entered(engine, record["id"], job) as words:
        yield Sandbox(f"inside {record['tag']} with {engine}", words, dict(os.environ))
