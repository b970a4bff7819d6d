"""`rehearse --image`: run the kernel's script in the built image and compare the outputs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.deploy.image import engines, image_lock
from parity.deploy.image.run_in_image import ContainerJob, Mount, open_container
from parity.deploy.kernel import image_comparison, mounts, rehearsal, run_report
from parity.deploy.kernel.image_comparison import RunOutputs
from parity.deploy.kernel.sandbox import SCRIPT, Sandbox
from parity.pipeline import dag, dataset, evidence
from parity.pipeline.command_cores import run_in_image
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage_cores import rehearse
from parity.run import environment
from parity.run.errors import StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Kind

_KAGGLE = Path("/kaggle")
_EXACT = "float32/none"  # precision that requires embeddings to be close


def rehearse_image(run: Run) -> None:
    """Run `kaggle/kernel.py` in the built image and compare its outputs with the rehearsal.

    The image has another Python and another torch. Token ids must be equal, and embeddings must be
    close in fp32; differences of the rankings are only printed. The evidence is of kind `image` if
    the image is the locked one.

    Raises:
        Mismatch: the kernel failed, or texts, token ids or embeddings differ.
        StaleInput: the rehearsal or the image is missing.
    """
    if StageGraph().standing(run, "rehearse").state != "done":
        raise StaleInput(
            f"rehearse of {run.config.name} is missing or stale", fix=run.command_words("rehearse")
        )
    record = run_in_image.read_current_image(run.workspace)
    folder = dag.folder(run, "rehearse")
    root = (folder / "image").resolve()
    attached = rehearse.attached(run.config, run.workspace, run.round, run.source)
    rehearsal.lay_out(root, attached, mounts.owner)
    with _image_sandbox(run.workspace.kernel, record, root) as isolation:
        result = rehearsal.run(root, isolation, run.config.shipping.hours)
    print(f"{result.output.strip()} ({result.isolation}, {result.seconds:.0f} s)")
    data = dataset.load(run.config, run.workspace)
    local = _read_outputs(data, folder / "kaggle" / "working")
    in_image = _read_outputs(data, root / "working")
    report, _ = run_report.read(root / "working")
    measured = replace(report, kind=_kind(run.workspace.image_lock, record))
    evidence.append(run.workspace, run.config, measured, root / "working")
    print(rehearse.describe_layers(local.layers, in_image.layers, "image"))
    comparison = image_comparison.compare(local, in_image, data.metric, data.qrels)
    print(comparison)
    image_comparison.compare_outputs(
        comparison, "fp32" if in_image.layers["precision"] == _EXACT else "half"
    )


def rehearse_here_or_in_image(run: Run, *, image: bool, where: str) -> None:
    """Rehearse on this machine, or with `--image` or `--where image` in the built image."""
    if image or where == "image":
        rehearse_image(run)
    else:
        rehearse.rehearse(run)


def _read_outputs(data: Dataset, working: Path) -> RunOutputs:
    report, _ = run_report.read(working)
    path = working / data.competition.submission.file
    submitted = data.competition.read_submission(path, data.test, data.corpus)
    return image_comparison.read(working, report.layers, submitted)


def _kind(path: Path, record: dict[str, Any]) -> Kind:
    """Return the kind of evidence: `image` only from the image that the lock at `path` names."""
    locked = image_lock.read(path).reference
    return "image" if record["layers"]["base"] == locked else "rehearsal"


@contextmanager
def _image_sandbox(kernel: Path, record: dict[str, Any], root: Path) -> Iterator[Sandbox]:
    """Yield a sandbox that runs the script in the image, with Kaggle's paths and no network."""
    engine = engines.by_name(record["engine"])
    threads = os.environ.get("OMP_NUM_THREADS", "")
    job = ContainerJob(
        command=["python", SCRIPT],
        mounts=[
            Mount(root / "input", _KAGGLE / "input"),
            Mount(root / "working", _KAGGLE / "working", writable=True),
            Mount(kernel, Path(SCRIPT)),
        ],
        cwd=_KAGGLE / "working",
        env={"OMP_NUM_THREADS": threads} if threads else {},
        gpu=bool(environment.gpu()),
    )
    with open_container(engine, record["id"], job) as words:
        yield Sandbox(f"inside {record['tag']} with {engine}", words, dict(os.environ))
