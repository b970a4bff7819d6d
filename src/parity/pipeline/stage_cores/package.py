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
from parity.pipeline import (
    changes,
    dag,
    dataset,
    encoder_loading,
    epochs,
    evaluation,
    evaluations,
    evidence,
    model_reference,
)
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.model_reference import BEST, Model
from parity.pipeline.stage import StageContext, stage_context
from parity.retrieval.engine.distributed import current_group
from parity.retrieval.models import adapter as adapters
from parity.retrieval.models import base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run import digest, environment, files
from parity.run import manifest as manifests
from parity.run.config import run_file as configs
from parity.run.config import stage_settings
from parity.run.config.run_file import Config
from parity.run.config.shipping import ShippingConfig
from parity.run.errors import StaleInput
from parity.run.experiment import Run
from parity.run.manifest import Manifest
from parity.run.paths import RunPaths


def package(run: Run, model: str = "", evaluation: str = "") -> None:
    """Write the kernel's bundle and wheelhouse, scan them for secrets and texts, and seal them.

    Args:
        run: run at its round.
        model: reference of the model; empty is the round's best adapter.
        evaluation: name of the evaluation whose settings the kernel uses; empty uses the run's.

    Raises:
        BadData: a file holds a secret, a local path, a pickle or unlicensed text.
        StaleInput: a wheel of the run is missing, or the model was not scored under the settings
            that it will run with.
    """
    run = run.evaluated_as(evaluation)
    scored = _scored(run, model)
    inputs = {**changes.locks(run), **({"evaluation": scored.digest()} if scored else {})}
    with stage_context(run, "package", model=model, inputs=inputs) as work:
        data = dataset.load(run.config, run.workspace)
        texts = [] if run.config.data.license else dataset.texts(data)
        house = _wheelhouse(run.workspace, run.config.shipping, work.folder / "wheelhouse")
        bundle_digest = _bundle(run, work, data, texts, house, scored)
        work.outputs = [
            f"{name}/{path.name}"
            for name in ("bundle", "wheelhouse")
            for path in sorted((work.folder / name).iterdir())
        ]
        work.facts = {"digest": bundle_digest, "wheelhouse": house, **_evaluation(run, work)}


def _scored(run: Run, reference: str) -> Manifest | None:
    """Return the evaluation of the model to package; None where the split has no validation set.

    Raises:
        StaleInput: there is none under the settings that the kernel will use.
    """
    graph = StageGraph()
    graph.require(run, "package")
    model = graph.model(run, "package", reference)
    assert model is not None  # `package` loads one
    if not dag.applies(run, "eval"):
        return None
    status = graph.evaluation(run, model)
    if status.manifest is None or status.state != "done":
        label, words = dag.evaluation_label(model, run), dag.evaluation_words(run, model)
        state = f"is stale ({status.reason})" if status.reason else "is missing"
        raise StaleInput(f"the score of {label} {state}; what is packaged was scored", fix=words)
    return status.manifest


def _evaluation(run: Run, work: StageContext) -> dict[str, Any]:
    """Return label and round of the evaluation of the packaged model."""
    assert work.model is not None  # `package` loads one
    return {
        "label": dag.evaluation_label(work.model, run),
        "scored_round": work.model.round,
    }


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


def _bundle(
    run: Run,
    work: StageContext,
    data: Dataset,
    texts: Iterable[str],
    house: str,
    scored: Manifest | None,
) -> str:
    target, paths, model = work.folder / "bundle", run.workspace, work.model
    assert model is not None  # `package` loads one
    label = dag.evaluation_label(model, run)
    config = _shipped_config(run, model)
    lineage = Lineage.of_adapter(model.folder)
    scores = evaluations.read(dag.evaluation_folder(run, model)) if scored else {}
    layers = _layers(run, model, scored, data)
    with files.replacing(target) as temporary:
        temporary.mkdir()
        for name in model_reference.FILES:
            if model.folder is not None and (model.folder / name).is_file():
                shutil.copy2(model.folder / name, temporary)
        files.write_json(temporary / "run.json", epochs.frozen(config))
        lineage.write(temporary / model_reference.LINEAGE)
        _write_ids(temporary, data, paths.texts(model.round, label))
        base = encoder_loading.load_base(run.config.encoder, paths)
        base_model.write_record(base, temporary)
        card = _card(config, run.round, model.folder, base, scores)
        files.write_text(temporary / "README.md", card)
        scan.scan(temporary, texts)
        bundle_digest = bundle.seal(
            temporary,
            run=run.config.name,
            round_=run.round,
            layers={
                **evidence.data_layers(paths, data, lineage),
                **run_report.mounted(data.corpus, data.pool),
                **layers,
            },
            **_facts(paths, run.config.encoder.parallelism, scores, house),
            model=label,
        )
        work.begin()  # only now the earlier bundle is replaced
    size = sum(path.stat().st_size for path in target.iterdir())
    count = len(list(target.iterdir()))
    print(f"bundle {bundle_digest[:12]} of {label}, {count} files, {size / 1e6:.1f} MB: {target}")
    return bundle_digest


def _shipped_config(run: Run, model: Model) -> Config:
    """Return the config that travels: how the model was made, and how the kernel runs it."""
    frozen = epochs.frozen(run.config)
    record = model.folder / "run.json" if model.folder else None
    if record is not None and record.is_file():
        made = files.read_json(record)
        frozen |= {key: made[key] for key in ("split", "mining", "training", "overrides")}
    return configs.build(frozen, str(run.file))


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


def _layers(run: Run, model: Model, scored: Manifest | None, data: Dataset) -> dict[str, str]:
    """Return the model's layers on the probe under the settings that the kernel will use."""
    if scored is not None:
        layers: dict[str, str] = scored.facts["layers"]
        return layers
    folder = run.workspace.stage("train", model.round)
    trained = manifests.read(folder) if model.trained else None
    if trained and trained.facts["scored_with"] == stage_settings.settings_digest(run.config):
        best = f"epoch-{trained.facts['best_epoch']}"
        record = files.read_json(folder / f"{best if model.label == BEST else model.label}.json")
        return dict(record["layers"])
    encoder = encoder_loading.load_caching_encoder(
        run.config.encoder, run.workspace, model.folder, current_group()
    )
    return evaluation.score(encoder, run.config, data).probed.layers


def _card(
    config: Config,
    round_: int,
    folder: Path | None,
    base: BaseModel,
    scores: Mapping[str, Scores],
) -> str:
    table = (
        scores_table(list(scores.items()), style="markdown")
        if scores
        else "None: the validation set is empty, or the adapter was trained on its rows."
    )
    return model_card.build_card(
        config,
        Lineage.of_adapter(folder),
        round_=round_,
        weights=adapters.read_record(folder).weights if folder else "",
        base_license=base.license,
        table=table,
    )
