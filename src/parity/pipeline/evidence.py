"""Evidence of this run: the layers that come before the model, and the texts kept beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity.competition.eedi import submission
from parity.competition.lineage import Lineage
from parity.deploy.kernel import fingerprint
from parity.pipeline import dataset
from parity.pipeline.dataset import Dataset
from parity.pipeline.evaluation import Evaluation
from parity.retrieval.encoder import Encoder
from parity.retrieval.probe_measurement import ProbeResult
from parity.run import digest, files, ledger
from parity.run.experiment import Run
from parity.run.ledger import Evidence, KaggleStep, StepName
from parity.run.manifest import read as read_manifest
from parity.run.paths import RunPaths

MEASURED = ("probe.npy", "probe_ranking.jsonl", "ranking.jsonl", submission.NAME)
"""Files of a measurement; what a record of evidence is compared by."""
TEXTS = "texts.jsonl"
SETTINGS = "config.json"
"""The resolved run file beside a record: what it takes to measure the same again."""


def data_layers(run: Run, known: Dataset, lineage: Lineage) -> dict[str, str]:
    """Return the layers from raw data to lineage."""
    prepared = read_manifest(run.workspace.prepare)
    return {
        "data": digest.of_value(prepared.inputs) if prepared else "",
        "split": known.split.digest(),
        "lineage": lineage.digest(),
    }


def facts(run: Run, known: Dataset, encoder: Encoder, scored: Evaluation) -> dict[str, Any]:
    """Return the facts of a score's evidence: what its digests hide, and what was scored."""
    probed = scored.probed
    asked = fingerprint.ProbeTexts(
        probed.found.ranking.query_ids,
        probed.found.asked.texts,
        probed.found.asked.tokens,
        dataset.shown(known, run.config.prompt, known.probe),
        probed.found.vectors,
        scored.passages,
    )
    return {
        **fingerprint.environment_fingerprint(
            run.config.prompt,
            known.corpus,
            asked,
            encoder.speed(),
            run.config.encoder.token_budget,
        ),
        "split": known.split.name,
        "valid": None if scored.ranking is None else scored.ranking.digest(),
    }


def append(run: Run, record: Evidence, folder: Path, texts: Path | None = None) -> None:
    """Add a record to the ledger and keep what was measured with it, to show a difference later."""
    ledger.append(run.workspace.ledger, record)
    keep(run.workspace, record, {name: folder / name for name in MEASURED})
    place = run.workspace.evidence(ledger.id_of(record))
    files.write_json(place / SETTINGS, run.config.model_dump(mode="json"))
    if texts is not None:
        keep(run.workspace, record, {TEXTS: texts})


def keep(place: RunPaths, record: Evidence, there: Mapping[str, Path]) -> None:
    """Keep files beside a record, by the record's id; those that are not there are passed over.

    They are written whole and never changed in place, so that a link is as good as a copy.
    """
    folder = place.evidence(ledger.id_of(record))
    for name, path in there.items():
        if path.is_file() and not (folder / name).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            files.link(path, folder / name)


def note(run: Run, step: StepName, key: str, refs: dict[str, Any]) -> None:
    """Write a step on Kaggle into the ledger, unless it stands there already."""
    made = KaggleStep(run.config.name, run.round, step, key, refs, ledger.now())
    ledger.append_step(run.workspace.ledger, made)


def steps(run: Run) -> list[KaggleStep]:
    """Return the steps that this run took on Kaggle at its round, oldest first."""
    known = ledger.steps(run.workspace.ledger)
    return [one for one in known if (one.run, one.round) == (run.config.name, run.round)]


def kernels(run: Run) -> list[Evidence]:
    """Return what Kaggle's kernel showed for this run at its round, oldest first."""
    return [
        one
        for one in ledger.read(run.workspace.ledger)
        if one.kind == "kernel" and (one.run, one.round) == (run.config.name, run.round)
    ]


def keep_texts(run: Run, probed: ProbeResult, label: str) -> None:
    """Write the probe's texts and token ids, to show a difference later; they never leave data/."""
    asked = probed.found.asked
    rows = zip(probed.found.ranking.query_ids, asked.texts, asked.tokens, strict=True)
    files.write_jsonl(
        run.workspace.texts(run.round, label),
        ({"query_id": one, "text": text, "tokens": ids} for one, text, ids in rows),
    )
