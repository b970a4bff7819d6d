"""The gap between two scores of a tiny model is attributed to the layers that were changed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from pipeline import comparing
from pipeline.comparing import rescore
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.competition import ranking as rankings
from parity.competition.scoring import metrics
from parity.pipeline import dataset
from parity.pipeline.evidence import SETTINGS
from parity.run import files, layers, ledger

Attribute = Callable[..., tuple[int, dict[str, Any], str]]
OTHER = "prompt.query='{wrong}'"


@pytest.fixture
def attribute(capsys: pytest.CaptureFixture[str]) -> Attribute:
    """Return a function that runs `reconcile --attribute`: exit code, JSON and printed text."""

    def run(*words: str) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = main(["reconcile", *words, "--attribute", "--json"])
        output = capsys.readouterr()
        return code, json.loads(output.out), output.err

    return run


def parts(result: dict[str, Any]) -> dict[str, float]:
    return {step["layer"]: step["part"]["value"] for step in result["attribution"]["steps"]}


def test_a_changed_template_is_the_gap_and_a_changed_precision_is_not(
    predicted_run: RunFixture, attribute: Attribute
) -> None:
    """The sum is exact in any order."""
    b = rescore(predicted_run, OTHER, "encoder.precision=bf16")
    code, result, text = attribute(comparing.first_record(predicted_run), b)
    assert code == 0
    attribution, values = result["attribution"], parts(result)
    assert list(values) == ["template", "precision", "remainder"]
    assert abs(attribution["gap"]) > 0.05
    assert abs(values["template"] - attribution["gap"]) < abs(attribution["gap"]) / 4
    assert values["remainder"] == 0
    assert sum(values.values()) == attribution["gap"] == attribution["end"] - attribution["start"]
    assert sum(reversed(values.values())) == attribution["gap"]
    assert "precision fp32 to bf16" in text
    assert "{wrong}" in text or "query" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_step_has_the_score_of_eval_under_the_same_settings(
    predicted_run: RunFixture, attribute: Attribute
) -> None:
    """The reference evaluates each step on its own."""
    b = rescore(predicted_run, OTHER, "prompt.examples=question", "prompt.example_count=1")
    _, result, _ = attribute(comparing.first_record(predicted_run), b)
    between = rescore(predicted_run, OTHER)
    records = {
        ledger.id_of(record): record
        for record in ledger.read(predicted_run.open().workspace.ledger)
    }
    steps = {step["layer"]: step["after"] for step in result["attribution"]["steps"]}
    assert list(steps) == ["template", "examples", "remainder"]
    for layer, record in (("template", between), ("examples", b), ("remainder", b)):
        value = records[record].score["all"]["map@25"]["value"]
        assert steps[layer] == pytest.approx(value, abs=1e-9)


def test_an_adapter_is_a_layer_of_its_own(predicted_run: RunFixture, attribute: Attribute) -> None:
    base = rescore(predicted_run, label="base")
    _, result, text = attribute(base, comparing.first_record(predicted_run))
    assert list(parts(result)) == ["adapter", "remainder"]
    assert parts(result)["adapter"] == result["attribution"]["gap"] != 0
    assert "none (base model) to " in text


def test_evaluations_of_a_run_are_attributed_by_their_names(
    predicted_run: RunFixture, attribute: Attribute
) -> None:
    """Each step has the score of the evaluation with these settings and this adapter."""
    predicted_run.write_config(
        **{
            "evaluations.wrong.prompt": {"query": "{wrong}"},
            "evaluations.wrong-fp8.prompt": {"query": "{wrong}"},
            "evaluations.wrong-fp8.encoder": {"quantize": "fp8"},
        }
    )
    assert main(["eval", "--all", "small.toml"]) == 0
    code, result, text = attribute("--run", "small.toml", "epoch-1", "best@wrong-fp8")
    assert code == 0
    steps = {step["layer"]: step["after"] for step in result["attribution"]["steps"]}
    assert list(steps) == ["adapter", "template", "precision", "remainder"]
    assert sum(parts(result).values()) == result["attribution"]["gap"]
    assert parts(result)["remainder"] == 0
    labels = {"adapter": "best", "template": "best@wrong", "precision": "best@wrong-fp8"}
    scores = {
        record.label: record.score["all"]["map@25"]["value"]
        for record in ledger.read(predicted_run.open().workspace.ledger)
    }
    for layer, label in labels.items():
        assert steps[layer] == pytest.approx(scores[label], abs=1e-9)
    assert text.startswith("A  small/round-0/cv/epoch-1\nB  small/round-0/cv/best@wrong-fp8\n")


def test_equal_scores_have_no_parts(predicted_run: RunFixture, attribute: Attribute) -> None:
    _, result, text = attribute(comparing.first_record(predicted_run), rescore(predicted_run))
    assert parts(result) == {"remainder": 0.0}
    assert result["attribution"]["gap"] == 0.0
    assert "no layer that can be swapped differs" in text


def test_another_split_is_attributed_to_rows(
    predicted_run: RunFixture, attribute: Attribute
) -> None:
    """Rows of one side are left out first or added last; the rest is compared on common rows."""
    a = comparing.first_record(predicted_run)
    predicted_run.write_config("other", split={"kind": "random", "valid": 0.4, "seed": 1})
    for stage in ("prepare", "mine", "train", "eval"):
        predicted_run.run_stages(stage, name="other")
    code, result, text = attribute(a, "other/round-0/eval")
    assert code == 0
    steps = result["attribution"]["steps"]
    assert [step["layer"] for step in steps] == ["rows", "adapter", "rows", "remainder"]
    assert sum(step["part"]["value"] for step in steps) == result["attribution"]["gap"]
    assert steps[-1]["part"]["value"] == 0
    assert "rows that only A scored are left out" in text


def test_without_the_adapter_the_gap_is_the_remainder(
    predicted_run: RunFixture, attribute: Attribute
) -> None:
    a, b = comparing.first_record(predicted_run), rescore(predicted_run, OTHER)
    workspace = predicted_run.open().workspace
    shutil.rmtree(workspace.adapter(0))
    for path in workspace.stage("train", 0).glob("epoch-?"):
        shutil.rmtree(path)
    code, result, text = attribute(a, b)
    assert (code, list(parts(result))) == (0, ["remainder"])
    assert "is missing in" in text
    assert result["attribution"]["gap"] == parts(result)["remainder"] != 0
    (workspace.evidence(a) / SETTINGS).unlink()
    text = " ".join(attribute(a, b)[2].split())
    assert "no settings are stored with the record" in text
    assert "eval --run runs/small.toml" in text


@pytest.mark.parametrize("deeper", ["A", "B"])
def test_another_k_is_a_layer_of_its_own(
    predicted_run: RunFixture, attribute: Attribute, deeper: str
) -> None:
    """One of the records is MAP@3 of the same ranking."""
    a, b = comparing.first_record(predicted_run), rescore(predicted_run, OTHER)
    workspace = predicted_run.open().workspace
    shallow = a if deeper == "B" else b
    records = {ledger.id_of(record): record for record in ledger.read(workspace.ledger)}
    config = predicted_run.open().config
    data = dataset.load(config, workspace)
    ranking = rankings.read(workspace.evidence(shallow) / "ranking.jsonl")
    metric = replace(data.metric, k=3)
    labels = data.valid_qrels
    scores = metrics.evaluate(ranking, labels, data.split.unseen, config.scoring, metric)
    record = replace(records[shallow], score=scores.as_json())
    ledger.append(workspace.ledger, record)
    name = ledger.id_of(record)
    shutil.copytree(workspace.evidence(shallow), workspace.evidence(name))
    _, result, text = attribute(*((name, b) if deeper == "B" else (a, name)))
    order = ["template", "metric"] if deeper == "B" else ["metric", "template"]
    assert list(parts(result)) == [*order, "remainder"]
    assert parts(result)["remainder"] == 0
    assert sum(parts(result).values()) == result["attribution"]["gap"]
    deep = b if deeper == "B" else a
    ranking = rankings.read(workspace.evidence(deep) / "ranking.jsonl")
    mean = fmean(metrics.row_scores(ranking, labels, metric).values())
    change = records[deep].score["all"][data.metric.key]["value"] - mean
    sign = 1 if deeper == "B" else -1
    assert parts(result)["metric"] == pytest.approx(sign * change, abs=1e-9)
    assert "MAP@" in text


def test_a_leaderboard_score_is_attributed_to_the_unseen_share(
    predicted_run: RunFixture, attribute: Attribute
) -> None:
    _, result, text = attribute(comparing.first_record(predicted_run), "0.304")
    assert list(parts(result)) == ["unseen share", "remainder"]
    assert sum(parts(result).values()) == result["attribution"]["gap"]
    score = ledger.read(predicted_run.open().workspace.ledger)[0].score
    change = score["projection@25"]["value"] - score["all"]["map@25"]["value"]
    assert parts(result)["unseen share"] == pytest.approx(change, abs=1e-9)
    assert "to p = 0.25" in text


def test_layers_are_swapped_in_causal_order() -> None:
    order = ("base", "adapter", "template", "examples", "precision", "device", "budget")
    assert order == layers.SWAPPABLE


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("small/round-0/eval",), "found 1 records to attribute a gap to. Name two"),
        (("nothing", "small/round-0/eval"), "nothing"),
        (("small/round-0/eval", "small/round-0/rehearse"), "small/round-0/rehearse"),
    ],
)
def test_a_wrong_name_is_an_error_of_one_line(
    predicted_run: RunFixture, attribute: Attribute, words: tuple[str, ...], line: str
) -> None:
    code, result, _ = attribute(*words)
    assert code != 0
    assert line in result["error"]
    assert "\n" not in result["error"]


def test_a_record_has_the_settings_of_its_run(predicted_run: RunFixture) -> None:
    record = comparing.first_record(predicted_run)
    settings = files.read_json(predicted_run.open().workspace.evidence(record) / SETTINGS)
    assert settings == predicted_run.open().config.model_dump(mode="json")
