"""Evidence: one record of one measurement in one environment; digests, ids and scores only.

The layers stand in the order in which one decides the next, so that the first that differs
between two records is the cause. Append-only; a field that is not known is empty.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from parity.run import digest, files
from parity.run.digest import canonical
from parity.run.errors import BadData

SCHEMA = 2
"""Of records written now: 2 added `facts`. Whatever is older is read as it is."""

LAYERS = (
    "data",
    "split",
    "lineage",
    "examples",
    "template",
    "texts",
    "tokens",
    "base",
    "adapter",
    "precision",
    "device",
    "packages",
    "embeddings",
    "ranking",
    "submission",
)
"""Names of the digests of an evidence record, in causal order; the score follows them."""

FORECASTS = 3
"""Schema of a forecast's row: a version that knows none refuses the line with a word."""

SAME = ("adapter", "base", "template")
"""Layers by which a score, its CV and its forecast are of one thing."""

_SINCE_2 = {"facts"}
"""Keys that records of schema 1 lack."""

StepName = Literal["publish", "push", "follow", "submit"]
Kind = Literal["cv", "rehearsal", "image", "kernel", "public", "private"]
BOARDS: tuple[Kind, ...] = ("public", "private")
"""Kinds that are a leaderboard's score."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measurement.

    Attributes:
        run: the run's name.
        round: its round.
        label: what was scored: `adapter`, `base`, `epoch-N`, `bm25`, `tfidf`, `test`.
        kind: where it was measured.
        status: `clean` or `contaminated` (kept out of tables and charts) or `unscored`.
        layers: layer → digest or value, empty where unknown; keys are `LAYERS`.
        score: the scores as plain values, empty where there is none.
        facts: what the digests hide (versions, lengths, a digest for each row of the probe), as
            `deploy/kernel/fingerprint.py` writes it; empty in records of schema 1.
        made: ISO date and time, UTC.
        schema: version of this record.
    """

    run: str
    round: int
    label: str
    kind: Kind
    status: Literal["clean", "contaminated", "unscored"]
    layers: dict[str, str]
    score: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    made: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse layers that are not in `LAYERS`."""
        if odd := sorted(set(self.layers) - set(LAYERS)):
            raise BadData(f"evidence of {self.run}: unknown layer {odd[0]!r}")


@dataclass(frozen=True, slots=True)
class KaggleStep:
    """Something that was done on Kaggle, and what Kaggle calls it.

    Attributes:
        run: the run's name.
        round: its round.
        step: `publish`, `push`, `follow` or `submit`.
        key: digest or key of what it was done with; joins it to the evidence.
        refs: what Kaggle calls it, versions and all.
        made: ISO date and time, UTC.
        schema: version of this record.
    """

    run: str
    round: int
    step: StepName
    key: str
    refs: dict[str, Any]
    made: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class ForecastRecord:
    """A leaderboard's score as it was forecast before it was known.

    Attributes:
        run: the run's name.
        round: its round.
        label: what was forecast, as in `Evidence`.
        board: which leaderboard: `public` or `private`.
        layers: of the CV that it follows from; `SAME` joins it to the score.
        key: digest of everything it was computed from.
        forecast: `reconcile.forecast.Forecast` as plain values.
        facts: what went in, as plain values: the CV's id and means, p's prior, the size, the pairs.
        made: ISO date and time, UTC.
        schema: version of this record.
    """

    run: str
    round: int
    label: str
    board: Kind
    layers: dict[str, str]
    key: str
    forecast: dict[str, Any]
    facts: dict[str, Any]
    made: str = ""
    schema: int = FORECASTS


def now() -> str:
    """Return the time as ISO, UTC, whole seconds: a record's `made`."""
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


def append(path: Path, evidence: Evidence) -> None:
    """Add one line to the ledger, in one write."""
    _add(path, _row(evidence))


def append_step(path: Path, step: KaggleStep) -> None:
    """Add a step to the ledger, in one write, unless it stands there already."""
    known = [_content(step) for step in steps(path)]
    if _content(step) not in known:
        _add(path, asdict(step))


def append_forecast(path: Path, made: ForecastRecord) -> bool:
    """Add a forecast to the ledger, in one write, unless it stands there; return whether it did."""
    new = all(_said(made) != _said(forecast) for forecast in forecasts(path))
    if new:
        _add(path, asdict(made))
    return new


def read(path: Path) -> list[Evidence]:
    """Return all records, oldest first; an empty list where there is no ledger.

    Raises:
        BadData: a record of a newer schema.
    """
    return [record(row, str(path)) for row in _rows(path) if not _is_other(row)]


def steps(path: Path) -> list[KaggleStep]:
    """Return all steps taken on Kaggle, oldest first; an empty list where there is no ledger.

    Raises:
        BadData: a record of a newer schema.
    """
    found = []
    for row in filter(_is_step, _rows(path)):
        known = type(row.get("schema")) is int and row["schema"] <= SCHEMA
        if not known or set(row) != set(KaggleStep.__dataclass_fields__):
            raise BadData(f"{path}: a step of another schema; this version reads {SCHEMA}")
        found.append(KaggleStep(**row))
    return found


def forecasts(path: Path) -> list[ForecastRecord]:
    """Return all forecasts, oldest first; an empty list where there is no ledger.

    Raises:
        BadData: a record of another schema.
    """
    found = []
    for row in filter(_is_forecast, _rows(path)):
        if row.get("schema") != FORECASTS or set(row) != set(ForecastRecord.__dataclass_fields__):
            raise BadData(f"{path}: a forecast of another schema; this version reads {FORECASTS}")
        found.append(ForecastRecord(**row))
    return found


def same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether layers are of one adapter, base and template."""
    return identity(one) == identity(other)


def identity(layers: Mapping[str, str]) -> tuple[str, ...]:
    """Return what tells one adapter, base and template from others."""
    return tuple(layers.get(name, "") for name in SAME)


def from_json(text: str) -> Evidence:
    """Return the record in `text`, one JSON object.

    Raises:
        BadData: it is no record of a schema this version reads.
    """
    return record(json.loads(text), "evidence")


def id_of(evidence: Evidence) -> str:
    """Return what a record is called: the digest of all it says, when it was made too."""
    return digest.of_value(_row(evidence))


def record(row: Any, origin: str) -> Evidence:
    """Return a row of plain values as evidence; `origin` names it in an error.

    Raises:
        BadData: it is no record of a schema this version reads.
    """
    schema = row.get("schema") if isinstance(row, dict) else None
    if not isinstance(schema, int):
        raise BadData(f"{origin}: a line is no evidence")
    if schema > SCHEMA:
        raise BadData(f"{origin}: evidence of schema {schema}; this version reads {SCHEMA}")
    known = set(Evidence.__dataclass_fields__) - (_SINCE_2 if schema < SCHEMA else set())
    if odd := sorted(set(row) ^ known):
        raise BadData(f"{origin}: evidence with a missing or unknown key, {odd[0]!r}")
    return Evidence(**row)


def _row(evidence: Evidence) -> dict[str, Any]:
    row = asdict(evidence)
    row["layers"] = {name: evidence.layers.get(name, "") for name in LAYERS}
    for name in _SINCE_2 if evidence.schema < SCHEMA else ():
        del row[name]
    return row


def _rows(path: Path) -> list[Any]:
    return files.read_jsonl(path) if path.is_file() else []


def _is_step(row: Any) -> bool:
    return isinstance(row, dict) and "step" in row


def _is_forecast(row: Any) -> bool:
    return isinstance(row, dict) and "forecast" in row


def _is_other(row: Any) -> bool:
    return _is_step(row) or _is_forecast(row)


def _said(made: ForecastRecord) -> str:
    return canonical(asdict(replace(made, made="")))


def _content(step: KaggleStep) -> str:
    """Return a step as the file holds it, less its time and the version that wrote it."""
    return canonical(asdict(replace(step, made="", schema=SCHEMA)))


def _add(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (canonical(record) + "\n").encode("utf-8")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
