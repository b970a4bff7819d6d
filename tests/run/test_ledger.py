"""Evidence is only ever added to, a whole line at a time, whoever else is writing."""

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
from parity.run.ledger import LAYERS, SCHEMA, Evidence, ForecastRecord, KaggleStep

RECORD = Evidence(
    run="first",
    round=1,
    label="epoch-2",
    kind="cv",
    status="clean",
    layers=dict.fromkeys(LAYERS, "") | {"data": "aa", "ranking": "bb"},
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
FORETOLD = ForecastRecord(
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
layers = st.fixed_dictionaries(dict.fromkeys(LAYERS, texts))
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


def test_where_there_is_no_ledger_there_is_no_evidence_and_no_step(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "ledger.jsonl") == []
    assert ledger.steps(tmp_path / "ledger.jsonl") == []


@in_one_folder
@given(st.lists(records, max_size=3))
def test_records_come_back_oldest_first(tmp_path: Path, added: list[Evidence]) -> None:
    path = tmp_path / "data" / "ledger.jsonl"
    before = ledger.read(path)
    for record in added:
        ledger.append(path, record)
    assert ledger.read(path) == [*before, *added]


def test_adding_leaves_the_bytes_before_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, RECORD)
    before = path.read_bytes()
    ledger.append(path, replace(RECORD, label="epoch-3"))
    assert path.read_bytes().startswith(before)


def test_a_line_has_every_layer_and_those_unknown_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, replace(RECORD, layers={"ranking": "bb"}))
    (record,) = ledger.read(path)
    assert record.layers == {name: "bb" if name == "ranking" else "" for name in LAYERS}


def test_a_layer_nobody_knows_is_refused() -> None:
    with pytest.raises(BadData, match="evidence of first: unknown layer 'weather'"):
        replace(RECORD, layers={"data": "aa", "weather": "fine"})


def test_evidence_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, RECORD)
    newer = {"schema": SCHEMA + 1, "what": "nobody knows yet"}
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(newer) + "\n")
    with pytest.raises(BadData, match=f"of schema {SCHEMA + 1}; this version reads {SCHEMA}"):
        ledger.read(path)


def test_a_line_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        ledger.append(path, RECORD)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadData, match=r"ledger\.jsonl, line 2: not JSON"):
        ledger.read(path)


def test_one_record_is_read_from_its_text(tmp_path: Path) -> None:
    ledger.append(tmp_path / "ledger.jsonl", RECORD)
    assert ledger.from_json((tmp_path / "ledger.jsonl").read_text(encoding="utf-8")) == RECORD


def test_two_processes_at_once_lose_no_line_of_each_other(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from parity.run import ledger\n"
        "sys.stdin.read()\n"  # both begin when the test says so
        "for number in range(200):\n"
        "    layers = dict.fromkeys(ledger.LAYERS, 'f' * 64)\n"
        "    score = {'number': number}\n"
        "    record = ledger.Evidence(sys.argv[2], 0, 'base', 'cv', 'clean', layers, score)\n"
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
    found = [(record.run, record.score["number"]) for record in ledger.read(path)]
    assert path.read_bytes().count(b"\n") == len(found) == 400
    for run in ("one", "two"):
        assert [number for name, number in found if name == run] == list(range(200))


@in_one_folder
@given(st.lists(records | steps, max_size=5))
def test_steps_and_evidence_share_one_file_and_never_meet(
    tmp_path: Path, added: list[Evidence | KaggleStep]
) -> None:
    path = tmp_path / "data" / "ledger.jsonl"
    evidence, taken = ledger.read(path), ledger.steps(path)
    for record in added:
        if isinstance(record, Evidence):
            ledger.append(path, record)
            evidence.append(record)
            continue
        ledger.append_step(path, record)
        if replace(record, made="") not in [replace(one, made="") for one in taken]:
            taken.append(record)
    assert ledger.read(path) == evidence
    assert ledger.steps(path) == taken


def test_a_step_taken_again_is_no_second_record(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append_step(path, STEP)
    ledger.append(path, RECORD)
    before = path.read_bytes()
    for again in (STEP, replace(STEP, made="2027-01-01T00:00:00+00:00")):
        ledger.append_step(path, again)
        assert path.read_bytes() == before
    assert ledger.steps(path) == [STEP]


def test_values_that_the_file_writes_alike_are_alike(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for sources in (("a", "b"), ["a", "b"], ("a", "b")):
        ledger.append_step(path, replace(STEP, refs={"sources": sources}))
    assert ledger.steps(path) == [replace(STEP, refs={"sources": ["a", "b"]})]


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
def test_whatever_else_differs_is_another_step(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "ledger.jsonl"
    other = replace(STEP, **change)
    for one in (STEP, other, STEP):
        ledger.append_step(path, one)
    assert ledger.steps(path) == [STEP, other]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": SCHEMA + 1},
        {"schema": None},
        {"schema": "1"},
        {"where": "there"},
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
        ledger.steps(path)
    assert ledger.read(path) == [RECORD]


def test_a_record_s_time_is_utc_to_the_second() -> None:
    made = datetime.fromisoformat(ledger.now())
    assert made.utcoffset() == timedelta()
    assert made.microsecond == 0
    assert abs(datetime.now(tz=UTC) - made) < timedelta(minutes=1)


def test_a_forecast_stands_beside_evidence_and_steps(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, RECORD)
    assert ledger.append_forecast(path, FORETOLD)
    ledger.append_step(path, STEP)
    assert ledger.read(path) == [RECORD]
    assert ledger.steps(path) == [STEP]
    assert ledger.forecasts(path) == [FORETOLD]
    assert ledger.forecasts(tmp_path / "none.jsonl") == []


def test_a_forecast_made_again_is_no_second_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert ledger.append_forecast(path, FORETOLD)
    assert not ledger.append_forecast(path, replace(FORETOLD, made="2026-11-25T09:00:00+00:00"))
    assert ledger.append_forecast(path, replace(FORETOLD, key="ee"))
    assert [forecast.key for forecast in ledger.forecasts(path)] == ["dd", "ee"]


def test_an_older_version_refuses_a_forecast_with_a_word(tmp_path: Path) -> None:
    """Its schema is newer than the one whose readers took every other line for evidence."""
    row = asdict(FORETOLD)
    with pytest.raises(BadData, match=f"evidence of schema {ledger.FORECASTS}; this version"):
        ledger.record(row, "ledger")


@pytest.mark.parametrize("change", [{"schema": 4}, {"more": 1}], ids=str)
def test_a_forecast_of_another_schema_is_refused_and_evidence_still_read(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, RECORD)
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(asdict(FORETOLD) | change) + "\n")
    with pytest.raises(BadData, match="a forecast of another schema; this version reads 3"):
        ledger.forecasts(path)
    assert ledger.read(path) == [RECORD]


@pytest.mark.parametrize("name", ledger.SAME)
def test_two_are_of_one_thing_by_adapter_base_and_template(name: str) -> None:
    layers = dict.fromkeys(ledger.SAME, "aa")
    assert ledger.same({**layers, "ranking": "bb"}, layers)
    assert not ledger.same({**layers, name: "bb"}, layers)
