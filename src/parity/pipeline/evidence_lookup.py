"""Which record of evidence a person means, and which of its artifacts are still at hand.

An artifact counts only where its digest is the record's: a folder may have been written anew.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.analysis.compare import layer_values
from parity.analysis.compare.evidence_record import Artifacts, EvidenceRecord
from parity.competition import ranking as rankings
from parity.competition.eedi import submission
from parity.competition.query import QueryId, read_qrels
from parity.competition.ranking import Ranking
from parity.competition.scoring import metrics
from parity.competition.splits.split import Split
from parity.deploy.kernel import run_report
from parity.pipeline.evidence import TEXTS
from parity.retrieval import prompts
from parity.run import digest, files, ledger
from parity.run import manifest as manifests
from parity.run.config.run_file import PromptConfig, ScoringConfig
from parity.run.errors import BadConfig
from parity.run.ledger import Evidence
from parity.run.paths import RunPaths

KINDS = {"eval": "cv", "rehearse": "rehearsal", "follow": "kernel", "submit": "public"}
"""Stage → the kind of evidence it appends."""
NUMBER = re.compile(r"[01]?\.\d+")
"""A score in place of a side."""
_NAMED = re.compile(r"(?P<run>[^/]+)/round-(?P<round>\d+)/(?P<what>[a-z]+)(?:/(?P<label>[^/]+))?")
_LEAST = 4  # digits of an id
_TOLD = 3  # records an error names


def find(word: str, data: Path, records: Sequence[Evidence]) -> EvidenceRecord:
    """Return the side that a person names.

    Args:
        word: an id of the ledger or its first digits, `RUN/round-N/STAGE` with a label or without,
            or the path of a run_report.json.
        data: the data folder.
        records: of the ledger, oldest first.

    Raises:
        BadConfig: nothing is called so, or more than one record.
    """
    path = Path(word)
    if path.is_file():
        found, _ = run_report.read_file(path)
        return with_artifacts(found, data, records, path.parent)
    return with_artifacts(_record(word, records), data, records)


def ends(
    found: Mapping[str, Evidence], data: Path, records: Sequence[Evidence]
) -> list[EvidenceRecord]:
    """Return the first and the last measurement of a run's way; fewer where there are fewer.

    Args:
        found: kind → record in their order, as `Survey.compared` returns them; scores are none.
        data: the data folder.
        records: of the ledger, oldest first.
    """
    steps = [one for kind, one in found.items() if kind not in ledger.BOARDS]
    return [with_artifacts(one, data, records) for one in (*steps[:1], *steps[1:][-1:])]


def known(
    a: EvidenceRecord,
    b: EvidenceRecord,
    data: Path,
    records: Sequence[Evidence],
    *,
    with_text: bool,
) -> Artifacts:
    """Return labels, marks and tokenizer that help to judge, of A's run or of B's."""
    found = Artifacts(records=tuple(records), with_text=with_text)
    for side in (b, a):  # A's go over B's
        place = RunPaths(data, side.evidence.run)
        path = place.prepare / "qrels.jsonl"
        if path.is_file():
            found = replace(found, qrels=read_qrels(path), unseen=_unseen(place, side.evidence))
        made = manifests.read(_evaluated(place, side.evidence))
        if made is not None and "scoring" in made.config:
            found = replace(found, scoring=ScoringConfig(**made.config["scoring"]))
        path = place.root / "base" / "tokenizer.json"
        if path.is_file():
            found = replace(found, pieces=pieces(files.read_json(path)))
    return found


def precisions(side: EvidenceRecord, data: Path, k: int = 0) -> dict[QueryId, float]:
    """Return each valid row's average precision; empty where its ranking or labels are gone.

    Args:
        side: with its artifacts.
        data: where runs lie.
        k: depth; 0 is that of its own score.
    """
    qrels = known(side, side, data, (), with_text=False).qrels
    rows = side.valid.query_ids if side.valid is not None else ()
    if side.valid is None or not all(row in qrels for row in rows):
        return {}
    right = {row: qrels[row] for row in rows}
    depth = k or layer_values.depth(side.evidence.score)
    return metrics.average_precisions(side.valid, right, k=depth)


def with_artifacts(
    one: Evidence, data: Path, records: Sequence[Evidence], beside: Path | None = None
) -> EvidenceRecord:
    """Return a record with what lies at hand of it."""
    place = RunPaths(data, one.run)
    folders = [beside] if beside else _folders(place, one)
    side = EvidenceRecord(one, ledger.id_of(one))
    for folder in folders:
        probe = _ranking(folder / "probe_ranking.jsonl", one.layers.get("ranking", ""))
        if probe is not None:
            side = _measured(side, folder, probe)
            break
    side = _read(side, folders)
    if one.kind == "cv":
        side = _predicted(side, place)
    return replace(side, bare=_bare(one, place, records))


def pieces(tokenizer: Any) -> dict[int, str]:
    """Return token id → piece of a tokenizer.json; empty where it holds no vocabulary."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict):
        found = {number: piece for piece, number in vocabulary.items()}
    else:
        found = {number: row[0] for number, row in enumerate(vocabulary)}
    return found | {one["id"]: one["content"] for one in tokenizer.get("added_tokens", [])}


def names(records: Sequence[Evidence]) -> list[str]:
    """Return id and name of records, the newest first."""
    return [
        f"{EvidenceRecord(record).short} {EvidenceRecord(record).name}"
        for record in reversed(records)
    ]


def _record(word: str, records: Sequence[Evidence]) -> Evidence:
    named = _NAMED.fullmatch(word)
    if named:
        kind = KINDS.get(named["what"], named["what"])
        found = [
            record
            for record in records
            if (record.run, record.round, record.kind) == (named["run"], int(named["round"]), kind)
            and named["label"] in (None, record.label)
        ][-1:]  # the newest
    else:
        ids = {
            ledger.id_of(record): record for record in records
        }  # the same twice in a second is one
        hits = [one for name, one in ids.items() if name.startswith(word)]
        found = hits if len(word) >= _LEAST else []
    if len(found) != 1:
        there = "; ".join(names(records)[:_TOLD]) or "none yet: invoke eval"
        raise BadConfig(
            f"{word}: {'several records' if found else 'no record'} of that name; want an id, "
            f"RUN/round-N/STAGE or a run_report.json (newest: {there})"
        )
    return found[0]


def _folders(place: RunPaths, one: Evidence) -> list[Path]:
    rehearsed = place.stage("rehearse", one.round)
    kinds = {
        "cv": [place.evaluation(one.round, one.label)],
        "rehearsal": [rehearsed / "kaggle" / "working", rehearsed / "image" / "working"],
        "image": [rehearsed / "image" / "working"],
    }
    output = place.stage("follow", one.round) / "output"
    return [place.evidence(ledger.id_of(one)), *kinds.get(one.kind, [output])]


def _evaluated(place: RunPaths, one: Evidence) -> Path:
    return place.evaluation(one.round, one.label if one.kind == "cv" else "best")


def _ranking(path: Path, wanted: str | None) -> Ranking | None:
    if not wanted or not path.is_file():
        return None
    found = rankings.read(path)
    return found if found.digest() == wanted else None


def _vectors(path: Path, wanted: str) -> NDArray[np.float32] | None:
    if not path.is_file():
        return None
    found: NDArray[np.float32] = np.load(path)
    return found if wanted in ("", digest.of_bytes(found.tobytes())) else None


def _measured(side: EvidenceRecord, folder: Path, probe: Ranking) -> EvidenceRecord:
    one = side.evidence
    wanted = one.facts.get("vectors", {}).get("queries", "")
    return replace(
        side,
        probe=probe,
        vectors=_vectors(folder / "probe.npy", wanted),
        submission=_submission(folder / submission.NAME, one.layers.get("submission", "")),
    )


def _submission(path: Path, wanted: str) -> Ranking | None:
    if not path.is_file() or digest.of_file(path) != wanted:
        return None
    return submission.read(path)


def _read(side: EvidenceRecord, folders: Sequence[Path]) -> EvidenceRecord:
    """Add the prompt's settings, the texts and the ranking of the valid rows, where they are."""
    one = side.evidence
    for folder in folders:
        made = manifests.read(folder)
        same = side.settings is None and made is not None and "prompt" in made.config
        if made is not None and same and _is_of(made.config["prompt"], one):
            side = replace(side, settings=made.config["prompt"])
        if side.valid is None:
            side = replace(side, valid=_ranking(folder / "ranking.jsonl", one.facts.get("valid")))
        rows = _jsonl(folder / TEXTS)
        if rows and digest.of_lines(row["text"] for row in rows) == one.layers.get("texts"):
            side = replace(side, texts=rows)
    return side


def _is_of(prompt: Any, one: Evidence) -> bool:
    """Return whether settings of a prompt are those that a record was made with."""
    return prompts.template_digest(PromptConfig(**prompt)) == one.layers.get("template")


def _jsonl(path: Path) -> list[Any]:
    return files.read_jsonl(path) if path.is_file() else []


def _predicted(side: EvidenceRecord, place: RunPaths) -> EvidenceRecord:
    """Add the submission that `predict` made of the adapter that was scored."""
    one = side.evidence
    folder = place.stage("predict", one.round)
    scored, predicted = (manifests.read(it) for it in (_evaluated(place, one), folder))
    trained = f"train of round {one.round}"
    path = folder / submission.NAME
    if one.label != "best" or scored is None or predicted is None or not path.is_file():
        return side
    if predicted.inputs.get(trained) != scored.inputs.get(trained) or side.probe is None:
        return side
    sha256 = digest.of_file(path)
    changed = replace(one, layers={**one.layers, "submission": sha256})
    return replace(side, evidence=changed, submission=_submission(path, sha256))


def _bare(
    one: Evidence, place: RunPaths, records: Sequence[Evidence]
) -> NDArray[np.float32] | None:
    """Return the probe's embeddings of the bare base, asked the same tokens."""
    wanted = [one.layers.get(name) for name in ("base", "tokens", "precision")]
    for record in _bases(records, one):
        if [record.layers.get(name) for name in ("base", "tokens", "precision")] == wanted:
            queries = record.facts.get("vectors", {}).get("queries", "")
            return _vectors(place.evidence(ledger.id_of(record)) / "probe.npy", queries)
    return None


def _bases(records: Sequence[Evidence], one: Evidence) -> Iterator[Evidence]:
    return (
        record
        for record in records
        if (record.run, record.kind, record.label) == (one.run, "cv", "base")
    )


def _unseen(place: RunPaths, one: Evidence) -> frozenset[Any]:
    for path in sorted((place.prepare / "splits").glob("*.json")):
        split = Split.read(path)
        if split.digest() == one.layers.get("split"):
            return split.unseen
    return frozenset()
