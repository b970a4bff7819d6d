"""Load the artifacts of a record of evidence: rankings, embeddings, texts, submission.

An artifact counts only if it has the record's digest: a later run may have replaced the folder.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.competition import ranking as rankings
from parity.competition import submission
from parity.competition.base import Competition
from parity.competition.corpus import read_corpus
from parity.competition.kinds import competition_of
from parity.competition.query import read_queries
from parity.competition.ranking import Ranking
from parity.pipeline.evidence import TEXTS
from parity.retrieval import prompts
from parity.run import digest, files, ledger
from parity.run import manifest as manifests
from parity.run.config.competition import CompetitionConfig
from parity.run.config.prompt import PromptConfig
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest
from parity.run.paths import RunPaths


def with_artifacts(
    evidence: Evidence, data: Path, records: Sequence[Evidence], folder: Path | None = None
) -> EvidenceRecord:
    """Return a record with the artifacts that are on this machine and have its digests.

    Args:
        evidence: the record.
        data: data folder.
        records: evidence of the ledger, oldest first.
        folder: folder with the artifacts; None searches the run's folders.
    """
    workspace = RunPaths(data, evidence.run)
    folders = [folder] if folder else _folders(workspace, evidence)
    record = EvidenceRecord(evidence, ledger.id_of(evidence))
    for candidate in folders:
        probe = _ranking(candidate / "probe_ranking.jsonl", evidence.layers.get("ranking", ""))
        if probe is not None:
            record = _with_probe(record, workspace, candidate, probe)
            break
    record = _with_texts(record, folders)
    if evidence.kind == "cv":
        record = _with_prediction(record, workspace)
    return replace(record, base_vectors=_base_vectors(evidence, workspace, records))


def evaluation_folder(workspace: RunPaths, evidence: Evidence) -> Path:
    """Return the folder of the evaluation that belongs to a record."""
    round_, label = evidence.round, evidence.label
    if evidence.kind != "cv":
        packed = manifests.read(workspace.stage("package", evidence.round))
        facts = packed.facts if packed else {}
        round_, label = facts.get("scored_round", round_), facts.get("label", "best")
    return workspace.evaluation(round_, label)


def _folders(workspace: RunPaths, evidence: Evidence) -> list[Path]:
    rehearsed = workspace.stage("rehearse", evidence.round)
    kinds = {
        "cv": [workspace.evaluation(evidence.round, evidence.label)],
        "rehearsal": [rehearsed / "kaggle" / "working", rehearsed / "image" / "working"],
        "image": [rehearsed / "image" / "working"],
    }
    output = workspace.stage("follow", evidence.round) / "output"
    return [workspace.evidence(ledger.id_of(evidence)), *kinds.get(evidence.kind, [output])]


def _ranking(path: Path, expected: str | None) -> Ranking | None:
    """Return a ranking of the expected digest, None if the file is missing or has another."""
    if not expected or not path.is_file():
        return None
    ranking = rankings.read(path)
    return ranking if ranking.digest() == expected else None


def _vectors(path: Path, expected: str) -> NDArray[np.float32] | None:
    """Return embeddings of the expected digest, None if the file is missing or has another."""
    if not path.is_file():
        return None
    vectors: NDArray[np.float32] = np.load(path)
    return vectors if expected in ("", digest.of_bytes(vectors.tobytes())) else None


def _with_probe(
    record: EvidenceRecord, workspace: RunPaths, folder: Path, probe: Ranking
) -> EvidenceRecord:
    evidence = record.evidence
    expected = evidence.facts.get("vectors", {}).get("queries", "")
    return replace(
        record,
        probe=probe,
        vectors=_vectors(folder / "probe.npy", expected),
        submission=_submission(workspace, folder, evidence.layers.get("submission", "")),
    )


def _competition(workspace: RunPaths) -> Competition | None:
    """Return the competition that `prepare` read, None if it has not run here."""
    prepared = manifests.read(workspace.prepare)
    if prepared is None:
        return None
    section = json.dumps(prepared.config.get("competition", {}))
    return competition_of(CompetitionConfig.model_validate_json(section))


def _submission(workspace: RunPaths, folder: Path, expected: str) -> Ranking | None:
    """Return a submission of the expected digest, None if the file is missing or has another."""
    competition = _competition(workspace)
    path = folder / (competition.submission.file if competition else submission.NAME)
    if competition is None or not path.is_file() or digest.of_file(path) != expected:
        return None
    test = read_queries(workspace.prepare / "test_queries.jsonl")
    return competition.read_submission(path, test, read_corpus(workspace.prepare / "corpus.jsonl"))


def _with_texts(record: EvidenceRecord, folders: Sequence[Path]) -> EvidenceRecord:
    """Add prompt settings, texts and the ranking of the validation rows, where they exist."""
    evidence = record.evidence
    for folder in folders:
        manifest = manifests.read(folder)
        if (
            record.settings is None
            and manifest is not None
            and "prompt" in manifest.config
            and _is_prompt_of(manifest.config["prompt"], evidence)
        ):
            record = replace(record, settings=manifest.config["prompt"])
        if record.valid is None:
            ranking = _ranking(folder / "ranking.jsonl", evidence.facts.get("valid"))
            record = replace(record, valid=ranking)
        rows = _jsonl(folder / TEXTS)
        if rows and digest.of_lines(row["text"] for row in rows) == evidence.layers.get("texts"):
            record = replace(record, texts=rows)
    return record


def _is_prompt_of(prompt: Any, evidence: Evidence) -> bool:
    """Return whether a record was measured with these prompt settings."""
    return prompts.template_digest(PromptConfig(**prompt)) == evidence.layers.get("template")


def _jsonl(path: Path) -> list[Any]:
    return files.read_jsonl(path) if path.is_file() else []


def _with_prediction(record: EvidenceRecord, workspace: RunPaths) -> EvidenceRecord:
    """Add the submission that `predict` wrote in any round with the model that was scored."""
    evidence = record.evidence
    scored = manifests.read(evaluation_folder(workspace, evidence))
    competition = _competition(workspace)
    for folder in sorted(workspace.root.glob("round-*/predict")):
        predicted = manifests.read(folder)
        path = folder / (competition.submission.file if competition else submission.NAME)
        if scored is None or predicted is None or not path.is_file() or record.probe is None:
            continue
        if _scored_with(predicted) == _scored_with(scored):
            sha256 = digest.of_file(path)
            changed = replace(evidence, layers={**evidence.layers, "submission": sha256})
            table = _submission(workspace, folder, sha256)
            return replace(record, evidence=changed, submission=table)
    return record


def _scored_with(manifest: Manifest) -> tuple[str, ...]:
    """Return model and settings that a stage ranked with."""
    return manifest.inputs.get("model", ""), manifest.facts.get("evaluation", "")


def _base_vectors(
    evidence: Evidence, workspace: RunPaths, records: Sequence[Evidence]
) -> NDArray[np.float32] | None:
    """Return the base model's embeddings of the probe from the same tokens."""
    names = ("base", "tokens", "precision")
    expected = [evidence.layers.get(name) for name in names]
    for record in _base_records(records, evidence):
        if [record.layers.get(name) for name in names] == expected:
            queries = record.facts.get("vectors", {}).get("queries", "")
            return _vectors(workspace.evidence(ledger.id_of(record)) / "probe.npy", queries)
    return None


def _base_records(records: Sequence[Evidence], evidence: Evidence) -> Iterator[Evidence]:
    return (
        record
        for record in records
        if (record.run, record.kind, record.label) == (evidence.run, "cv", "base")
    )
