"""Tables of a run's evaluations: what is compared, what is marked, and what files hold."""

import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.competition import ranking as rankings
from parity.competition.scoring.metrics import Scores
from parity.competition.scoring.significance import Difference, compare
from parity.pipeline import dataset, evaluation, evaluations, score_tables
from parity.pipeline.dag import StageGraph
from parity.pipeline.score_tables import ScoreTable
from parity.pipeline.stage_cores import evaluate
from parity.run import files
from parity.run.experiment import Run

Capture = pytest.CaptureFixture[str]
CUT = {"evaluations.cut.prompt": {"query_max_length": 48}}
HALF = {"evaluations.half.scoring": {"seen_share": 0.5}}
OTHER = {"evaluations.other.split": {"seed": 1}}
RESULTS = {
    "a is better": "better",
    "b is better": "worse",
    "no difference shown": "no difference shown",
}


def tables_of(run: Run) -> list[ScoreTable]:
    return score_tables.build_tables(list(evaluations.scored_models(run, StageGraph())))


def labels(table: ScoreTable) -> list[str]:
    return [model.label for model in table.models]


@pytest.fixture
def scored(predicted_run: RunFixture) -> Run:
    """Return the run after scoring base, an epoch and the best adapter, and two with less text."""
    predicted_run.write_config(**CUT)
    run = predicted_run.open()
    for model, name in (("base", ""), ("epoch-1", ""), ("base", "cut"), ("best", "cut")):
        evaluate.evaluate(run, model, evaluation=name)
    return run


# What is compared


def test_evaluations_of_the_same_rows_are_one_table(scored: Run) -> None:
    (table,) = tables_of(scored)
    assert labels(table) == ["base", "epoch-1", "best", "base@cut", "best@cut"]


def test_differences_to_the_first_are_those_of_the_paired_bootstrap(scored: Run) -> None:
    (table,) = tables_of(scored)
    data = dataset.load(scored.config, scored.workspace)
    reference = rankings.read(scored.workspace.evaluation(0, "base") / "ranking.jsonl")
    assert table.differences[0] is None
    for label, difference in zip(labels(table)[1:], table.differences[1:], strict=True):
        ranking = rankings.read(scored.workspace.evaluation(0, label) / "ranking.jsonl")
        assert difference == compare(
            ranking,
            reference,
            data.valid_qrels,
            data.split.unseen,
            scored.config.scoring,
            data.metric,
        )
    assert len({str(difference) for difference in table.differences}) == 5


def test_other_rows_metrics_and_seen_shares_are_other_tables(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    predicted_run.write_config(**HALF, **OTHER)
    run = predicted_run.open()
    for model in ("base", "best"):
        for name in ("", "half", "other"):
            evaluate.evaluate(run, model, evaluation=name)
    assert list(map(labels, tables_of(run))) == [
        ["base", "best"],
        ["base@half", "best@half"],
        ["base@other"],  # all rows of the other split
        ["best@other"],  # those that it was not trained on
    ]


def test_the_same_rows_with_other_unseen_labels_are_another_table(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    evaluate.evaluate(run, "base")
    models = list(evaluations.scored_models(run, StageGraph()))
    assert list(map(labels, score_tables.build_tables(models))) == [["base", "best"]]
    base, best = models
    fewer = replace(base, unseen=frozenset(sorted(base.unseen)[1:]))
    assert list(map(labels, score_tables.build_tables([fewer, best]))) == [["base"], ["best"]]


def test_adapters_of_another_split_are_compared_on_their_common_clean_rows(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    predicted_run.write_config(**OTHER)
    run = predicted_run.open()
    for model in ("epoch-1", "best"):
        evaluate.evaluate(run, model, evaluation="other")
    _, other = tables_of(run)
    assert labels(other) == ["epoch-1@other", "best@other"]
    difference = other.differences[1]
    assert difference is not None
    folder = run.workspace.evaluation(0, "best@other")
    rows = rankings.read(folder / "ranking.jsonl").query_ids
    data = dataset.load(run.evaluated_as("other").config, run.workspace)
    assert difference == compare(
        rankings.read(folder / "ranking.jsonl"),
        rankings.read(folder.with_name("epoch-1@other") / "ranking.jsonl"),
        {row: data.qrels[row] for row in rows},
        frozenset(files.read_json(folder / "scores.json")["unseen"]),
        run.config.scoring,
        data.metric,
    )
    assert difference.rows == len(rows) < len(data.valid)


# What is printed


def test_the_best_is_marked_and_each_difference_is_a_line(scored: Run) -> None:
    (table,) = tables_of(scored)
    values = {
        model.label: model.scores.projection.value
        for model in table.models
        if model.scores.projection is not None
    }
    best = max(values, key=lambda label: values[label])
    assert table.best.label == best
    text = score_tables.render_table(table)
    marked = re.findall(r"^(\S+)\* ", text, re.MULTILINE)
    assert marked == [best, best]  # once by score and once by recall
    assert "* best by projection. Differences to base, 95 % over questions:\n" in text
    lines = text.partition("over questions:\n")[2].splitlines()[: len(labels(table)) - 1]
    assert [line.split()[0] for line in lines] == labels(table)[1:]
    for line, difference in zip(lines, table.differences[1:], strict=True):
        assert difference is not None
        gain = difference.projection
        assert gain is not None
        numbers = f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
        assert line.endswith(f"{numbers}  {RESULTS[difference.result]}")


def test_a_model_below_the_base_on_unseen_labels_has_a_line(scored: Run) -> None:
    (table,) = tables_of(scored)
    text = score_tables.render_table(table)
    lines = re.findall(r"^ *(\S+): (\S+) below the base model on unseen", text, re.MULTILINE)
    expected = [
        (model.label, f"{-difference.unseen.value:.4f}")
        for model, difference in zip(table.models, table.differences, strict=True)
        if difference is not None and difference.unseen is not None and difference.unseen.value < 0
    ]
    assert lines == expected != []
    without_base = ScoreTable(table.models[1:], (None, *table.differences[2:]))
    assert "below the base model" not in score_tables.render_table(without_base)


def test_a_single_evaluation_has_no_differences(predicted_run: RunFixture) -> None:
    (table,) = tables_of(predicted_run.open())
    text = score_tables.render_table(table)
    assert "Differences" not in text
    assert re.findall(r"^(\w+)\*? +\.\d", text, re.MULTILINE) == ["bm25", "tfidf", "best"] * 2


@pytest.mark.parametrize("length", [27, 60, 120])
def test_long_names_fit_a_terminal(predicted_run: RunFixture, length: int) -> None:
    run = predicted_run.open()
    evaluate.evaluate(run, "base")
    folders = [f"{letter}{'-long-name' * 20}"[:length] for letter in "ab"]
    for folder in folders:
        shutil.copytree(run.workspace.adapter(0), folder)
        evaluate.evaluate(run, folder)
    (table,) = tables_of(run)
    only_long = ScoreTable(table.models[2:], (None, *table.differences[3:]))
    for shown in (table, only_long):
        lines = score_tables.render_table(shown).splitlines()
        assert max(map(len, lines)) <= 80
        text = "".join(lines).replace(" ", "")
        assert all(text.count(model.name) >= 3 for model in shown.models[1:])


def test_a_quick_look_is_explained_by_its_overrides(predicted_run: RunFixture) -> None:
    overrides = ("prompt.query={wrong}; {question}", "prompt.query_max_length=64")
    run = predicted_run.open(*overrides)
    evaluate.evaluate(run)
    (table,) = tables_of(predicted_run.open())
    assert labels(table) == ["best", f"best@{run.evaluation}"]
    text = score_tables.render_table(table)
    explained = text[text.index(f"@{run.evaluation}: --set") :]
    assert shlex.split(explained)[1:] == ["--set", overrides[0], "--set", overrides[1]]
    first_only = ScoreTable(table.models[:1], (None,))
    assert "--set" not in score_tables.render_table(first_only)


def test_rows_without_a_projection_are_chosen_by_their_score(predicted_run: RunFixture) -> None:
    predicted_run.write_config(split={"kind": "label"})
    run = predicted_run.run_stages("prepare", "mine", "train", "eval")
    evaluate.evaluate(run, "base")
    (table,) = tables_of(run)
    assert labels(table) == ["base", "best"]
    assert table.best.scores.projection is None
    text = score_tables.render_table(table)
    assert "* best by score. Differences to base" in text
    values = [model.scores.all.score.value for model in table.models if model.scores.all.score]
    assert table.best is table.models[values.index(max(values))]


# JSON and CSV


def json_of(capsys: Capture, *words: str) -> Any:
    capsys.readouterr()
    assert main(["eval", "small.toml", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["evaluations"]


def test_json_has_every_evaluation_and_its_difference(scored: Run, capsys: Capture) -> None:
    items = json_of(capsys, "--model", "base")
    (table,) = tables_of(scored)
    assert [(item["model"], item["evaluation"]) for item in items] == [
        ("base", ""),
        ("epoch-1", ""),
        ("best", ""),
        ("base", "cut"),
        ("best", "cut"),
    ]
    for item, model, difference in zip(items, table.models, table.differences, strict=True):
        assert Scores.from_json(item["scores"]) == model.scores
        assert item["is_best"] == (model is table.best)
        assert (item["round"], item["split"], item["rows"]) == (0, "random-s0-v0.4", 21)
        if difference is None:
            assert item["difference"] is None
        else:
            assert Difference.from_json(item["difference"]) == difference


def test_csv_has_every_number_in_full(scored: Run, capsys: Capture) -> None:
    path = Path("tables") / "scores.csv"
    evaluate.evaluate(scored, "base", csv=path)
    assert capsys.readouterr().out.endswith("table: tables/scores.csv\n")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (table,) = tables_of(scored)
    for row, model, difference in zip(rows, table.models, table.differences, strict=True):
        assert (row["model"], row["evaluation"], row["metric"]) == (
            model.label.partition("@")[0],
            model.run.evaluation,
            "MAP@25",
        )
        assert row["is_best"] == str(model is table.best)
        for part in ("all", "seen", "unseen", "projection"):
            interval = (
                model.scores.projection
                if part == "projection"
                else getattr(model.scores, part).score
            )
            gain = getattr(difference, part) if difference else None
            for prefix, expected in (("", interval), ("difference_", gain)):
                names = (f"{prefix}{part}", f"{prefix}{part}_low", f"{prefix}{part}_high")
                cells = [row[name] for name in names]
                if expected is None:
                    assert cells == ["", "", ""]
                else:
                    assert list(map(float, cells)) == [expected.value, expected.low, expected.high]


def test_csv_of_a_run_without_a_score_has_only_a_header(tmp_path: Path) -> None:
    score_tables.write_csv(tmp_path / "scores.csv", [])
    assert (tmp_path / "scores.csv").read_text() == "model\n"
