"""6. Adapter → bundle and wheelhouse, the flat folders that go to Kaggle, scanned and sealed."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parity.analysis.report.tables import scores_table
from parity.competition import few_shot
from parity.competition.lineage import Lineage
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
from parity.run.errors import StaleInput
from parity.run.experiment import Run


def package(run: Run) -> None:
    """Gather what the kernel needs into two folders, look for what must not leave, seal them.

    Raises:
        BadData: a secret, a path of this machine, a pickle or unlicensed text was found.
        StaleInput: a wheel that the run names is not here; names the command.
    """
    with stage_context(run, "package", inputs=dag.locks(run)) as work:
        known = dataset.load(run)
        said = [] if run.config.data.license else dataset.texts(known)
        house = _wheelhouse(run, work.folder / "wheelhouse")
        made = _bundle(run, work, known, said, house)
        work.outputs = [
            f"{name}/{path.name}"
            for name in ("bundle", "wheelhouse")
            for path in sorted((work.folder / name).iterdir())
        ]
        work.facts = {"digest": made, "wheelhouse": house}


def _wheelhouse(run: Run, target: Path) -> str:
    """Make the wheelhouse: the project's own wheel and those the run names; return its digest."""
    chosen = _chosen(run)
    with files.replacing(target) as temporary:
        own = build.build_own(run.workspace.checkout, temporary)
        for wheel in chosen:
            files.link(run.workspace.wheelhouse / wheel.file, temporary / wheel.file)
        scan.scan(temporary)
        version = own.name.split("-")[1]
        install = sorted([f"kaggle-parity=={version}", *(wheel.pin for wheel in chosen)])
        made = sealed_folder.seal(
            temporary, "wheelhouse", {"install": install, "code": environment.code()}
        )
    told = ", ".join([own.name.split("-")[0], *(wheel.name for wheel in chosen)])
    print(f"wheelhouse {made[:12]}: {told}")
    return made


def _chosen(run: Run) -> tuple[Wheel, ...]:
    """Return the run's wheels, each proven to lie here."""
    mend = run.command("wheels")
    lock = wheel_lock.read(run.workspace.wheelhouse / wheel_lock.NAME)
    frozen = freeze.fingerprint(freeze.parse(image_lock.freeze(run.workspace.image_lock)))
    chosen = wheel_lock.select(lock, run.config.shipping.wheels, under=frozen, mend=mend)
    if gone := wheel_lock.missing(chosen, run.workspace.wheelhouse):
        raise StaleInput(f"offline_wheels/{gone[0].file} is not here; run: {mend}")
    return chosen


def _bundle(run: Run, work: StageContext, known: Dataset, said: Iterable[str], house: str) -> str:
    target = work.folder / "bundle"
    with files.replacing(target) as temporary:
        shutil.copytree(run.workspace.adapter(run.round), temporary)
        _write_ids(run, known, temporary)
        base = encoder_loading.base(run)
        base_model.write_record(base, temporary)
        files.write_text(temporary / "README.md", _card(run, base))
        scan.scan(temporary, said)
        made = bundle.seal(
            temporary,
            run=run.config.name,
            round_=run.round,
            layers=_layers(run, work, known),
            **_facts(run, house),
        )
    size = sum(path.stat().st_size for path in target.iterdir())
    count = len(list(target.iterdir()))
    print(f"bundle {made[:12]}, {count} files, {size / 1e6:.1f} MB: {target}")
    return made


def _write_ids(run: Run, known: Dataset, folder: Path) -> None:
    """Write few-shot examples and probe: ids, and of each row the digest of the text it stands for.

    The probe's are of the rendered texts, where an evaluation has kept them.
    """
    files.write_jsonl(
        folder / "examples.jsonl",
        (
            {
                "query_id": one.query.query_id,
                "misconception_id": one.misconception_id,
                "sha256": few_shot.text_digest(one),
            }
            for one in known.pool
        ),
    )
    path = run.workspace.texts(run.round, evaluate.BEST)
    kept = files.read_jsonl(path) if path.is_file() else []
    shown = {row["query_id"]: {"sha256": digest.of_text(row["text"])} for row in kept}
    files.write_jsonl(
        folder / "probe.jsonl",
        ({"query_id": one.query_id, **shown.get(one.query_id, {})} for one in known.probe),
    )


def _facts(run: Run, house: str) -> dict[str, Any]:
    """Return what the bundle's manifest says beside its layers."""
    lock = image_lock.read(run.workspace.image_lock)
    rows = evaluate.read(run, evaluate.BEST)
    return {
        "wheelhouse": house,
        "parallelism": run.config.encoder.parallelism,
        "image": {
            "reference": lock.reference,
            "git_commit": lock.value("git_commit"),
            "build_date": lock.value("build_date"),
            "lock": lock.digest(),
        },
        "wheels_lock": wheel_lock.read(run.workspace.wheelhouse / wheel_lock.NAME).digest(),
        "cv": {name: scores.as_json() for name, scores in rows.items()},
    }


def _layers(run: Run, work: StageContext, known: Dataset) -> dict[str, str]:
    """Return what the chosen epoch showed on the probe when it was saved, and its data layers."""
    number = work.found[dag.label_of("train", run)].facts["best_epoch"]
    record = files.read_json(run.workspace.stage("train", run.round) / f"epoch-{number}.json")
    lineage = Lineage.read(run.workspace.adapter(run.round) / "lineage.json")
    data = evidence.data_layers(run, known, lineage)
    return {**data, **run_report.mounted(known.corpus, known.pool), **record["layers"]}


def _card(run: Run, base: BaseModel) -> str:
    folder = run.workspace.adapter(run.round)
    rows = evaluate.read(run, evaluate.BEST)
    table = (
        scores_table(list(rows.items()), style="markdown")
        if rows
        else "None: the split holds nothing out, or what was scored had been trained on."
    )
    return model_card.write(
        configs.build(epochs.frozen(run.config), str(run.file)),
        Lineage.read(folder / "lineage.json"),
        round_=run.round,
        weights=adapters.read_record(folder).weights,
        base_license=base.license,
        table=table,
    )
