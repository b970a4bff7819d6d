"""Files of a record: only those that were measured with it, and the submission of its own model."""

from typing import Any

import numpy as np
import pytest
from pipeline.run_fixture import RunFixture

from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.cli import main
from parity.pipeline import evidence_artifacts
from parity.run import digest, files, ledger
from parity.run.experiment import Run

SECTIONS: dict[str, Any] = {
    "shipping": {"wheels": []},
    "evaluations.wrong.prompt": {"query": "{wrong}"},
}
FLAGS = {
    "best": [],
    "epoch-1": ["--model", "epoch-1"],
    "best@wrong": ["--as", "wrong"],
    "epoch-1@wrong": ["--model", "epoch-1", "--as", "wrong"],
    "base": ["--model", "base"],
}
"""Label of an evaluation → options that choose its model and settings."""


@pytest.fixture
def scored(predicted_run: RunFixture) -> RunFixture:
    """Return the predicted run with five evaluations."""
    predicted_run.write_config(**SECTIONS)
    for flags in FLAGS.values():
        assert main(["eval", "small.toml", *flags]) == 0
    return predicted_run


def with_artifacts(run: Run, label: str) -> EvidenceRecord:
    """Return the newest score of a label with its files."""
    records = ledger.read(run.workspace.ledger)
    record = [item for item in records if item.label == label][-1]
    return evidence_artifacts.with_artifacts(record, run.workspace.data, records)


@pytest.mark.parametrize("predicted", FLAGS)
def test_a_submission_belongs_to_the_score_of_its_model_and_settings(
    scored: RunFixture, predicted: str
) -> None:
    run = scored.open()
    assert main(["predict", "small.toml", *FLAGS[predicted]]) == 0
    with_submission = {
        label for label in FLAGS if with_artifacts(run, label).submission is not None
    }
    assert with_submission == {predicted}
    path = run.workspace.stage("predict", 0) / "submission.csv"
    layers = with_artifacts(run, predicted).evidence.layers
    assert layers["submission"] == digest.of_file(path)


def test_a_submission_of_a_later_round_belongs_to_the_score_of_its_model(
    scored: RunFixture,
) -> None:
    words = ["small.toml", "--round", "1", "--model", "round-0/epoch-1"]
    assert main(["predict", *words]) == 0
    path = scored.open().workspace.stage("predict", 1) / "submission.csv"
    layers = with_artifacts(scored.open(), "epoch-1").evidence.layers
    assert layers["submission"] == digest.of_file(path)


def test_each_record_has_ranking_embeddings_texts_and_settings_of_its_evaluation(
    scored: RunFixture,
) -> None:
    run = scored.open()
    for label in FLAGS:
        record, folder = with_artifacts(run, label), run.workspace.evaluation(0, label)
        assert record.vectors is not None
        np.testing.assert_array_equal(record.vectors, np.load(folder / "probe.npy"))
        assert record.valid is not None
        assert record.valid.digest() == record.evidence.facts["valid"]
        assert record.settings is not None
        query = "{wrong}" if label.endswith("@wrong") else run.config.prompt.query
        assert record.settings["query"] == query
        assert record.texts == files.read_jsonl(run.workspace.texts(0, label))


def test_files_that_a_later_score_has_replaced_are_not_loaded(scored: RunFixture) -> None:
    run = scored.open()
    before = [item for item in ledger.read(run.workspace.ledger) if item.label == "best@wrong"][-1]
    folder = run.workspace.evidence(ledger.id_of(before))
    for path in folder.iterdir():
        path.unlink()
    scored.write_config(**{**SECTIONS, "evaluations.wrong.prompt": {"query": "{wrong} {question}"}})
    assert main(["eval", "small.toml", *FLAGS["best@wrong"]]) == 0
    records = ledger.read(run.workspace.ledger)
    record = evidence_artifacts.with_artifacts(before, run.workspace.data, records)
    assert (record.probe, record.vectors, record.valid, record.texts) == (None, None, None, None)
    assert with_artifacts(scored.open(), "best@wrong").probe is not None


@pytest.mark.parametrize("label", ["epoch-1@wrong", "base"])
def test_a_measurement_of_a_bundle_belongs_to_the_evaluation_that_was_packaged(
    scored: RunFixture, label: str
) -> None:
    run, last = scored.open(), scored.open(round_=1)
    for round_ in ("0", "1"):
        flags = [
            "--round",
            round_,
            *(word.replace("epoch", "round-0/epoch") for word in FLAGS[label]),
        ]
        assert main(["package", "small.toml", *flags]) == 0
    record = ledger.read(run.workspace.ledger)[-1]
    for at_round in (run, last):
        rehearsed = ledger.Evidence(
            run="small",
            round=at_round.round,
            label="test",
            kind="rehearsal",
            status="unscored",
            layers=record.layers,
            made="",
        )
        folder = evidence_artifacts.evaluation_folder(run.workspace, rehearsed)
        assert folder == run.workspace.evaluation(0, label)
