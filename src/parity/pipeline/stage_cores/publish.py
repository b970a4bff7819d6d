"""8. Publish bundle and wheelhouse as private Kaggle datasets, each only if its content is new."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from parity.deploy.bundle import scan
from parity.deploy.kaggle_api import client as kaggle_client
from parity.deploy.kaggle_api import publish as publishing
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.clock import Clock, WallClock
from parity.deploy.kaggle_api.publish import DatasetUpload
from parity.pipeline import dag, dataset, dataset_uploads, evidence
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage import stage_context
from parity.run import files
from parity.run.config.data import DataConfig
from parity.run.config.run_file import Config
from parity.run.experiment import Run
from parity.run.paths import RunPaths

Content = Literal["bundle", "base"]


def publish(run: Run, content: Content = "bundle", *, clock: Clock | None = None) -> dict[str, str]:
    """Ensure that Kaggle holds the run's datasets; return kind → owner/slug/N.

    Args:
        run: the run at its round.
        content: `bundle` (with its wheelhouse), or `base`, which is large and rarely changes.
        clock: clock for waiting.

    Raises:
        BadConfig: no license, or no login.
        Mismatch: the files on Kaggle are not those that were sent.
        KaggleRejected: Kaggle refused a request.
        OutcomeUnknown: a request may have succeeded; the same command continues.
    """
    config, paths = run.config, run.workspace
    if content == "base":
        with kaggle_client.open_client(clock or WallClock()) as client:
            uploads = _uploads(config, paths, run.round, content, client.user)
            return _publish_uploads(paths, run.round, client, uploads)
    StageGraph().require(run, "publish")  # fail before the login
    with (
        kaggle_client.open_client(clock or WallClock()) as client,
        stage_context(run, "publish") as context,
    ):
        _scan(dag.folder(run, "package"), dataset.load(config, paths), config.data)
        uploads = _uploads(config, paths, run.round, content, client.user)
        published = _publish_uploads(paths, run.round, client, uploads)
        context.facts = published
        files.write_json(context.out("published.json"), published)
    return published


def show(
    run: Run, content: Content = "bundle", *, clock: Clock | None = None
) -> dict[str, list[str]]:
    """Print every call that `publish` would make; only read from Kaggle."""
    config, paths, lines = run.config, run.workspace, list[str]()
    if content == "bundle":
        StageGraph().require(run, "publish")
        _scan(dag.folder(run, "package"), dataset.load(config, paths), config.data)
    with kaggle_client.open_client(clock or WallClock()) as client:
        for _, upload in _uploads(config, paths, run.round, content, client.user):
            lines += publishing.planned_calls(client, upload)
    print("\n".join(f"would: {line}" for line in lines))
    return {"would": lines}


def publish_or_show(run: Run, *, content: Content, dry_run: bool) -> Mapping[str, str | list[str]]:
    """Publish the datasets, or with `dry_run` print the calls that would do it."""
    return show(run, content) if dry_run else publish(run, content)


def _uploads(
    config: Config, paths: RunPaths, round_: int, content: Content, user: str
) -> Iterator[tuple[str, DatasetUpload]]:
    """Yield kind and upload of each dataset; the next is read after the one before is sent."""
    if content == "base":
        yield "base", dataset_uploads.base_upload(config, paths, user)
        return
    package = paths.stage("package", round_)
    yield "wheelhouse", dataset_uploads.wheelhouse_upload(config.shipping, package, user)
    yield "bundle", dataset_uploads.bundle_upload(config, package, user)


def _publish_uploads(
    paths: RunPaths,
    round_: int,
    client: KaggleClient,
    uploads: Iterator[tuple[str, DatasetUpload]],
) -> dict[str, str]:
    return {kind: _publish_upload(paths, round_, client, upload) for kind, upload in uploads}


def _publish_upload(
    paths: RunPaths, round_: int, client: KaggleClient, upload: DatasetUpload
) -> str:
    """Publish one upload, record it in the ledger, and print the result."""
    result = publishing.publish(client, upload, paths.uploads)
    refs = {"dataset": result.ref, "version": result.version}
    evidence.note(paths, round_, "publish", upload.digest, refs)
    size = sum(upload.sizes.values()) / 1e6
    status = (
        f"sent, {len(upload.sizes)} files, {size:.1f} MB" if result.sent else "already on Kaggle"
    )
    print(f"{result.ref} version {result.version}, {upload.digest[:12]}: {status}")
    return result.pinned


def _scan(folder: Path, data: Dataset, config: DataConfig) -> None:
    """Scan again for secrets and competition text, right before the upload."""
    texts = [] if config.license else dataset.texts(data)
    scan.scan(folder / "bundle", texts)
    scan.scan(folder / "wheelhouse", texts)
