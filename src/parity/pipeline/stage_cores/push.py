"""9. The kernel → Kaggle, pinned to image and datasets; saving it starts its run there."""

from typing import Any, Literal

from parity.deploy.bundle import sealed_folder
from parity.deploy.image import image_lock
from parity.deploy.kaggle_api import client as doors
from parity.deploy.kaggle_api import publish as publishing
from parity.deploy.kaggle_api import push as pushing
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import Clock, WallClock
from parity.deploy.kaggle_api.types import KaggleKernel
from parity.deploy.planning import devices
from parity.pipeline import dag, dataset_uploads, evidence
from parity.pipeline.command_cores import plan
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.run import files
from parity.run.errors import StaleInput
from parity.run.experiment import Run

Form = Literal["script", "notebook"]


def push(
    run: Run, form: Form = "script", *, risk: bool = False, clock: Clock | None = None
) -> dict[str, Any]:
    """Make sure Kaggle's kernel is this one; return its key, reference and version.

    Args:
        run: at its round.
        form: whether Kaggle gets it as a script or as a notebook of one cell.
        risk: push even what the plan says cannot fit; recorded.
        clock: what waiting goes by.

    Raises:
        Mismatch: the plan says it cannot fit, or Kaggle made something else of it.
        Refused: Kaggle said no, or dropped a source.
        StaleInput: Kaggle does not hold the datasets it needs; names the command.
        Unknown: it may have taken it; the same command finds out.
    """
    StageGraph().require(run, "push")  # before anybody is asked for a login
    with doors.opened(clock or WallClock()) as door, stage_context(run, "push") as work:
        refused = plan.refusal(run)
        if refused and not risk:
            raise refused
        key, kernel = _kernel(run, door, form)
        done = pushing.push(door, kernel, run.workspace.uploads, failed(run))
        refs = {
            "kernel": done.ref,
            "version": done.version,
            "image": kernel.image,
            "sources": [*kernel.datasets, *kernel.models],
            "risk": str(refused) if refused else "",
        }
        evidence.note(run, "push", key, refs)
        work.facts = {"key": key, **refs}
        files.write_json(work.out("pushed.json"), work.facts)
    told = "saved, its run has begun" if done.sent else "was there: not saved again"
    print(f"{done.ref} version {done.version}: {told}")
    print(f"next: {run.command('follow')}")
    return {"key": key, **refs}


def show(run: Run, form: Form = "script", *, clock: Clock | None = None) -> dict[str, list[str]]:
    """Print every call that `push` would make; only ask, change nothing."""
    StageGraph().require(run, "push")
    refused = plan.refusal(run)
    with doors.opened(clock or WallClock()) as door:
        lines = pushing.steps(door, _kernel(run, door, form)[1], failed(run))
    lines = [f"refuse: {refused}"] * bool(refused) + lines
    print("\n".join(f"would: {line}" for line in lines))
    return {"would": lines}


def failed(run: Run) -> frozenset[int]:
    """Return the kernel's versions that ended badly, or whose submission did, by the ledger."""
    return frozenset(
        step.refs["version"] for step in evidence.steps(run) if step.refs.get("failed")
    )


def _kernel(run: Run, door: KaggleClient, form: Form) -> tuple[str, KaggleKernel]:
    """Return key and kernel, with every source pinned to what Kaggle holds now."""
    package = dag.folder(run, "package")
    bundle, wheelhouse = (sealed_folder.read(package / name) for name in ("bundle", "wheelhouse"))
    shipping = run.config.shipping
    owner = dataset_uploads.owner(run, door.user)
    sources = [
        _pinned(
            run, door, f"{owner}/{dataset_uploads.slug(run.config.name, 'bundle')}", bundle.digest
        ),
        _pinned(run, door, f"{owner}/{dataset_uploads.WHEELHOUSE}", wheelhouse.digest),
    ]
    if not shipping.model:
        ref = dataset_uploads.base_ref(run, door.user)
        sources.append(_pinned(run, door, ref, dataset_uploads.base_digest(run), "--base"))
    lock = image_lock.read(run.workspace.image_lock)
    device = devices.device(shipping.device)
    key = pushing.key_of(bundle.digest, wheelhouse.digest, failed(run))
    script = run.workspace.kernel.read_text(encoding="utf-8")
    text = pushing.keyed(script, key)
    slug = dataset_uploads.slug(run.config.name, "kernel")
    return key, KaggleKernel(
        ref=f"{owner}/{slug}",
        title=slug.replace("-", " "),
        text=pushing.notebook(text) if form == "notebook" else text,
        kind=form,
        image=lock.reference,
        machine=device.machine_shape,
        gpu=device.gpus > 0,
        datasets=tuple(sorted(sources)),
        competitions=(run.config.data.competition,),
        models=(shipping.model,) if shipping.model else (),
    )


def _pinned(run: Run, door: KaggleClient, ref: str, digest: str, *flags: str) -> str:
    """Return owner/slug/N of the version that Kaggle holds of this content."""
    held = door.datasets.held(ref)
    if held is None or publishing.digest_of(held) != digest:
        raise StaleInput(
            f"{ref} on Kaggle does not hold {digest[:12]}; run: " + run.command("publish", *flags)
        )
    return f"{ref}/{held.version}"
