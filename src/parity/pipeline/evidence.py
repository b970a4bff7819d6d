"""Evidence of this run: its data layers, facts, stored files and steps on Kaggle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity.competition import submission
from parity.competition.lineage import Lineage
from parity.deploy.kernel import fingerprint
from parity.pipeline import dataset
from parity.pipeline.dataset import Dataset
from parity.pipeline.evaluation import Evaluation
from parity.retrieval.encoder import Encoder
from parity.retrieval.probe_measurement import ProbeResult
from parity.run import digest, files, ledger
from parity.run.config.run_file import Config
from parity.run.ledger import Evidence, KaggleStep, StepName
from parity.run.manifest import read as read_manifest
from parity.run.paths import RunPaths

MEASURED = ("probe.npy", "probe_ranking.jsonl", "ranking.jsonl", "scores.json", submission.NAME)
"""Files of a measurement that comparisons of evidence records read."""
TEXTS = "texts.jsonl"
SETTINGS = "config.json"
"""File name of the resolved config stored with a record, to repeat its measurement."""


def data_layers(paths: RunPaths, data: Dataset, lineage: Lineage) -> dict[str, str]:
    """Return the layers from raw data to lineage."""
    prepared = read_manifest(paths.prepare)
    return {
        "data": digest.of_value(prepared.inputs) if prepared else "",
        "split": data.split.digest(),
        "lineage": lineage.digest(),
    }


def facts(config: Config, data: Dataset, encoder: Encoder, scored: Evaluation) -> dict[str, Any]:
    """Return the facts of a score's evidence: its environment, split and ranking."""
    probed = scored.probed
    probe_texts = fingerprint.ProbeTexts(
        probed.retrieval.ranking.query_ids,
        probed.retrieval.queries.texts,
        probed.retrieval.queries.tokens,
        dataset.shown(data, config.prompt, data.probe),
        probed.retrieval.vectors,
        scored.passages,
    )
    return {
        **fingerprint.environment_fingerprint(
            config.prompt,
            data.corpus,
            probe_texts,
            encoder.speed(),
            config.encoder.token_budget,
        ),
        "split": data.split.name,
        "valid": None if scored.ranking is None else scored.ranking.digest(),
    }


def append(
    paths: RunPaths,
    config: Config,
    record: Evidence,
    folder: Path,
    texts: Path | None = None,
) -> None:
    """Append a record to the ledger; store its settings and files for later comparisons.

    Args:
        paths: folders of the run.
        config: config of the run that was measured.
        record: evidence to append.
        folder: folder with the measured files.
        texts: file of the probe's texts; None stores no texts.
    """
    ledger.append(paths.ledger, record)
    keep(paths, record, {name: folder / name for name in MEASURED})
    target = paths.evidence(ledger.id_of(record))
    files.write_json(target / SETTINGS, config.model_dump(mode="json"))
    if texts is not None:
        keep(paths, record, {TEXTS: texts})


def keep(paths: RunPaths, record: Evidence, artifacts: Mapping[str, Path]) -> None:
    """Store files of a record under its id; missing files are skipped.

    Files are replaced as a whole and never changed in place, so a hard link is safe.
    """
    folder = paths.evidence(ledger.id_of(record))
    for name, path in artifacts.items():
        if path.is_file() and not (folder / name).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            files.link(path, folder / name)


def note(paths: RunPaths, round_: int, step: StepName, key: str, refs: dict[str, Any]) -> None:
    """Append a step on Kaggle to the ledger, unless it is already there."""
    record = KaggleStep(paths.run, round_, step, key, refs, ledger.utc_now())
    ledger.append_step(paths.ledger, record)


def steps(paths: RunPaths, round_: int) -> list[KaggleStep]:
    """Return the steps of a round of the run on Kaggle, oldest first."""
    records = ledger.read_steps(paths.ledger)
    return [record for record in records if (record.run, record.round) == (paths.run, round_)]


def kernels(paths: RunPaths, round_: int) -> list[Evidence]:
    """Return the evidence of Kaggle's kernel for a round of the run, oldest first."""
    return [
        record
        for record in ledger.read(paths.ledger)
        if record.kind == "kernel" and (record.run, record.round) == (paths.run, round_)
    ]


def keep_texts(path: Path, probed: ProbeResult) -> None:
    """Write the probe's texts and token ids for later comparisons; they never leave data/."""
    rendered = probed.retrieval.queries
    rows = zip(probed.retrieval.ranking.query_ids, rendered.texts, rendered.tokens, strict=True)
    files.write_jsonl(
        path,
        ({"query_id": query_id, "text": text, "tokens": ids} for query_id, text, ids in rows),
    )
