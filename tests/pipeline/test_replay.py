"""A score that is computed again has the rows, the adapter and the settings of its record."""

import shutil
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.cli import main
from parity.competition.query import unit_of
from parity.competition.scoring.row_metrics import metric_of
from parity.pipeline import dataset, evaluation, evidence_lookup, replay
from parity.pipeline.command_cores import attribute
from parity.pipeline.evaluations import SCORES
from parity.pipeline.replay import Replay
from parity.run import files, ledger
from parity.run.errors import StaleInput
from parity.run.experiment import Run

SECTIONS: dict[str, Any] = {
    "evaluations.wrong.prompt": {"query": "{wrong}"},
    "evaluations.other-split.split": {"seed": 1},
}
OTHER = "other/round-0/best"


@pytest.fixture
def scored(predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch) -> RunFixture:
    """Return the predicted run, in which few clean rows are enough for a score."""
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    predicted_run.write_config(**SECTIONS)
    return predicted_run


@pytest.fixture
def clean(scored: RunFixture) -> RunFixture:
    """Return the run after it has scored an adapter of another split on its clean rows."""
    scored.write_config("other", split={"seed": 1}, training={"epochs": 1})
    scored.run_stages("prepare", "mine", "train", name="other")
    assert main(["eval", "small.toml", "--model", OTHER]) == 0
    return scored


def found(run: Run, word: str) -> EvidenceRecord:
    records = ledger.read(run.workspace.ledger)
    return evidence_lookup.find_record(word, run.workspace.data, records, run)


def replayed(run: Run, word: str) -> tuple[EvidenceRecord, Replay]:
    """Return a record, and its replay on all of its rows."""
    record = found(run, word)
    assert record.valid is not None
    units = frozenset(map(unit_of, record.valid.query_ids))
    return record, replay.load_replay(record, run.workspace.data, units)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ([], "best"),
        (["--model", "epoch-1", "--as", "wrong"], "epoch-1@wrong"),
        (["--model", "base", "--as", "wrong"], "base@wrong"),
        (["--as", "other-split"], "best@other-split"),
        (["--model", "downloaded"], ""),
    ],
)
def test_a_replayed_evaluation_has_the_score_of_each_row(
    scored: RunFixture, flags: list[str], word: str
) -> None:
    run = scored.open()
    if not word:  # an adapter that is only in a folder
        run.workspace.epoch(0, 1).rename("downloaded")
    assert main(["eval", "small.toml", *flags]) == 0
    word = word or ledger.id_of(ledger.read(run.workspace.ledger)[-1])
    record, state = replayed(run, word)
    values = replay.score(state, metric_of(record.evidence.score))
    assert values == evidence_lookup.row_precisions(record, run.workspace.data)


def test_a_score_on_clean_rows_is_replayed_on_these_with_their_unseen_rows(
    clean: RunFixture,
) -> None:
    run = clean.open()
    record, state = replayed(run, OTHER)
    split = dataset.load(run.config, run.workspace).split
    scores = files.read_json(run.workspace.evaluation(0, OTHER) / SCORES)
    assert scores["rows"] < scores["total"]
    assert len(state.data.valid) == scores["rows"]
    assert sorted(state.data.split.unseen) == scores["unseen"]
    assert state.data.split.unseen != {row for row in split.unseen if row in state.data.valid_qrels}
    assert state.adapter == clean.open(name="other").workspace.adapter(0)
    metric = metric_of(record.evidence.score)
    values = replay.score(state, metric)
    assert values == evidence_lookup.row_precisions(record, run.workspace.data)
    records = ledger.read(run.workspace.ledger)
    artifacts = evidence_lookup.load_artifacts(
        record, found(run, "best"), run.workspace.data, records, with_text=False
    )
    assert sorted(artifacts.unseen) == scores["unseen"]


def test_a_score_on_clean_rows_is_attributed(
    clean: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    result = attribute.attribute(["best", OTHER], clean.open())["attribution"]
    steps = result["steps"]
    assert [step["layer"] for step in steps] == ["rows", "adapter", "remainder"]
    assert sum(step["part"]["value"] for step in steps) == result["gap"]
    assert steps[-1]["part"]["value"] == 0
    assert "nothing was scored again" not in capsys.readouterr().out


def test_the_unseen_share_of_clean_rows_is_that_of_the_adapter(clean: RunFixture) -> None:
    result = attribute.attribute([OTHER, "0.3"], clean.open())["attribution"]
    parts = {step["layer"]: step["part"]["value"] for step in result["steps"]}
    score = found(clean.open(), OTHER).evidence.score
    expected = score["projection@25"]["value"] - score["all"]["map@25"]["value"]
    assert parts["unseen share"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("lost", ["adapter", "data", "settings"])
def test_what_has_changed_since_is_named(scored: RunFixture, lost: str) -> None:
    run = scored.open()
    record = found(run, "best")
    if lost == "adapter":
        folder = run.workspace.stage("train", 0)
        for path in (run.workspace.adapter(0), *folder.glob("epoch-?")):
            shutil.rmtree(path)
    elif lost == "data":
        rows = run_fixture.read_rows(scored.source / "train.csv")[1:]
        copy = shutil.copytree(scored.source, scored.folder / "changed")
        run_fixture.write_rows(copy / "train.csv", rows)
        scored.write_config(data={"source": str(copy)}, **SECTIONS)
        scored.run_stages("prepare")
    else:
        (run.workspace.evidence(record.id) / "config.json").unlink()
    expected = {
        "adapter": "adapter .* of small is missing in .*round-0/train",
        "data": "the data or the split of small/round-0/cv/best has changed since",
        "settings": "no settings are stored with the record small/round-0/cv/best",
    }
    with pytest.raises(StaleInput, match=expected[lost]):
        replay.load_replay(record, run.workspace.data, frozenset())
