"""Outputs of a kernel run next to the submission: `run_report.json` and the probe's ranking."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.competition import ranking as rankings
from parity.competition.base import CompetitionData
from parity.competition.corpus import Corpus
from parity.competition.few_shot import Example
from parity.competition.query import Query
from parity.competition.ranking import Ranking
from parity.deploy.bundle.bundle import Bundle
from parity.run import digest, environment, files, ledger
from parity.run.errors import BadData, Mismatch
from parity.run.layers import PINNED, differences
from parity.run.ledger import Evidence

NAME = "run_report.json"
SCHEMA = 1
_ROWS = "probe.jsonl"


def probe(shipped: Bundle, queries: Sequence[Query]) -> list[Query]:
    """Return the mounted competition's queries for the probe ids in the bundle.

    Raises:
        BadData: an id is not a labeled row.
    """
    by_id = {query.query_id: query for query in queries}
    ids = [row["query_id"] for row in files.read_jsonl(shipped.folder / _ROWS)]
    if missing := [id_ for id_ in ids if id_ not in by_id]:
        raise BadData(f"probe: {missing[0]} is not a labeled row of the mounted competition")
    return [by_id[id_] for id_ in ids]


def data(read: CompetitionData) -> str:
    """Return the digest of the competition's files, the layer `data`."""
    return digest.of_value(read.files)


def mounted(corpus: Corpus, pool: Sequence[Example]) -> dict[str, str]:
    """Return the pinned layers of texts that the bundle names only by id.

    The corpus layer covers every passage; the pool layer all parts of a few-shot example.
    """
    shown = [[asdict(example.query), example.position, example.passage] for example in pool]
    return {"corpus": corpus.digest(), "pool": digest.of_value(shown)}


def prove(shipped: Bundle, layers: Mapping[str, str], texts: Sequence[str]) -> None:
    """Check that the probe's prompts and all pinned layers equal those of the bundle.

    Args:
        shipped: the bundle.
        layers: measured layers, including those of `mounted`.
        texts: rendered prompts of the probe, in the bundle's order.

    Raises:
        Mismatch: a layer differs; the message has the first one, or the first row of texts.
    """
    before = PINNED[: PINNED.index("texts")]
    if not differences(layers, shipped.layers, before, with_unknown=True):
        rows = files.read_jsonl(shipped.folder / _ROWS)
        for row, text in zip(rows, texts, strict=True):
            if row.get("sha256", sha256 := digest.of_text(text)) != sha256:
                raise Mismatch(
                    f"probe {row['query_id']}: its prompt here is not the one that the adapter of "
                    f"{shipped.run} was trained with; the texts of the labeled rows differ"
                )
    shipped.check(layers)


def write(
    folder: Path,
    shipped: Bundle,
    layers: Mapping[str, str],
    *,
    ranking: Ranking,
    vectors: NDArray[np.float32],
    facts: Mapping[str, Any],
) -> None:
    """Write the probe's ranking and embeddings, then the report.

    Args:
        folder: the kernel's working folder.
        shipped: the bundle that ran.
        layers: measured layers; split and lineage come from the bundle.
        ranking: ranking of the probe.
        vectors: embeddings of the probe, (n, d) float32.
        facts: further facts: image, GPUs, seconds by phase, bytes of memory; under `seen` the
            evidence facts of `fingerprint.environment_fingerprint`.
    """
    rankings.write(folder / "probe_ranking.jsonl", ranking)
    files.write_array(folder / "probe.npy", vectors)
    carried = {name: shipped.layers[name] for name in ("split", "lineage")}
    record_facts = dict(facts)
    evidence = Evidence(
        run=shipped.run,
        round=shipped.round,
        label="test",
        kind="kernel",
        status="unscored",
        layers={**layers, **carried},
        facts={**record_facts.pop("seen", {}), "bundle": shipped.digest},
        made=ledger.utc_now(),
    )
    record = {
        **record_facts,
        "schema": SCHEMA,
        "bundle": shipped.digest,
        "base": layers.get("base", ""),
        "environment": environment.describe(),
        "evidence": asdict(evidence),
    }
    files.write_json(folder / NAME, record)


def read(folder: Path) -> tuple[Evidence, dict[str, Any]]:
    """Return the evidence and the complete report that a kernel wrote to `folder`.

    Raises:
        BadData: the report is missing or has a newer schema.
    """
    path = folder / NAME
    if not path.is_file():
        raise BadData(f"{path}: the kernel left no report")
    return read_file(path)


def read_file(path: Path) -> tuple[Evidence, dict[str, Any]]:
    """Return the evidence and the complete report of a file, which may be renamed.

    Raises:
        BadData: the file is not a report, or has a newer schema.
    """
    record: Any = files.read_json(path)
    if not isinstance(record, dict) or "evidence" not in record:
        raise BadData(f"{path}: not a kernel's report; expected its {NAME}")
    if record.get("schema", 0) > SCHEMA:
        raise BadData(f"{path}: report has schema {record['schema']}; this version reads {SCHEMA}")
    return ledger.parse_record(record["evidence"], str(path)), record
