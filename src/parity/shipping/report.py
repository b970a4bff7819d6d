"""What a kernel run leaves beside the submission: `run_report.json`, and the probe's answers."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.competition import ranking as rankings
from parity.competition.exemplars import Exemplar
from parity.competition.questions import Corpus, Query
from parity.competition.ranking import Ranking
from parity.competition.tables import Competition
from parity.run import digest, environment, files, ledger
from parity.run.errors import BadData
from parity.run.ledger import Evidence
from parity.shipping.bundle import Bundle

NAME = "run_report.json"


def probe(shipped: Bundle, queries: Sequence[Query]) -> list[Query]:
    """Return the probe's queries, by the ids in the bundle, from the mounted competition.

    Raises:
        BadData: an id is not among the labelled rows.
    """
    known = {query.query_id: query for query in queries}
    ids = [row["query_id"] for row in files.read_jsonl(shipped.folder / "probe.jsonl")]
    if missing := [one for one in ids if one not in known]:
        raise BadData(f"probe: {missing[0]} is no labelled row of the mounted train.csv")
    return [known[one] for one in ids]


def data(read: Competition) -> str:
    """Return the digest of the competition's files, the layer `data`."""
    return digest.of_value(read.files)


def mounted(corpus: Corpus, pool: Sequence[Exemplar]) -> dict[str, str]:
    """Return the pinned layers of what the bundle names by id alone.

    Of the corpus every sentence; of the exemplars, the probe's or not, all that a prompt can show.
    """
    shown = [[asdict(one.query), one.misconception_id, one.passage] for one in pool]
    return {"corpus": digest.of_value(corpus), "pool": digest.of_value(shown)}


def write(
    folder: Path,
    shipped: Bundle,
    layers: dict[str, str],
    ranking: Ranking,
    vectors: NDArray[np.float32],
) -> None:
    """Write the report and the probe's ranking and embeddings.

    Args:
        folder: the kernel's working folder.
        shipped: the bundle that ran.
        layers: what was measured here; split and lineage are the bundle's own.
        ranking: the probe's.
        vectors: (n, d) float32, the probe's embeddings.
    """
    rankings.write(folder / "probe_ranking.jsonl", ranking)
    files.write_array(folder / "probe.npy", vectors)
    carried = {name: shipped.layers[name] for name in ("split", "lineage")}
    evidence = Evidence(
        run=shipped.run,
        round=shipped.round,
        label="test",
        kind="kernel",
        status="unscored",
        layers={**layers, **carried},
        made=ledger.now(),
    )
    record = {
        "bundle": shipped.digest,
        "environment": environment.found(),
        "evidence": asdict(evidence),
    }
    files.write_json(folder / NAME, record)


def read(folder: Path) -> tuple[Evidence, dict[str, Any]]:
    """Return the evidence and the whole record that a kernel left in `folder`.

    Raises:
        BadData: there is no report.
    """
    path = folder / NAME
    if not path.is_file():
        raise BadData(f"{path}: the kernel left no report")
    record: dict[str, Any] = files.read_json(path)
    return Evidence(**record["evidence"]), record
