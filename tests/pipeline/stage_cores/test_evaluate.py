"""`eval`: a model, an evaluation or all of them; one table; a comparison with another run."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.competition.scoring.metrics import Scores
from parity.competition.synthetic import tiny_table
from parity.pipeline import dag, encoder_loading, evaluation, evaluations
from parity.pipeline.command_cores import report
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage_cores import evaluate
from parity.retrieval.encoder import Encoder
from parity.run import files, ledger
from parity.run.config import run_file
from parity.run.errors import BadConfig, Contaminated, StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence

Capture = pytest.CaptureFixture[str]
SHOTS = {"examples": "fixed", "example_count": 1, "query_max_length": 400}
QUICK = tuple(f"prompt.{key}={value}" for key, value in SHOTS.items())
EVALUATIONS: dict[str, dict[str, Any]] = {
    "evaluations.shots.prompt": SHOTS,
    "evaluations.half.scoring": {"seen_share": 0.5},
    "evaluations.other.split": {"seed": 1},
    "evaluations.deep.encoder": {"num_layers": 9},
}
FAILING = "deep"
"""Evaluation of `EVALUATIONS` that no model can have: the base model has two layers."""


def eval_folder(run: Run, label: str = "best") -> Path:
    return run.workspace.evaluation(run.round, label)


def recorded(run: Run, label: str = "best") -> Scores:
    return Scores.from_json(
        files.read_json(eval_folder(run, label) / "scores.json")["scores"][label]
    )


def evidence(run: Run) -> list[Evidence]:
    return ledger.read(run.workspace.ledger)


def states(run: Run, stages: Sequence[str]) -> dict[str, str]:
    graph = StageGraph()
    return {stage: graph.standing(run, stage).state for stage in stages}


def names(run: Run) -> list[str]:
    return [name for name, _ in report.rows(run)]


def embedded(output: str) -> list[str]:
    """Return what each score of an output says about its embeddings."""
    return re.findall(r"^embeddings: (.*)$", output, re.MULTILINE)


# One model


def test_the_base_is_scored_before_anything_is_mined_or_trained(
    small_run: RunFixture, capsys: Capture
) -> None:
    run = small_run.run_stages("prepare")
    capsys.readouterr()
    evaluate.evaluate(run, "base")
    (record,) = evidence(run)
    assert (record.label, record.status, record.layers["adapter"]) == ("base", "clean", "")
    assert names(run) == ["BM25", "TF-IDF", "base model"]
    assert states(run, ["prepare", "mine", "train"]) == {
        "prepare": "done",
        "mine": "missing",
        "train": "missing",
    }
    assert embedded(capsys.readouterr().out) == ["40 passages computed, 21 queries computed"]


def test_without_a_prepared_run_the_first_stage_is_named(small_run: RunFixture) -> None:
    with pytest.raises(StaleInput, match=r"^prepare is missing$") as error:
        evaluate.evaluate(small_run.open(), "base")
    assert error.value.fix == ("prepare", "--run", "small.toml")


def test_few_shot_examples_are_tried_without_making_anything_stale(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    stages = ("prepare", "mine", "train", "eval", "predict")
    run, quick = predicted_run.open(), predicted_run.open(*QUICK)
    before = {stage: run_fixture.digests(dag.folder(run, stage)) for stage in stages}
    evaluate.evaluate(run, "base")
    capsys.readouterr()
    evaluate.evaluate(quick, "base")
    output = capsys.readouterr().out
    assert "valid: 21 queries, 21 with few-shot examples, 0 cut to fit\n" in output
    assert embedded(output) == ["40 passages from the cache, 21 queries computed"]
    label = f"base@{quick.evaluation}"
    assert re.fullmatch(r"base@[0-9a-f]{8}", label)
    assert recorded(run, label) != recorded(run, "base")
    assert (evidence(run)[-1].label, evidence(run)[-1].status) == (label, "clean")
    assert set(states(run, stages).values()) == {"done"}
    assert {stage: run_fixture.digests(dag.folder(run, stage)) for stage in stages} == before


def test_a_named_evaluation_scores_as_the_same_overrides_do(
    small_run: RunFixture, capsys: Capture
) -> None:
    small_run.write_config(**EVALUATIONS)
    run, quick = small_run.run_stages("prepare"), small_run.open(*QUICK)
    evaluate.evaluate(run, "base", evaluation="shots")
    capsys.readouterr()
    evaluate.evaluate(quick, "base")
    assert embedded(capsys.readouterr().out) == [
        "40 passages from the cache, 21 queries from the cache"
    ]
    assert recorded(run, "base@shots") == recorded(run, f"base@{quick.evaluation}")
    assert states(run, ["eval"]) == {"eval": "missing"}  # that of the best adapter


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("scoring.seen_share=0.5", "40 passages from the cache, 21 queries from the cache"),
        ("split.seed=1", "40 passages from the cache, 21 queries computed"),
        ("prompt.query_max_length=64", "40 passages from the cache, 21 queries computed"),
        ("prompt.passage_max_length=32", "40 passages computed, 21 queries from the cache"),
        ("encoder.num_layers=1", "40 passages computed, 21 queries computed"),
    ],
)
def test_embeddings_are_computed_only_where_texts_or_weights_differ(
    small_run: RunFixture, capsys: Capture, override: str, expected: str
) -> None:
    evaluate.evaluate(small_run.run_stages("prepare"), "base")
    capsys.readouterr()
    evaluate.evaluate(small_run.open(override), "base")
    assert embedded(capsys.readouterr().out) == [expected]


@pytest.fixture
def table_run(small_run: RunFixture, root: Path) -> RunFixture:
    """Write a run file of the competition of plain tables, whose `k` a run file chooses."""
    tiny_table.main([str(small_run.folder / "tickets")])
    competition = run_file.load(root / "runs" / "tiny-table.toml").competition
    small_run.write_config(
        data={"source": "tickets"},
        competition=competition.model_dump(mode="json"),
        split={"kind": "random", "valid": 0.5},
        prompt={"query": "{subject} {message}", "query_max_length": 48},
    )
    return small_run


def test_another_depth_is_scored_from_the_cache_in_another_table(
    table_run: RunFixture, capsys: Capture
) -> None:
    run, shallow = table_run.run_stages("prepare"), table_run.open("competition.k=3")
    evaluate.evaluate(run, "base")
    output = capsys.readouterr().out
    (computed,) = embedded(output)
    assert re.fullmatch(r"64 passages computed, \d+ queries computed", computed)
    evaluate.evaluate(shallow, "base")
    output = capsys.readouterr().out
    assert embedded(output) == [computed.replace("computed", "from the cache")]
    label = f"base@{shallow.evaluation}"
    assert (recorded(run, "base").k, recorded(run, label).k) == (10, 3)
    titles = re.findall(r"^(MRR@\d+) ", output, re.MULTILINE)
    assert titles == ["MRR@10", "MRR@3"]
    assert states(run, ["prepare"]) == {"prepare": "done"}


def test_an_adapter_is_scored_on_the_clean_half_of_another_split(
    table_run: RunFixture, capsys: Capture
) -> None:
    run = table_run.run_stages("prepare", "mine", "train")
    other = table_run.open("split.seed=1", "split.valid=0.8")
    capsys.readouterr()
    evaluate.evaluate(other)
    match = re.search(r"^scored on (\d+) of (\d+) rows; (\d+) were", capsys.readouterr().out)
    assert match is not None
    clean, total, trained = map(int, match.groups())
    assert evaluation.ENOUGH <= clean == total - trained
    assert recorded(run, f"best@{other.evaluation}").all.rows == clean


def test_the_lexical_baselines_are_always_in_the_table(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    run = predicted_run.open()
    capsys.readouterr()
    evaluate.evaluate(run, "epoch-1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "valid: 21 queries, 0 with few-shot examples, 0 cut to fit"
    assert lines[1] == "embeddings: 40 passages computed, 21 queries computed"
    assert lines[2] == "21 rows of 13 questions, 6 of them (29 %) with an unseen label."
    rows = [line.split()[0].rstrip("*") for line in lines if re.match(r"[a-z].* \.\d", line)]
    assert rows == ["bm25", "tfidf", "epoch-1", "best"] * 2
    assert max(map(len, lines)) <= 80
    record = files.read_json(eval_folder(run, "epoch-1") / "scores.json")
    assert (record["status"], record["rows"], record["total"]) == ("clean", 21, 21)
    assert sorted(record["scores"]) == ["bm25", "epoch-1", "tfidf"]


@pytest.mark.parametrize("text", ["epoch-0", "epoch-1/..", "../train", "bm25", "epoch-1 ", "."])
def test_what_is_not_a_model_is_refused_before_anything_is_written(
    predicted_run: RunFixture, text: str
) -> None:
    before = run_fixture.digests(predicted_run.data)
    expected = re.escape(f"{text} ") + r".*\(models: base, best, epoch-1, epoch-2\)$"
    with pytest.raises(BadConfig, match=expected):
        evaluate.evaluate(predicted_run.open(), text)
    assert run_fixture.digests(predicted_run.data) == before


def test_a_missing_epoch_is_refused_with_a_list_of_models(predicted_run: RunFixture) -> None:
    expected = r"^small has no epoch-3 of round 0 \(models: base, best, epoch-1, epoch-2\)$"
    with pytest.raises(BadConfig, match=expected):
        evaluate.evaluate(predicted_run.open(), "epoch-3")


def test_without_a_validation_set_there_is_no_score(small_run: RunFixture, capsys: Capture) -> None:
    small_run.write_config(split={"kind": "full"})
    run = small_run.run_stages("prepare", "mine", "train")
    with pytest.raises(BadConfig, match=r"^split full holds nothing out: .* Choose another split"):
        evaluate.evaluate(run)
    capsys.readouterr()
    assert main(["eval", "small.toml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert evidence(run) == []
    assert names(run) == []


def test_a_run_that_trains_on_all_rows_is_scored_on_another_split(small_run: RunFixture) -> None:
    """Its base model can be scored; its adapter was trained on every row."""
    small_run.write_config(
        split={"kind": "full"}, **{"evaluations.cv.split": {"kind": "random", "valid": 0.4}}
    )
    run = small_run.run_stages("prepare", "mine", "train")
    evaluate.evaluate(run, "base", evaluation="cv")
    assert recorded(run, "base@cv").all.rows == 21
    with pytest.raises(Contaminated, match=r"^0 of 21 rows; 21 were trained on\. At least 50"):
        evaluate.evaluate(run, evaluation="cv")


# Choosing settings


def test_an_unknown_evaluation_lists_those_of_the_run_file(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    predicted_run.write_config(**EVALUATIONS)
    capsys.readouterr()
    assert main(["eval", "small.toml", "--as", "bnb4"]) == 2
    assert capsys.readouterr().err == (
        "error: no evaluation 'bnb4' in the run file (it has: deep, half, other, shots). "
        "Add [evaluations.bnb4]\n"
    )


def test_settings_are_chosen_by_name_or_by_overrides(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    predicted_run.write_config(**EVALUATIONS)
    words = ["eval", "small.toml", "--as", "half"]
    capsys.readouterr()
    assert main([*words, "--set", "scoring.bootstrap=200"]) == 2
    assert capsys.readouterr().err == (
        "error: --as half and --set scoring.bootstrap=200 both choose how models are scored. "
        "Use one\n"
    )
    assert main([*words, "--set", "encoder.device=cpu", "--set", "training.epochs=3"]) == 0
    assert evidence(predicted_run.open())[-1].label == "best@half"


# All models


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the adapters of the encoders that are loaded from now on, in order."""
    adapters: list[str] = []
    load = encoder_loading.load_caching_encoder

    def counted(*arguments: Any) -> Encoder:
        encoder = load(*arguments)
        adapters.append(encoder.adapter)
        return encoder

    monkeypatch.setattr(encoder_loading, "load_caching_encoder", counted)
    return adapters


def test_all_scores_what_is_missing_once_with_an_encoder_for_each_model(
    predicted_run: RunFixture, loads: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    predicted_run.write_config(**EVALUATIONS)
    run = predicted_run.open()
    before = len(evidence(run))
    capsys.readouterr()
    assert main(["eval", "small.toml", "--all"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("best@other: scored on 10 of 21 rows; 11 were trained on\n")
    assert "\n11 of 14 scored\n" in output  # best was scored before
    refused = re.findall(r"^not scored: (\S+): (.*)$", output, re.MULTILINE)
    reason = "encoder.num_layers = 9: base has 2"
    assert sorted(refused) == [(f"{m}@{FAILING}", reason) for m in ("base", "best", "epoch-1")]
    added = [record.label for record in evidence(run)[before:]]
    models, sets = ("base", "epoch-1", "best"), ("", "@half", "@other", "@shots")
    assert sorted(added) == sorted({f"{m}{s}" for m in models for s in sets} - {"best"})
    assert len(loads) == len(set(loads)) == 3
    assert set(states(run, ("prepare", "mine", "train", "eval", "predict")).values()) == {"done"}


def test_a_second_time_all_scores_nothing(
    predicted_run: RunFixture, loads: list[str], capsys: Capture
) -> None:
    predicted_run.write_config(**{"evaluations.half.scoring": {"seen_share": 0.5}})
    run = predicted_run.open()
    evaluate.evaluate(run, "all")
    first, before, count = capsys.readouterr().out, run_fixture.digests(run.workspace.data), 3
    assert (len(loads), len(evidence(run))) == (count, 6)
    evaluate.evaluate(run, "all")
    second = capsys.readouterr().out
    assert second.startswith("0 of 0 scored\n")
    assert second.partition("\n")[2] == first.partition("5 of 5 scored\n")[2]
    assert run_fixture.digests(run.workspace.data) == before
    assert len(loads) == count


def test_all_goes_on_after_a_split_without_enough_clean_rows(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    splits: dict[str, dict[str, Any]] = {
        "evaluations.other.split": {"seed": 1},
        "evaluations.all.split": {"kind": "full"},
    }
    predicted_run.write_config(**splits)
    evaluate.evaluate(predicted_run.open(), "all")
    output = " ".join(capsys.readouterr().out.split())
    assert "3 of 8 scored" in output  # base, epoch-1, base@other
    for model in ("epoch-1", "best"):
        expected = r"10 of 21 rows; 11 were trained on\. At least 50 rows are needed"
        assert re.search(rf"not scored: {model}@other: {expected}", output)
        assert f"not scored: {model}@all: split full holds nothing out" in output
    assert "not scored: base@all: split full holds nothing out" in output


def test_all_as_one_evaluation_or_with_overrides_scores_under_these_alone(
    predicted_run: RunFixture,
) -> None:
    predicted_run.write_config(**EVALUATIONS)
    run, quick = predicted_run.open(), predicted_run.open("scoring.bootstrap=200")
    evaluate.evaluate(run, "all", evaluation="half")
    assert [record.label for record in evidence(run)[1:]] == [
        "best@half",
        "epoch-1@half",
        "base@half",
    ]
    evaluate.evaluate(quick, "all")
    assert {record.label for record in evidence(run)[4:]} == {
        f"{model}@{quick.evaluation}" for model in ("base", "epoch-1", "best")
    }


def test_all_can_accept_contamination(predicted_run: RunFixture) -> None:
    predicted_run.write_config(**{"evaluations.other.split": {"seed": 1}})
    run = predicted_run.open()
    evaluate.evaluate(run, "all", evaluation="other", accept_contaminated=True)
    statuses = {record.label: record.status for record in evidence(run)}
    assert statuses["base@other"] == "clean"
    assert statuses["best@other"] == statuses["epoch-1@other"] == "contaminated"
    listed = evaluations.scored_models(run, StageGraph())
    assert [model.label for model in listed] == ["best", "base@other"]


def test_all_are_not_compared_with_another_run(predicted_run: RunFixture) -> None:
    with pytest.raises(BadConfig, match=r"--all and --against: a single model is compared"):
        evaluate.evaluate(predicted_run.open(), "all", against=Path("small.toml"))
