"""The ledger: an append-only file with one evidence record for each measurement.

A record holds digests, ids and scores, never a text. Its layers are those of `run.layers`; the
first layer that differs between two records is the cause. Unknown fields are empty.
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
from parity.run.layers import IDENTITY, RECORDED

SCHEMA = 2
"""Schema of new records; 2 added `facts`. Older records are read as they are."""

FORECASTS = 3
"""Schema of a forecast; versions without forecasts refuse the line instead of misreading it."""

_SINCE_2 = {"facts"}
"""Keys that records of schema 1 do not have."""

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
        label: what was scored: `base`, `best`, `epoch-4@bnb4` or another evaluation, or `test`.
        kind: where it was measured.
        status: `clean`, `contaminated` (left out of tables and charts) or `unscored`.
        layers: layer → digest or value, empty if unknown; keys are `layers.RECORDED`.
        score: the scores as plain values, empty if there are none.
        facts: details that a digest cannot show (versions, lengths, a digest of each probe row),
            from `deploy/kernel/fingerprint.py`; empty in records of schema 1.
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
        """Refuse layers that are not in `layers.RECORDED`."""
        if unknown := sorted(set(self.layers) - set(RECORDED)):
            raise BadData(f"evidence of {self.run}: unknown layer {unknown[0]!r}")


@dataclass(frozen=True, slots=True)
class KaggleStep:
    """An action on Kaggle, and Kaggle's references to its result.

    Attributes:
        run: the run's name.
        round: its round.
        step: `publish`, `push`, `follow` or `submit`.
        key: digest or key of its input; joins it to the evidence.
        refs: Kaggle's names and versions of the result.
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
    """A forecast of a leaderboard score, recorded before the score.

    Attributes:
        run: the run's name.
        round: its round.
        label: what was forecast, as in `Evidence`.
        board: leaderboard, `public` or `private`.
        layers: layers of the CV behind it; `layers.IDENTITY` joins it to the score.
        key: digest of all its inputs.
        forecast: `analysis.forecast.forecast.Forecast` as plain values.
        facts: inputs as plain values: the CV's id and means, p's prior, number of rows, pairs.
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


def utc_now() -> str:
    """Return the current time in UTC as ISO 8601, to the second."""
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


def append(path: Path, evidence: Evidence) -> None:
    """Append one line to the ledger in a single write."""
    _append_row(path, _row(evidence))


def append_step(path: Path, step: KaggleStep) -> None:
    """Append a step to the ledger in a single write, unless the ledger has it already."""
    if _content(step) not in map(_content, read_steps(path)):
        _append_row(path, asdict(step))


def append_forecast(path: Path, forecast: ForecastRecord) -> bool:
    """Append a forecast in a single write, unless the ledger has it; return whether it is new."""
    is_new = _untimed(forecast) not in map(_untimed, read_forecasts(path))
    if is_new:
        _append_row(path, asdict(forecast))
    return is_new


def read(path: Path) -> list[Evidence]:
    """Return all records, oldest first; an empty list if there is no ledger.

    Raises:
        BadData: a record has a newer schema.
    """
    return [parse_record(row, str(path)) for row in _rows(path) if not _is_other(row)]


def read_steps(path: Path) -> list[KaggleStep]:
    """Return all steps on Kaggle, oldest first; an empty list if there is no ledger.

    Raises:
        BadData: a step has another schema.
    """
    read_steps = []
    for row in filter(_is_step, _rows(path)):
        is_known = type(row.get("schema")) is int and row["schema"] <= SCHEMA
        if not is_known or set(row) != set(KaggleStep.__dataclass_fields__):
            raise BadData(f"{path}: a step of another schema; this version reads {SCHEMA}")
        read_steps.append(KaggleStep(**row))
    return read_steps


def read_forecasts(path: Path) -> list[ForecastRecord]:
    """Return all forecasts, oldest first; an empty list if there is no ledger.

    Raises:
        BadData: a forecast has another schema.
    """
    read_forecasts = []
    for row in filter(_is_forecast, _rows(path)):
        if row.get("schema") != FORECASTS or set(row) != set(ForecastRecord.__dataclass_fields__):
            raise BadData(f"{path}: a forecast of another schema; this version reads {FORECASTS}")
        read_forecasts.append(ForecastRecord(**row))
    return read_forecasts


def is_same_model(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """Return whether two records have the same base, adapter and template."""
    return identity(a) == identity(b)


def identity(layers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the digests of base, adapter and template, which identify a model."""
    return tuple(layers.get(name, "") for name in IDENTITY)


def from_json(text: str) -> Evidence:
    """Return the record in `text`, a JSON object.

    Raises:
        BadData: it is not a record of a schema that this version reads.
    """
    return parse_record(json.loads(text), "evidence")


def id_of(evidence: Evidence) -> str:
    """Return the id of a record: the digest of all its fields, its time included."""
    return digest.of_value(_row(evidence))


def parse_record(row: Any, origin: str) -> Evidence:
    """Return a row of plain values as evidence; `origin` names the row in errors.

    Raises:
        BadData: it is not a record of a schema that this version reads.
    """
    schema = row.get("schema") if isinstance(row, dict) else None
    if not isinstance(schema, int):
        raise BadData(f"{origin}: a line is not an evidence record")
    if schema > SCHEMA:
        raise BadData(f"{origin}: evidence of schema {schema}; this version reads {SCHEMA}")
    keys = set(Evidence.__dataclass_fields__) - (_SINCE_2 if schema < SCHEMA else set())
    if unexpected := sorted(set(row) ^ keys):
        raise BadData(f"{origin}: evidence with a missing or unknown key, {unexpected[0]!r}")
    return Evidence(**row)


def _row(evidence: Evidence) -> dict[str, Any]:
    row = asdict(evidence)
    row["layers"] = {name: evidence.layers.get(name, "") for name in RECORDED}
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


def _untimed(forecast: ForecastRecord) -> str:
    """Return a forecast as the file holds it, without its time."""
    return canonical(asdict(replace(forecast, made="")))


def _content(step: KaggleStep) -> str:
    """Return a step as the file holds it, without its time and schema."""
    return canonical(asdict(replace(step, made="", schema=SCHEMA)))


def _append_row(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (canonical(row) + "\n").encode("utf-8")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
