"""6. Adapter → bundle and wheelhouse, the flat folders that go to Kaggle, scanned and sealed."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parity.analysis.report.tables import scores_table
from parity.competition import few_shot
from parity.competition.lineage import Lineage
from parity.competition.scoring.metrics import Scores
from parity.deploy.bundle import bundle, model_card, scan, sealed_folder
from parity.deploy.image import freeze, image_lock
from parity.deploy.kernel import run_report
from parity.deploy.wheelhouse import build, wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Wheel
from parity.pipeline import dag, dataset, encoder_loading, epochs, evidence
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage import StageContext, stage_context
from parity.pipeline.stage_cores import evaluate
from parity.retrieval.models import adapter as adapters
from parity.retrieval.models import base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run import digest, environment, files
from parity.run.config import run_file as configs
from parity.run.config.run_file import Config
from parity.run.config.shipping import ShippingConfig
from parity.run.errors import StaleInput
from parity.run.experiment import Run
from parity.run.paths import RunPaths


def package(run: Run) -> None:
    """Write the kernel's bundle and wheelhouse, scan them for secrets and texts, and seal them.

    Raises:
        BadData: a file holds a secret, a local path, a pickle or unlicensed text.
        StaleInput: a wheel of the run is missing.
    """
    with stage_context(run, "package", inputs=dag.locks(run)) as work:
        data = dataset.load(run.config, run.workspace)
        texts = [] if run.config.data.license else dataset.texts(data)
        house = _wheelhouse(run.workspace, run.config.shipping, work.folder / "wheelhouse")
        bundle_digest = _bundle(run, work, data, texts, house)
        work.outputs = [
            f"{name}/{path.name}"
            for name in ("bundle", "wheelhouse")
            for path in sorted((work.folder / name).iterdir())
        ]
        work.facts = {"digest": bundle_digest, "wheelhouse": house}


def _wheelhouse(paths: RunPaths, config: ShippingConfig, target: Path) -> str:
    """Write the wheelhouse of the project's wheel and the run's wheels; return its digest."""
    chosen = _chosen(paths, config)
    with files.replacing(target) as temporary:
        project_wheel = build.build_project_wheel(temporary)
        for wheel in chosen:
            files.link(paths.wheelhouse / wheel.file, temporary / wheel.file)
        scan.scan(temporary)
        version = project_wheel.name.split("-")[1]
        install = sorted([f"kaggle-parity=={version}", *(wheel.pin for wheel in chosen)])
        wheelhouse_digest = sealed_folder.seal(
            temporary, "wheelhouse", {"install": install, "code": environment.code()}
        )
    names = ", ".join([project_wheel.name.split("-")[0], *(wheel.name for wheel in chosen)])
    print(f"wheelhouse {wheelhouse_digest[:12]}: {names}")
    return wheelhouse_digest


def _chosen(paths: RunPaths, config: ShippingConfig) -> tuple[Wheel, ...]:
    """Return the run's wheels after checking that they are downloaded."""
    lock = wheel_lock.read(paths.wheels_lock)
    frozen = freeze.fingerprint(freeze.parse_freeze(image_lock.read_freeze(paths.image_lock)))
    chosen = wheel_lock.select(lock, config.wheels, freeze=frozen)
    if gone := wheel_lock.missing_wheels(chosen, paths.wheelhouse):
        raise StaleInput(f"offline_wheels/{gone[0].file} is missing", fix=("wheels",))
    return chosen


def _bundle(run: Run, work: StageContext, data: Dataset, texts: Iterable[str], house: str) -> str:
    target, paths = work.folder / "bundle", run.workspace
    adapter = paths.adapter(run.round)
    best_epoch = work.required[dag.label_of("train", run)].facts["best_epoch"]
    config = configs.build(epochs.frozen(run.config), str(run.file))
    scores = evaluate.read(paths.evaluation(run.round, evaluate.BEST))
    with files.replacing(target) as temporary:
        shutil.copytree(adapter, temporary)
        _write_ids(temporary, data, paths.texts(run.round, evaluate.BEST))
        base = encoder_loading.load_base(run.config.encoder, paths)
        base_model.write_record(base, temporary)
        files.write_text(temporary / "README.md", _card(config, run.round, adapter, base, scores))
        scan.scan(temporary, texts)
        bundle_digest = bundle.seal(
            temporary,
            run=run.config.name,
            round_=run.round,
            layers=_layers(paths, run.round, best_epoch, data),
            **_facts(paths, run.config.encoder.parallelism, scores, house),
        )
    size = sum(path.stat().st_size for path in target.iterdir())
    count = len(list(target.iterdir()))
    print(f"bundle {bundle_digest[:12]}, {count} files, {size / 1e6:.1f} MB: {target}")
    return bundle_digest


def _write_ids(folder: Path, data: Dataset, texts: Path) -> None:
    """Write few-shot examples and probe as ids, with the digest of each row's text.

    Digests of the probe are those of the rendered texts that an evaluation stored, if any.
    """
    files.write_jsonl(
        folder / "examples.jsonl",
        (
            {
                "query_id": item.query.query_id,
                "passage_id": data.corpus.ids[item.position],
                "sha256": few_shot.text_digest(item),
            }
            for item in data.pool
        ),
    )
    rows = files.read_jsonl(texts) if texts.is_file() else []
    shown = {row["query_id"]: {"sha256": digest.of_text(row["text"])} for row in rows}
    files.write_jsonl(
        folder / "probe.jsonl",
        ({"query_id": item.query_id, **shown.get(item.query_id, {})} for item in data.probe),
    )


def _facts(
    paths: RunPaths, parallelism: str, scores: Mapping[str, Scores], house: str
) -> dict[str, Any]:
    """Return the facts of the bundle's manifest."""
    lock = image_lock.read(paths.image_lock)
    return {
        "wheelhouse": house,
        "parallelism": parallelism,
        "image": {
            "reference": lock.reference,
            "git_commit": lock.value("git_commit"),
            "build_date": lock.value("build_date"),
            "lock": lock.digest(),
        },
        "wheels_lock": wheel_lock.read(paths.wheels_lock).digest(),
        "cv": {name: item.as_json() for name, item in scores.items()},
    }


def _layers(paths: RunPaths, round_: int, best_epoch: int, data: Dataset) -> dict[str, str]:
    """Return the layers of the best epoch on the probe, and its data layers."""
    record = files.read_json(paths.stage("train", round_) / f"epoch-{best_epoch}.json")
    lineage = Lineage.read(paths.adapter(round_) / "lineage.json")
    data_layers = evidence.data_layers(paths, data, lineage)
    return {**data_layers, **run_report.mounted(data.corpus, data.pool), **record["layers"]}


def _card(
    config: Config, round_: int, folder: Path, base: BaseModel, scores: Mapping[str, Scores]
) -> str:
    table = (
        scores_table(list(scores.items()), style="markdown")
        if scores
        else "None: the validation set is empty, or the adapter was trained on its rows."
    )
    return model_card.build_card(
        config,
        Lineage.read(folder / "lineage.json"),
        round_=round_,
        weights=adapters.read_record(folder).weights,
        base_license=base.license,
        table=table,
    )
