"""What a kernel run leaves beside the submission: `run_report.json`, and the probe's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.competition import ranking as rankings
from parity.competition.eedi.kaggle_files import Competition
from parity.competition.few_shot import Example
from parity.competition.query import Corpus, Query
from parity.competition.ranking import Ranking
from parity.deploy.bundle.bundle import PINNED, Bundle
from parity.run import digest, environment, files, ledger
from parity.run.errors import BadData, Mismatch
from parity.run.ledger import Evidence

NAME = "run_report.json"
SCHEMA = 1
_ROWS = "probe.jsonl"


def probe(shipped: Bundle, queries: Sequence[Query]) -> list[Query]:
    """Return the probe's queries, by the ids in the bundle, from the mounted competition.

    Raises:
        BadData: an id is not among the labeled rows.
    """
    known = {query.query_id: query for query in queries}
    ids = [row["query_id"] for row in files.read_jsonl(shipped.folder / _ROWS)]
    if missing := [id_ for id_ in ids if id_ not in known]:
        raise BadData(f"probe: {missing[0]} is no labeled row of the mounted train.csv")
    return [known[id_] for id_ in ids]


def data(read: Competition) -> str:
    """Return the digest of the competition's files, the layer `data`."""
    return digest.of_value(read.files)


def mounted(corpus: Corpus, pool: Sequence[Example]) -> dict[str, str]:
    """Return the pinned layers of what the bundle names by id alone.

    Of the corpus every sentence; of the few-shot examples all that a prompt can show.
    """
    shown = [[asdict(one.query), one.misconception_id, one.passage] for one in pool]
    return {"corpus": digest.of_value(corpus), "pool": digest.of_value(shown)}


def prove(shipped: Bundle, layers: Mapping[str, str], texts: Sequence[str]) -> None:
    """Check that the probe's prompts and all pinned layers are those of the bundle.

    Args:
        shipped: the bundle.
        layers: what was measured here, `mounted` among it.
        texts: the probe's prompts as rendered here, in the bundle's order.

    Raises:
        Mismatch: names the first layer that differs, and of texts the first row.
    """
    before = PINNED[: PINNED.index("texts")]
    if all(layers[name] == shipped.layers.get(name) for name in before):
        rows = files.read_jsonl(shipped.folder / _ROWS)
        for row, text in zip(rows, texts, strict=True):
            if row.get("sha256", here := digest.of_text(text)) != here:
                raise Mismatch(
                    f"probe {row['query_id']}: its prompt here is not the one that the adapter of "
                    f"{shipped.run} was trained with; the texts of train.csv differ"
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
    """Write the probe's ranking and embeddings, and last the report.

    Args:
        folder: the kernel's working folder.
        shipped: the bundle that ran.
        layers: what was measured here; split and lineage are the bundle's own.
        ranking: the probe's.
        vectors: (n, d) float32, the probe's embeddings.
        facts: what else there is to tell: image, GPUs, seconds by phase, bytes of memory; under
            `seen` the evidence's own, of `witness.facts`.
    """
    rankings.write(folder / "probe_ranking.jsonl", ranking)
    files.write_array(folder / "probe.npy", vectors)
    carried = {name: shipped.layers[name] for name in ("split", "lineage")}
    told = dict(facts)
    evidence = Evidence(
        run=shipped.run,
        round=shipped.round,
        label="test",
        kind="kernel",
        status="unscored",
        layers={**layers, **carried},
        facts={**told.pop("seen", {}), "bundle": shipped.digest},
        made=ledger.now(),
    )
    record = {
        **told,
        "schema": SCHEMA,
        "bundle": shipped.digest,
        "base": layers.get("base", ""),
        "environment": environment.found(),
        "evidence": asdict(evidence),
    }
    files.write_json(folder / NAME, record)


def read(folder: Path) -> tuple[Evidence, dict[str, Any]]:
    """Return the evidence and the whole record that a kernel left in `folder`.

    Raises:
        BadData: there is no report, or one of a newer schema.
    """
    path = folder / NAME
    if not path.is_file():
        raise BadData(f"{path}: the kernel left no report")
    return read_file(path)


def read_file(path: Path) -> tuple[Evidence, dict[str, Any]]:
    """Return what `read` does, of a report that may have been renamed.

    Raises:
        BadData: it is no report, or one of a newer schema.
    """
    record: Any = files.read_json(path)
    if not isinstance(record, dict) or "evidence" not in record:
        raise BadData(f"{path}: no report of a kernel; want its {NAME}")
    if record.get("schema", 0) > SCHEMA:
        raise BadData(f"{path}: a report of schema {record['schema']}; this version reads {SCHEMA}")
    return ledger.record(record["evidence"], str(path)), record
