"""9. Push the kernel to Kaggle, pinned to image and datasets; saving it starts a run."""

from typing import Any, Literal

from parity.deploy.bundle import sealed_folder
from parity.deploy.image import image_lock
from parity.deploy.kaggle_api import client as kaggle_client
from parity.deploy.kaggle_api import publish as publishing
from parity.deploy.kaggle_api import push as pushing
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import Clock, WallClock
from parity.deploy.kaggle_api.types import KaggleKernel
from parity.deploy.planning import devices
from parity.pipeline import dataset_uploads, evidence
from parity.pipeline.command_cores import plan
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.run import files
from parity.run.config.run_file import Config
from parity.run.errors import StaleInput
from parity.run.experiment import Run
from parity.run.paths import RunPaths

Form = Literal["script", "notebook"]


def push(
    run: Run, form: Form = "script", *, risk: bool = False, clock: Clock | None = None
) -> dict[str, Any]:
    """Ensure that Kaggle's current kernel is this run's; return its key, reference and version.

    Args:
        run: the run at its round.
        form: push a script, or a notebook with one cell.
        risk: push although the plan says that it cannot fit; recorded in the ledger.
        clock: clock for waiting.

    Raises:
        Mismatch: the plan says that it cannot fit, or Kaggle saved something else.
        KaggleRejected: Kaggle refused a request, or dropped a source.
        StaleInput: Kaggle does not hold a dataset that the kernel needs.
        OutcomeUnknown: the kernel may have been saved; the same command checks.
    """
    StageGraph().require(run, "push")  # fail before the login
    with (
        kaggle_client.open_client(clock or WallClock()) as client,
        stage_context(run, "push") as context,
    ):
        refused = plan.refusal(run)
        if refused and not risk:
            raise refused
        key, kernel = _kernel(run.config, run.workspace, run.round, client, form)
        result = pushing.push(
            client, kernel, run.workspace.uploads, failed(run.workspace, run.round)
        )
        refs = {
            "kernel": result.ref,
            "version": result.version,
            "image": kernel.image,
            "sources": [*kernel.datasets, *kernel.models],
            "risk": str(refused) if refused else "",
        }
        evidence.note(run.workspace, run.round, "push", key, refs)
        context.facts = {"key": key, **refs}
        files.write_json(context.out("pushed.json"), context.facts)
    status = "saved, run started" if result.sent else "already on Kaggle"
    print(f"{result.ref} version {result.version}: {status}")
    print(f"next: {run.command('follow')}")
    return {"key": key, **refs}


def show(run: Run, form: Form = "script", *, clock: Clock | None = None) -> dict[str, list[str]]:
    """Print every call that `push` would make; only read from Kaggle."""
    StageGraph().require(run, "push")
    refused = plan.refusal(run)
    with kaggle_client.open_client(clock or WallClock()) as client:
        _, kernel = _kernel(run.config, run.workspace, run.round, client, form)
        lines = pushing.planned_calls(client, kernel, failed(run.workspace, run.round))
    lines = [f"refuse: {refused}"] * bool(refused) + lines
    print("\n".join(f"would: {line}" for line in lines))
    return {"would": lines}


def push_or_show(run: Run, *, form: Form, risk: bool, dry_run: bool) -> dict[str, Any]:
    """Push the kernel, or with `dry_run` print the calls that would do it."""
    return show(run, form) if dry_run else push(run, form, risk=risk)


def failed(paths: RunPaths, round_: int) -> frozenset[int]:
    """Return the round's kernel versions that failed, or whose submission failed."""
    steps = evidence.steps(paths, round_)
    return frozenset(step.refs["version"] for step in steps if step.refs.get("failed"))


def _kernel(
    config: Config, paths: RunPaths, round_: int, client: KaggleClient, form: Form
) -> tuple[str, KaggleKernel]:
    """Return key and kernel, with every source pinned to its current version on Kaggle."""
    package = paths.stage("package", round_)
    bundle, wheelhouse = (sealed_folder.read(package / name) for name in ("bundle", "wheelhouse"))
    shipping = config.shipping
    owner = dataset_uploads.dataset_owner(shipping, client.user)
    sources = [
        _pinned(
            client,
            f"{owner}/{dataset_uploads.kaggle_slug(config.name, 'bundle')}",
            bundle.digest,
        ),
        _pinned(client, f"{owner}/{dataset_uploads.WHEELHOUSE}", wheelhouse.digest),
    ]
    if not shipping.model:
        ref = dataset_uploads.base_ref(config, paths, client.user)
        base_digest = dataset_uploads.base_digest(config, paths)
        sources.append(_pinned(client, ref, base_digest, "--base"))
    lock = image_lock.read(paths.image_lock)
    device = devices.find_device(shipping.device)
    key = pushing.kernel_key(bundle.digest, wheelhouse.digest, failed(paths, round_))
    script = paths.kernel.read_text(encoding="utf-8")
    text = pushing.add_key(script, key)
    slug = dataset_uploads.kaggle_slug(config.name, "kernel")
    return key, KaggleKernel(
        ref=f"{owner}/{slug}",
        title=slug.replace("-", " "),
        text=pushing.build_notebook(text) if form == "notebook" else text,
        kind=form,
        image=lock.reference,
        machine=device.machine_shape,
        gpu=device.gpus > 0,
        datasets=tuple(sorted(sources)),
        competitions=(config.data.competition,),
        models=(shipping.model,) if shipping.model else (),
    )


def _pinned(client: KaggleClient, ref: str, digest: str, *flags: str) -> str:
    """Return owner/slug/N of the version with this content."""
    current = client.datasets.get(ref)
    if current is None or publishing.content_digest(current) != digest:
        raise StaleInput(
            f"the current version of {ref} on Kaggle is not {digest[:12]}",
            fix=("publish", *flags),
        )
    return f"{ref}/{current.version}"
