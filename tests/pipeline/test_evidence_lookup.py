"""Names of evaluations, alone or as MODEL@EVALUATION, and what a comparison of two shows."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.comparing import by_layer, reconcile_json
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.pipeline import evidence_lookup
from parity.pipeline.evaluations import SCORES
from parity.run import files, ledger
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import Run

EVALUATIONS: dict[str, Any] = {
    "prompt": {"query_max_length": 256},
    "evaluations.shown.prompt": {"examples": "fixed", "example_count": 1},
    "evaluations.fp8.encoder": {"quantize": "fp8"},
    "evaluations.all-seen.scoring": {"seen_share": 1.0},
}
LABELS = {
    f"{model}{name}"
    for model in ("base", "epoch-1", "best")
    for name in ("", "@shown", "@fp8", "@all-seen")
}


@pytest.fixture(scope="module")
def _scored_run(_empty_run: RunFixture, tmp_path_factory: pytest.TempPathFactory) -> RunFixture:
    small_run = replace(_empty_run, folder=tmp_path_factory.mktemp("scored"))
    small_run.write_config(**EVALUATIONS)
    with run_fixture.working_in(small_run):
        small_run.run_stages("prepare", "mine", "train")
        assert main(["eval", "--all", "small.toml"]) == 0
    return small_run


@pytest.fixture
def scored_run(_scored_run: RunFixture, tmp_path: Path) -> Iterator[RunFixture]:
    """Work in a folder with a trained run whose models are scored under every evaluation."""
    with run_fixture.working_in_a_copy(_scored_run, tmp_path) as copy:
        yield copy


def label_of(word: str, run: Run) -> str:
    """Return the label of the record that a word names."""
    data, records = run.workspace.data, ledger.read(run.workspace.ledger)
    return evidence_lookup.find_record(word, data, records, run).evidence.label


def test_every_evaluation_is_found_by_its_label(scored_run: RunFixture) -> None:
    run = scored_run.open()
    recorded = {record.label for record in ledger.read(run.workspace.ledger)}
    assert recorded == LABELS
    for label in LABELS:
        assert label_of(label, run) == label
        if not label.startswith("base"):  # it has no round
            assert label_of(f"round-0/{label}", run.at(1)) == label
        assert label_of(f"small/round-0/eval/{label}", run) == label


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("last@fp8", "epoch-2@fp8"),
        ("small/round-0/epoch-1@shown", "epoch-1@shown"),
        ("small/round-0/eval", "best"),
        ("small/round-0/cv/base", "base"),
    ],
)
def test_another_spelling_names_the_same_evaluation(
    scored_run: RunFixture, word: str, label: str
) -> None:
    assert main(["eval", "small.toml", "--model", "last", "--as", "fp8"]) == 0
    assert label_of(word, scored_run.open()) == label


def test_the_newest_record_of_an_evaluation_is_found(scored_run: RunFixture) -> None:
    scored_run.write_config(**{**EVALUATIONS, "evaluations.shown.prompt": {"query": "{wrong}"}})
    run = scored_run.open()
    with pytest.raises(StaleInput, match=r"^the score of best@shown is stale \(prompt\.query was "):
        label_of("best@shown", run)
    assert main(["eval", "small.toml", "--as", "shown"]) == 0
    data, records = run.workspace.data, ledger.read(run.workspace.ledger)
    before, newest = (record for record in records if record.label == "best@shown")
    assert evidence_lookup.find_record("best@shown", data, records, run).evidence == newest
    assert before.layers["template"] != newest.layers["template"]


@pytest.mark.parametrize(
    ("a", "b", "layer"),
    [
        ("best", "epoch-1", "adapter"),
        ("round-0/epoch-1@shown", "best", "adapter"),
        ("best", "base", "adapter"),
        ("best", "best@shown", "examples"),
        ("base@fp8", "base@shown", "examples"),
        ("epoch-1", "epoch-1@fp8", "precision"),
    ],
)
def test_two_evaluations_are_compared_by_the_first_layer_and_row_by_row(
    scored_run: RunFixture, a: str, b: str, layer: str
) -> None:
    code, result = reconcile_json("--run", "small.toml", a, b)
    assert (code, result["layer"]) == (10, layer)
    assert result["error"].startswith(f"first difference: {layer} ")
    lines = " ".join(by_layer(result, "lines")["score"])
    number = r"[+-]0\.\d{4}"
    expected = rf"of the validation rows: B minus A {number}, 95 % {number} to {number}: "
    assert re.search(expected, lines), lines
    if layer != "precision":  # there is a command for it
        (command,) = re.findall(r"Run: `python -m parity (.*)`$", result["error"])
        assert {"--run", "small.toml"} <= set(shlex.split(command))


def test_the_model_that_is_the_base_is_not_said_to_have_lost_its_adapter(
    scored_run: RunFixture,
) -> None:
    _, result = reconcile_json("--run", "small.toml", "best", "base")
    lines = by_layer(result, "lines")
    assert not any("not applied" in line for line in lines["embeddings"])
    assert len(lines["adapter"]) == 1  # other scores of the same model are not a mix-up


def test_equal_models_and_settings_are_the_same(scored_run: RunFixture) -> None:
    assert main(["eval", "small.toml", "--model", "last"]) == 0
    code, result = reconcile_json("--run", "small.toml", "best", "last")
    assert (code, result["result"]) == (0, "same")
    code, result = reconcile_json("--run", "small.toml", "best", "best@all-seen")
    assert by_layer(result, "state")["metric"] == "equal"


@pytest.mark.parametrize(
    ("word", "command"),
    [
        ("last", "eval --run small.toml --model round-0/epoch-2"),
        ("epoch-2@shown", "eval --run small.toml --model round-0/epoch-2 --as shown"),
        ("last@fp8", "eval --run small.toml --model round-0/epoch-2 --as fp8"),
    ],
)
def test_a_model_without_a_score_is_refused_with_the_command_that_scores_it(
    scored_run: RunFixture, word: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reconcile", "--run", "small.toml", "best", word]
    assert main(words) == StaleInput.exit_code
    error = capsys.readouterr().err
    assert error.startswith("error: small has no score of epoch-2")
    assert error.endswith(f"Run: `python -m parity {command}`\n")
    assert main(shlex.split(command)) == 0
    assert main(words) != StaleInput.exit_code


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("best@nothing", r"^no evaluation 'nothing' in the run file \(it has: all-seen, fp8, s"),
        ("epoch-9", r"^small has no epoch-9 of round 0 \(models: base, best, epoch-1, epoch-2\)"),
        ("small/round-0/eval/epoch-9", r"^no record of the name small/round-0/eval/epoch-9 in"),
        ("bestt", r"^no record of the name bestt in the ledger"),
    ],
)
def test_a_name_that_nothing_has_is_refused(
    scored_run: RunFixture, word: str, message: str
) -> None:
    with pytest.raises(BadConfig, match=message):
        label_of(word, scored_run.open())


def test_several_scores_without_that_of_the_best_adapter_need_a_label(
    scored_run: RunFixture,
) -> None:
    run = scored_run.open()
    records = [r for r in ledger.read(run.workspace.ledger) if r.label in ("base", "epoch-1")]
    with pytest.raises(BadConfig, match=r"Use one of small/round-0/eval/base, small/round-0/eval"):
        evidence_lookup.find_record("small/round-0/eval", run.workspace.data, records, run)


def test_unseen_rows_and_scoring_are_those_of_the_evaluation(scored_run: RunFixture) -> None:
    run = scored_run.open()
    data, records = run.workspace.data, ledger.read(run.workspace.ledger)
    a, b = (
        evidence_lookup.find_record(word, data, records, run) for word in ("best@all-seen", "base")
    )
    artifacts = evidence_lookup.load_artifacts(a, b, data, records, with_text=False)
    assert artifacts.scoring.seen_share == 1.0
    path = run.workspace.evaluation(0, "best") / SCORES
    assert sorted(artifacts.unseen) == files.read_json(path)["unseen"]
    rows = evidence_lookup.row_precisions(a, data)
    assert a.valid is not None
    assert rows.keys() == set(a.valid.query_ids)
    mean = sum(rows.values()) / len(rows)
    assert mean == pytest.approx(a.evidence.score["all"]["map@25"]["value"], abs=1e-9)


def test_a_score_under_settings_of_the_command_line_is_found_by_its_label(
    scored_run: RunFixture,
) -> None:
    assert main(["eval", "small.toml", "--set", "prompt.query_max_length=80"]) == 0
    run = scored_run.open()
    label = ledger.read(run.workspace.ledger)[-1].label
    assert re.fullmatch(r"best@[0-9a-f]{8}", label)
    assert label_of(label, run) == label
