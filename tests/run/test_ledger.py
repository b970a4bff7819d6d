"""The ledger is append-only; several processes can write to it at once."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity.run import ledger
from parity.run.errors import BadData
from parity.run.layers import IDENTITY, RECORDED
from parity.run.ledger import SCHEMA, Evidence, ForecastRecord, KaggleStep

RECORD = Evidence(
    run="first",
    round=1,
    label="epoch-2",
    kind="cv",
    status="clean",
    layers=dict.fromkeys(RECORDED, "") | {"data": "aa", "ranking": "bb"},
    score={"map": 0.1 + 0.2, "rows": 12, "interval": [0.25, 0.5]},
    made="2026-11-24T10:00:00Z",
)
STEP = KaggleStep(
    run="first",
    round=1,
    step="push",
    key="cc",
    refs={"kernel": "ann/first-kernel", "version": 3, "sources": ["ann/first-bundle/2"]},
    made="2026-11-24T11:00:00+00:00",
)
FORECAST = ForecastRecord(
    run="first",
    round=1,
    label="best",
    board="public",
    layers={"adapter": "aa", "base": "bb", "template": "cc"},
    key="dd",
    forecast={"median": 0.3, "wide": [0.25, 0.35]},
    facts={"rows": [300, 400]},
    made="2026-11-24T09:00:00+00:00",
)

texts = st.text(st.characters(exclude_categories=["Cs"]))
layers = st.fixed_dictionaries(dict.fromkeys(RECORDED, texts))
scores = st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False) | st.integers())
records = st.builds(
    Evidence,
    run=texts,
    round=st.integers(0, 9),
    label=texts,
    kind=st.sampled_from(get_args(ledger.Kind)),
    status=st.sampled_from(("clean", "contaminated", "unscored")),
    layers=layers,
    score=scores,
    made=texts,
)
steps = st.builds(
    KaggleStep,
    run=st.sampled_from(("one", "two")),
    round=st.integers(0, 1),
    step=st.sampled_from(("publish", "push", "follow", "submit")),
    key=texts,
    refs=st.dictionaries(texts, texts | st.integers() | st.lists(texts), max_size=2),
    made=texts,
)

in_one_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)


def test_a_missing_ledger_has_no_evidence_and_no_steps(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "ledger.jsonl") == []
    assert ledger.read_steps(tmp_path / "ledger.jsonl") == []


@in_one_folder
@given(st.lists(records, max_size=3))
def test_records_are_read_oldest_first(tmp_path: Path, added: list[Evidence]) -> None:
    path = tmp_path / "data" / "ledger.jsonl"
    before = ledger.read(path)
    for record in added:
        ledger.append(path, record)
    assert ledger.read(path) == [*before, *added]


def test_appending_keeps_earlier_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, RECORD)
    before = path.read_bytes()
    ledger.append(path, replace(RECORD, label="epoch-3"))
    assert path.read_bytes().startswith(before)


def test_a_line_has_every_layer_and_unknown_ones_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, replace(RECORD, layers={"ranking": "bb"}))
    (record,) = ledger.read(path)
    assert record.layers == {name: "bb" if name == "ranking" else "" for name in RECORDED}


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(BadData, match="evidence of first: unknown layer 'weather'"):
        replace(RECORD, layers={"data": "aa", "weather": "fine"})


def test_evidence_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, RECORD)
    newer = {"schema": SCHEMA + 1, "extra": "unknown key"}
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(newer) + "\n")
    with pytest.raises(BadData, match=f"of schema {SCHEMA + 1}; this version reads {SCHEMA}"):
        ledger.read(path)


def test_a_truncated_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        ledger.append(path, RECORD)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadData, match=r"ledger\.jsonl, line 2: not JSON"):
        ledger.read(path)


def test_a_record_is_read_from_its_text(tmp_path: Path) -> None:
    ledger.append(tmp_path / "ledger.jsonl", RECORD)
    assert ledger.from_json((tmp_path / "ledger.jsonl").read_text(encoding="utf-8")) == RECORD


def test_two_concurrent_processes_lose_no_line(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from parity.run import layers, ledger\n"
        "sys.stdin.read()\n"  # both start when the test closes their input
        "for number in range(200):\n"
        "    digests = dict.fromkeys(layers.RECORDED, 'f' * 64)\n"
        "    score = {'number': number}\n"
        "    record = ledger.Evidence(sys.argv[2], 0, 'base', 'cv', 'clean', digests, score)\n"
        "    ledger.append(Path(sys.argv[1]), record)\n"
    )
    path = tmp_path / "ledger.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", program, path, run], stdin=subprocess.PIPE)
        for run in ("one", "two")
    ]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    rows = [(record.run, record.score["number"]) for record in ledger.read(path)]
    assert path.read_bytes().count(b"\n") == len(rows) == 400
    for run in ("one", "two"):
        assert [number for name, number in rows if name == run] == list(range(200))


@in_one_folder
@given(st.lists(records | steps, max_size=5))
def test_steps_and_evidence_share_a_file_and_are_read_apart(
    tmp_path: Path, added: list[Evidence | KaggleStep]
) -> None:
    path = tmp_path / "data" / "ledger.jsonl"
    evidence, appended = ledger.read(path), ledger.read_steps(path)
    for record in added:
        if isinstance(record, Evidence):
            ledger.append(path, record)
            evidence.append(record)
            continue
        ledger.append_step(path, record)
        if replace(record, made="") not in [replace(step, made="") for step in appended]:
            appended.append(record)
    assert ledger.read(path) == evidence
    assert ledger.read_steps(path) == appended


def test_a_repeated_step_is_recorded_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append_step(path, STEP)
    ledger.append(path, RECORD)
    before = path.read_bytes()
    for step in (STEP, replace(STEP, made="2027-01-01T00:00:00+00:00")):
        ledger.append_step(path, step)
        assert path.read_bytes() == before
    assert ledger.read_steps(path) == [STEP]


def test_a_tuple_and_a_list_make_the_same_step(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for sources in (("a", "b"), ["a", "b"], ("a", "b")):
        ledger.append_step(path, replace(STEP, refs={"sources": sources}))
    assert ledger.read_steps(path) == [replace(STEP, refs={"sources": ["a", "b"]})]


@pytest.mark.parametrize(
    "change",
    [
        {"run": "second"},
        {"round": 0},
        {"step": "publish"},
        {"key": "dd"},
        {"refs": {**STEP.refs, "version": 4}},
        {"refs": {}},
    ],
    ids=str,
)
def test_a_change_of_any_other_field_makes_another_step(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "ledger.jsonl"
    other = replace(STEP, **change)
    for step in (STEP, other, STEP):
        ledger.append_step(path, step)
    assert ledger.read_steps(path) == [STEP, other]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": SCHEMA + 1},
        {"schema": None},
        {"schema": "1"},
        {"extra": "key"},
        {"key": ...},
        {"schema": ...},
    ],
    ids=str,
)
def test_a_step_of_another_schema_is_refused_and_evidence_still_read(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, RECORD)
    row = {key: value for key, value in {**asdict(STEP), **change}.items() if value is not ...}
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(row) + "\n")
    with pytest.raises(BadData, match=f"a step of another schema; this version reads {SCHEMA}"):
        ledger.read_steps(path)
    assert ledger.read(path) == [RECORD]


def test_a_record_s_time_is_utc_to_the_second() -> None:
    time = datetime.fromisoformat(ledger.utc_now())
    assert time.utcoffset() == timedelta()
    assert time.microsecond == 0
    assert abs(datetime.now(tz=UTC) - time) < timedelta(minutes=1)


def test_a_forecast_shares_the_file_with_evidence_and_steps(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, RECORD)
    assert ledger.append_forecast(path, FORECAST)
    ledger.append_step(path, STEP)
    assert ledger.read(path) == [RECORD]
    assert ledger.read_steps(path) == [STEP]
    assert ledger.read_forecasts(path) == [FORECAST]
    assert ledger.read_forecasts(tmp_path / "none.jsonl") == []


def test_a_repeated_forecast_is_recorded_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert ledger.append_forecast(path, FORECAST)
    assert not ledger.append_forecast(path, replace(FORECAST, made="2026-11-25T09:00:00+00:00"))
    assert ledger.append_forecast(path, replace(FORECAST, key="ee"))
    assert [forecast.key for forecast in ledger.read_forecasts(path)] == ["dd", "ee"]


def test_a_version_without_forecasts_refuses_one_by_its_schema(tmp_path: Path) -> None:
    """Readers of schema 2 take any other line for evidence, so a forecast has a newer schema."""
    row = asdict(FORECAST)
    with pytest.raises(BadData, match=f"evidence of schema {ledger.FORECASTS}; this version"):
        ledger.parse_record(row, "ledger")


@pytest.mark.parametrize("change", [{"schema": 4}, {"more": 1}], ids=str)
def test_a_forecast_of_another_schema_is_refused_and_evidence_still_read(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, RECORD)
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(asdict(FORECAST) | change) + "\n")
    with pytest.raises(BadData, match="a forecast of another schema; this version reads 3"):
        ledger.read_forecasts(path)
    assert ledger.read(path) == [RECORD]


@pytest.mark.parametrize("name", IDENTITY)
def test_records_of_the_same_model_share_adapter_base_and_template(name: str) -> None:
    layers = dict.fromkeys(IDENTITY, "aa")
    assert ledger.is_same_model({**layers, "ranking": "bb"}, layers)
    assert not ledger.is_same_model({**layers, name: "bb"}, layers)
