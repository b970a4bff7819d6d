"""Find the record of evidence that a user names, and what a comparison needs of its run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.competition.corpus import read_corpus, read_qrels
from parity.competition.query import QueryId
from parity.competition.scoring import metrics
from parity.competition.scoring.row_metrics import metric_of
from parity.competition.splits.split import Split
from parity.deploy.kernel import run_report
from parity.pipeline import dag, model_reference, registry
from parity.pipeline.evaluations import SCORES, quick_looks
from parity.pipeline.evidence_artifacts import evaluation_folder, with_artifacts
from parity.pipeline.model_reference import BEST
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.config.scoring import ScoringConfig
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence
from parity.run.paths import RunPaths

KINDS = {stage.name: stage.evidence for stage in registry.stages() if stage.evidence}
"""Stage → kind of the evidence that it adds to the ledger."""
NUMBER = re.compile(r"[01]?\.\d+")
"""A leaderboard score in place of a record."""
_NAME = re.compile(r"(?P<run>[^/]+)/round-(?P<round>\d+)/(?P<step>[a-z]+)(?:/(?P<label>.+))?")
_MIN_DIGITS = 4  # of an id
_MOST_LISTED = 3  # records that an error lists


def find_record(
    word: str, data: Path, records: Sequence[Evidence], run: Run | None = None
) -> EvidenceRecord:
    """Return the record that a user names, with its artifacts.

    Args:
        word: an id of the ledger or its first digits, `RUN/round-N/STAGE` with a label or without,
            the path of a run_report.json, or for an evaluation of `run` a reference to its model,
            alone or as `MODEL@EVALUATION`.
        data: data folder.
        records: evidence of the ledger, oldest first.
        run: run at its round, which references belong to; None takes no references.

    Raises:
        BadConfig: no record has this name, or several have it.
        StaleInput: the model has no score under these settings.
    """
    path = Path(word)
    if path.is_file():
        record, _ = run_report.read_file(path)
        return with_artifacts(record, data, records, path.parent)
    reference, _, evaluation = word.partition("@")
    if run is not None and is_of_run(word):
        record = _find_evaluation(reference, evaluation, run, records)
    else:
        record = _find_evidence(word, records)
    return with_artifacts(record, data, records)


def is_of_run(word: str) -> bool:
    """Return whether a word names an evaluation by its model: `MODEL` or `MODEL@NAME`."""
    return model_reference.is_reference(word.partition("@")[0])


def _find_evaluation(
    reference: str, evaluation: str, run: Run, records: Sequence[Evidence]
) -> Evidence:
    """Return the score of a model of a run under the settings of an evaluation.

    Raises:
        StaleInput: there is none, or model or settings have changed since.
    """
    looks = (look for look in quick_looks(run) if look.evaluation == evaluation)
    run = next(looks, None) or run.evaluated_as(evaluation)
    model = model_reference.resolve(reference, run)
    label, fix = dag.evaluation_label(model, run), dag.evaluation_words(run, model)
    status = dag.StageGraph().evaluation(run.at(model.round), model)
    if status.state == "stale":
        raise StaleInput(f"the score of {label} is stale ({status.reason})", fix=fix)
    matches = [
        record
        for record in records
        if (record.run, record.round, record.kind) == (run.config.name, model.round, "cv")
        and record.label == label
    ]
    if not matches:
        raise StaleInput(f"{run.config.name} has no score of {label}", fix=fix)
    return matches[-1]


def ends(
    compared: Mapping[str, Evidence], data: Path, records: Sequence[Evidence]
) -> list[EvidenceRecord]:
    """Return the first and the last measurement of a run; fewer where the run has fewer.

    Args:
        compared: kind → record in pipeline order, from `StageGraph.compared`; leaderboard scores
            are not measurements.
        data: data folder.
        records: evidence of the ledger, oldest first.
    """
    steps = [record for kind, record in compared.items() if kind not in ledger.BOARDS]
    return [with_artifacts(step, data, records) for step in (*steps[:1], *steps[1:][-1:])]


def load_artifacts(
    a: EvidenceRecord,
    b: EvidenceRecord,
    data: Path,
    records: Sequence[Evidence],
    *,
    with_text: bool,
) -> Artifacts:
    """Return labels, unseen rows, scoring settings and tokenizer of A's run, or else of B's."""
    artifacts = Artifacts(records=tuple(records), with_text=with_text)
    for record in (b, a):  # A overrides B
        workspace = RunPaths(data, record.evidence.run)
        if record.evidence.kind == "cv":
            artifacts = replace(artifacts, metric=metric_of(record.evidence.score))
        path = workspace.prepare / "qrels.jsonl"
        if path.is_file():
            unseen = _unseen(workspace, record)
            qrels = read_qrels(path, read_corpus(workspace.prepare / "corpus.jsonl"))
            artifacts = replace(artifacts, qrels=qrels, unseen=unseen)
        manifest = manifests.read(evaluation_folder(workspace, record.evidence))
        if manifest is not None and "scoring" in manifest.config:
            artifacts = replace(artifacts, scoring=ScoringConfig(**manifest.config["scoring"]))
        path = workspace.root / "base" / "tokenizer.json"
        if path.is_file():
            artifacts = replace(artifacts, pieces=pieces(files.read_json(path)))
    return artifacts


def row_precisions(record: EvidenceRecord, data: Path, k: int = 0) -> dict[QueryId, float]:
    """Return the score of each validation row; empty where its files are missing.

    Args:
        record: record with its artifacts.
        data: data folder.
        k: depth; 0 takes the depth of the record's score.
    """
    qrels = load_artifacts(record, record, data, (), with_text=False).qrels
    rows = record.valid.query_ids if record.valid is not None else ()
    if record.valid is None or not all(row in qrels for row in rows):
        return {}
    labels = {row: qrels[row] for row in rows}
    metric = metric_of(record.evidence.score)
    return metrics.row_scores(record.valid, labels, replace(metric, k=k or metric.k))


def pieces(tokenizer: Any) -> dict[int, str]:
    """Return token id → piece of a tokenizer.json; empty where it has no vocabulary."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict):
        result = {number: piece for piece, number in vocabulary.items()}
    else:
        result = {number: row[0] for number, row in enumerate(vocabulary)}
    return result | {token["id"]: token["content"] for token in tokenizer.get("added_tokens", [])}


def describe_records(records: Sequence[Evidence]) -> list[str]:
    """Return id and name of records, the newest first."""
    return [
        f"{EvidenceRecord(record).short} {EvidenceRecord(record).name}"
        for record in reversed(records)
    ]


def _find_evidence(word: str, records: Sequence[Evidence]) -> Evidence:
    match = _NAME.fullmatch(word)
    if match:
        kind = KINDS.get(match["step"], match["step"])
        matches = [
            record
            for record in records
            if (record.run, record.round, record.kind) == (match["run"], int(match["round"]), kind)
        ]
        matches = _with_label(matches, match["label"], word)[-1:]  # the newest
    else:
        # A record that is in the ledger twice has one id.
        by_id = {ledger.id_of(record): record for record in records}
        matches = [record for name, record in by_id.items() if name.startswith(word)]
        matches = matches if len(word) >= _MIN_DIGITS else []
    if len(matches) == 1:
        return matches[0]
    count = "several records" if matches else "no record"
    newest = "; ".join(describe_records(records)[:_MOST_LISTED])
    raise BadConfig(
        f"{count} of the name {word} in the ledger. Use an id, RUN/round-N/STAGE or the path of a "
        f"run_report.json ({f'newest: {newest}' if newest else 'the ledger is empty'})",
        fix=() if newest else ("eval",),
    )


def _with_label(records: Sequence[Evidence], label: str | None, word: str) -> list[Evidence]:
    """Return the records with a label; without one, those of the best adapter or the only label.

    Raises:
        BadConfig: several models were scored, and the best adapter is not among them.
    """
    labels = sorted({record.label for record in records})
    if label is None and len(labels) > 1:
        if BEST not in labels:
            names = ", ".join(f"{word}/{name}" for name in labels)
            raise BadConfig(f"{word} names several scores. Use one of {names}")
        label = BEST
    return [record for record in records if label in (None, record.label)]


def _unseen(workspace: RunPaths, record: EvidenceRecord) -> frozenset[Any]:
    """Return the scored rows with an unseen label, as the score was computed."""
    evidence, path = record.evidence, workspace.evidence(record.id) / SCORES
    if path.is_file():
        return frozenset(map(QueryId, files.read_json(path)["unseen"]))
    for path in sorted((workspace.prepare / "splits").glob("*.json")):
        split = Split.read(path)
        if split.digest() == evidence.layers.get("split"):
            return split.unseen
    return frozenset()
