"""The submission: ranked by the model and under the settings that the user names."""

from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture
from pipeline.twin_run import outputs, twin

from parity.cli import main
from parity.competition import ranking as rankings
from parity.pipeline import dag, dataset, encoder_loading
from parity.pipeline.stage_cores.predict import predict
from parity.retrieval.retrieve import index, retrieve
from parity.run import digest
from parity.run.experiment import Run

SETTINGS: dict[str, dict[str, Any]] = {
    "prompt": {"query": "{wrong}"},
    "encoder": {"precision": "bf16"},
}
NAMED = {f"evaluations.wrong.{section}": values for section, values in SETTINGS.items()}
"""Sections of the evaluation `wrong` in a run file."""


@pytest.fixture
def named_run(predicted_run: RunFixture) -> RunFixture:
    """Return the predicted run with an evaluation in its run file."""
    predicted_run.write_config(**NAMED)
    return predicted_run


def facts(run: Run) -> dict[str, Any]:
    manifest = dag.StageGraph().standing(run, "predict").manifest
    assert manifest is not None
    return manifest.facts


def reason(run: Run) -> str:
    return dag.StageGraph().standing(run, "predict").reason


def test_the_submission_is_the_ranking_of_the_test_rows(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    data, prompt = dataset.load(run.config, run.workspace), run.config.prompt
    encoder = encoder_loading.load_encoder(
        run.config.encoder, run.workspace, run.workspace.adapter(0)
    )
    shown = dataset.shown(data, prompt, data.test)
    corpus = index(encoder, prompt, data.corpus)
    expected = retrieve(encoder, prompt, data.test, corpus, shown, k=25).ranking
    folder = dag.folder(run, "predict")
    assert rankings.read(folder / "ranking.jsonl").digest() == expected.digest()
    path = folder / "submission.csv"
    submitted = data.competition.read_submission(path, data.test, data.corpus)
    assert submitted.query_ids == expected.query_ids
    assert (submitted.positions == expected.positions).all()
    assert facts(run)["sha256"] == digest.of_file(path)


@pytest.mark.parametrize(
    ("model", "evaluation", "label"),
    [
        ("epoch-1", "", "epoch-1"),
        ("", "wrong", "best@wrong"),
        ("round-0/epoch-1", "wrong", "epoch-1@wrong"),
    ],
)
def test_a_chosen_model_predicts_as_the_best_one_of_a_run_with_these_settings(
    named_run: RunFixture,
    capsys: pytest.CaptureFixture[str],
    model: str,
    evaluation: str,
    label: str,
) -> None:
    run = named_run.open()
    by_default = outputs(run, "predict")
    expected = twin(named_run, 1 if model else 0, **(SETTINGS if evaluation else {}))
    predict(expected)
    capsys.readouterr()
    predict(run, model, evaluation)
    assert f"ranked by {label}\n" in capsys.readouterr().out
    assert outputs(run, "predict") == outputs(expected, "predict") != by_default


def test_the_base_model_predicts_without_a_training(small_run: RunFixture) -> None:
    run = small_run.run_stages("prepare")
    assert main(["predict", "small.toml", "--model", "base"]) == 0
    data, config = dataset.load(run.config, run.workspace), run.config
    encoder = encoder_loading.load_encoder(config.encoder, run.workspace)
    corpus = index(encoder, config.prompt, data.corpus)
    expected = retrieve(encoder, config.prompt, data.test, corpus, {}, k=25).ranking
    written = rankings.read(dag.folder(run, "predict") / "ranking.jsonl")
    assert written.digest() == expected.digest()
    assert facts(run)["model"] == "base"


def test_model_and_evaluation_are_recorded_and_decide_what_makes_it_stale(
    named_run: RunFixture,
) -> None:
    predict(named_run.open(), "epoch-1", "wrong")
    assert facts(named_run.open())["model"] == "round-0/epoch-1"
    assert facts(named_run.open())["evaluation"] == "wrong"
    other = {"evaluations.plain.prompt": {"query": "{question} {wrong}"}}
    named_run.write_config(scoring={"seen_share": 1.0}, **NAMED, **other)
    assert reason(named_run.open()) == ""
    named_run.write_config(prompt={"query": "{wrong} {question}"}, **NAMED)
    assert reason(named_run.open()) == ""  # the evaluation has its own template
    named_run.write_config(**{**NAMED, "evaluations.wrong.prompt": {"query": "{wrong} "}})
    assert reason(named_run.open()).startswith("prompt.query was '{wrong}', the run file now has")
    named_run.write_config()
    assert reason(named_run.open()).startswith("prompt.query was '{wrong}', the run file now has")


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "epoch-9"],
        ["--as", "nothing"],
        ["--as", "wrong", "--set", "prompt.query={question}{wrong}"],
        ["--set", "encoder.device=cuda"],
        ["--set", "encoder.num_layers=1"],
    ],
    ids=" ".join,
)
def test_a_refused_prediction_destroys_nothing(
    named_run: RunFixture, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = named_run.open()
    before = run_fixture.contents(run.workspace.root)
    assert main(["predict", "small.toml", *words]) in (2, 6)
    assert run_fixture.contents(run.workspace.root) == before
    assert dag.StageGraph().standing(run, "predict").state == "done"
