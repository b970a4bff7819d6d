"""`forecast` on the results of real stages: before a score, checked after it, without a CV."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.analysis.forecast.forecast import Forecast
from parity.cli import main
from parity.competition.lineage import Lineage
from parity.pipeline import dag, dataset, evaluation, evaluations
from parity.pipeline.command_cores import forecast
from parity.pipeline.stage_cores import evaluate
from parity.run import files, ledger
from parity.run.errors import BadConfig, Contaminated, StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence, ForecastRecord

ForecastJson = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def forecast_json(capsys: pytest.CaptureFixture[str]) -> ForecastJson:
    """Return a function that starts `forecast --json`: exit code and JSON."""

    def start(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["forecast", *words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return start


def forecasts(run: Run) -> list[ForecastRecord]:
    return ledger.read_forecasts(run.workspace.ledger)


def score(run: Run, value: float, **layers: str) -> Evidence:
    """Add a leaderboard score to the ledger, of the run's CV or of one with other layers."""
    cv = next(item for item in ledger.read(run.workspace.ledger) if item.kind == "cv")
    name = layers.get("adapter", "")
    if name:
        ledger.append(run.workspace.ledger, replace(cv, run=name, layers={**cv.layers, **layers}))
    record = replace(
        cv,
        run=name or cv.run,
        kind="public",
        label="test",
        layers={**cv.layers, **layers},
        score={"map@25": value, "ref": 1, "key": "k"},
        made=ledger.utc_now(),
    )
    ledger.append(run.workspace.ledger, record)
    return record


def test_a_forecast_is_recorded_once_and_only_before_the_score(
    predicted_run: RunFixture, forecast_json: ForecastJson
) -> None:
    run = predicted_run.open()
    code, first = forecast_json("small.toml")
    assert code == 0
    (record,) = forecasts(run)
    assert (record.run, record.round, record.label, record.board) == ("small", 0, "best", "public")
    assert record.forecast == first["forecast"] == Forecast.from_json(record.forecast).as_json()
    assert forecast_json("small.toml")[1] == first
    assert forecasts(run) == [record]
    assert forecast_json("small.toml", "--set", "forecast.rows=50")[1]["key"] != first["key"]
    assert len(forecasts(run)) == 2
    score(run, 0.1)
    code, after = forecast_json("small.toml", "--set", "forecast.rows=60")
    assert (code, after["score"]) == (0, 0.1)
    assert len(forecasts(run)) == 2


def test_past_forecasts_are_checked(predicted_run: RunFixture, forecast_json: ForecastJson) -> None:
    assert forecast_json("--check") == (0, {"checked": [], "calibration": None})
    run = predicted_run.open()
    median = forecast_json("small.toml")[1]["forecast"]["median"]
    score(run, median + 0.01)
    code, result = forecast_json("--check")
    assert code == 0
    assert [item["score"] for item in result["checked"]] == [median + 0.01]
    assert result["calibration"]["mean_error"] == pytest.approx(0.01)
    assert result["calibration"]["wide"] == 1.0


def test_a_forecast_does_not_hide_evidence(predicted_run: RunFixture) -> None:
    before = ledger.read(predicted_run.open().workspace.ledger)
    forecast.forecast(predicted_run.open(), "best")
    assert ledger.read(predicted_run.open().workspace.ledger) == before
    assert ledger.read_steps(predicted_run.open().workspace.ledger) == []


def test_the_forecast_follows_from_the_cv(
    predicted_run: RunFixture, forecast_json: ForecastJson
) -> None:
    run = predicted_run.open()
    scores = evaluations.read(run.workspace.evaluation(run.round, "best"))["best"]
    seen, unseen = scores.seen.score, scores.unseen.score
    assert seen is not None
    assert unseen is not None
    _, result = forecast_json("small.toml")
    assert result["facts"]["seen"] == pytest.approx(seen.value)
    assert result["facts"]["unseen"] == pytest.approx(unseen.value)
    assert 0 < result["facts"]["covered"] < 1
    low, high = result["forecast"]["wide"]
    assert low < result["forecast"]["median"] < high
    _, surer = forecast_json("small.toml", "--set", "forecast.share_rows=1000.0")
    assert surer["forecast"]["sources"]["share"] < 0.1 * result["forecast"]["sources"]["share"]


def test_scores_of_other_adapters_change_the_forecast(
    predicted_run: RunFixture, forecast_json: ForecastJson
) -> None:
    run = predicted_run.open()
    before = forecast_json("small.toml")[1]
    for name in ("first", "second", "third"):
        score(run, 2 * before["forecast"]["median"], adapter=name)
    after = forecast_json("small.toml")[1]
    assert (before["forecast"]["pairs"], after["forecast"]["pairs"]) == (0, 3)
    assert after["forecast"]["median"] > 1.4 * before["forecast"]["median"]
    assert not any(item["other"] for item in after["facts"]["pairs"])
    score(run, 0.2, adapter="four", split="another")
    assert [item["other"] for item in forecast_json("small.toml")[1]["facts"]["pairs"]] == [
        *[False] * 3,
        True,
    ]
    score(run, 0.2, adapter="five", data="of another competition")
    assert forecast_json("small.toml")[1]["forecast"]["pairs"] == 4


def test_a_table_of_pairs_changes_the_forecast(
    predicted_run: RunFixture, forecast_json: ForecastJson
) -> None:
    split = predicted_run.open().config.split.name
    Path("pairs.csv").write_text(
        "name,split,seen,unseen,score\n"
        f"bm25,{split},0.2,0.1,0.15\nolder,v1,0.3,0.1,0.2\nsmall,{split},0.9,0.9,0.9\n"
    )
    _, result = forecast_json("small.toml", "--set", "forecast.pairs=pairs.csv")
    pairs = result["facts"]["pairs"]
    assert [(pair["seen"], pair["score"], pair["other"]) for pair in pairs] == [
        (0.2, 0.15, False),
        (0.3, 0.2, True),
    ]


@pytest.mark.parametrize("text", [None, "name,seen\na,0.2\n", "name,split,seen,unseen,score\na\n"])
def test_another_table_is_refused(predicted_run: RunFixture, text: str | None) -> None:
    if text is not None:
        Path("pairs.csv").write_text(text)
    with pytest.raises(BadConfig, match=r"in forecast.pairs = pairs.csv. Wanted: a CSV file"):
        forecast.forecast(predicted_run.open("forecast.pairs=pairs.csv"), "best")


@pytest.mark.parametrize(
    ("stages", "model", "missing", "fix"),
    [
        ((), "base", "prepare", ("prepare",)),
        (("prepare",), "base", "the CV of base of round 0", ("eval", "--model", "base")),
        (("prepare",), "", "mine of round 0", ("mine",)),
        (("prepare", "mine"), "", "train of round 0", ("train",)),
        (("prepare",), "best", "train of round 0", ("train",)),
    ],
)
def test_without_a_cv_the_first_missing_stage_is_named(
    small_run: RunFixture, stages: tuple[str, ...], model: str, missing: str, fix: tuple[str, ...]
) -> None:
    run = small_run.run_stages(*stages)
    with pytest.raises(StaleInput, match=rf"^{missing} is missing") as error:
        forecast.forecast(run, model)
    assert error.value.fix == (fix[0], "--run", "small.toml", *fix[1:])


def test_a_model_that_was_not_scored_is_refused(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    with pytest.raises(StaleInput, match=r"^the CV of epoch-1 of round 0 is missing$") as error:
        forecast.forecast(run, "epoch-1")
    assert error.value.fix == ("eval", "--run", "small.toml", "--model", "round-0/epoch-1")
    evaluate.evaluate(run, "epoch-1")
    forecast.forecast(run, "epoch-1")
    assert forecasts(run)[-1].label == "epoch-1"


def test_a_stale_cv_is_refused(predicted_run: RunFixture) -> None:
    predicted_run.write_config(scoring={"seen_share": 0.5})
    expected = r"^the CV of best is stale \(scoring\.seen_share was 0\.25, .* now has 0\.5\)$"
    with pytest.raises(StaleInput, match=expected) as error:
        forecast.forecast(predicted_run.open(), "best")
    assert error.value.fix == ("eval", "--run", "small.toml")


def test_overrides_of_scoring_need_their_own_cv(predicted_run: RunFixture) -> None:
    override = "prompt.query_max_length=64"
    run = predicted_run.open(override)
    expected = rf"^the CV of best@{run.evaluation} of round 0 is missing$"
    with pytest.raises(StaleInput, match=expected) as error:
        forecast.forecast(run)
    assert error.value.fix == ("eval", "--run", "small.toml", f"--set={override}")
    evaluate.evaluate(run)
    forecast.forecast(run)
    assert forecasts(run)[-1].label == f"best@{run.evaluation}"


def test_a_forecast_can_use_a_named_evaluation(
    predicted_run: RunFixture, forecast_json: ForecastJson
) -> None:
    predicted_run.write_config(**{"evaluations.cut.prompt": {"query_max_length": 48}})
    run = predicted_run.open()
    with pytest.raises(StaleInput, match=r"^the CV of best@cut of round 0 is missing$") as error:
        forecast.forecast(run, evaluation="cut")
    assert error.value.fix == ("eval", "--run", "small.toml", "--as", "cut")
    evaluate.evaluate(run, evaluation="cut")
    code, result = forecast_json("small.toml", "--as", "cut")
    scores = evaluations.read(run.workspace.evaluation(0, "best@cut"))["best@cut"]
    assert code == 0
    assert scores.seen.score is not None
    assert result["facts"]["seen"] == pytest.approx(scores.seen.score.value)
    assert result["key"] != forecast_json("small.toml")[1]["key"]
    assert [record.label for record in forecasts(run)] == ["best@cut", "best"]


def test_a_forecast_uses_the_rows_that_were_scored(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    predicted_run.write_config(**{"evaluations.other.split": {"seed": 1}})
    run = predicted_run.open()
    evaluate.evaluate(run, evaluation="other")
    scores = evaluations.read(run.workspace.evaluation(0, "best@other"))["best@other"]
    assert scores.all.rows < 21
    result = forecast.forecast(run, evaluation="other")
    assert result["facts"]["rows"] == [scores.seen.rows, scores.unseen.rows]


def test_the_base_model_has_a_forecast(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    evaluate.evaluate(run, "base")
    score(run, 0.1)  # of the best adapter
    result = forecast.forecast(run, "base")
    assert result["score"] is None
    (record,) = forecasts(run)
    assert (record.label, record.layers.get("adapter")) == ("base", None)


def test_a_contaminated_cv_is_refused(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    split = dataset.load(run.config, run.workspace).split
    trained = dag.folder(run, "train")
    Lineage(frozenset({*split.train, split.valid[0]})).write(trained / "adapter" / "lineage.json")
    run_fixture.seal(trained)
    with pytest.raises(StaleInput, match=r"stale \(model round-0/best has changed since\)"):
        forecast.forecast(run, "best")
    files.remove(dag.folder(run, "eval"))
    evaluate.evaluate(run, accept_contaminated=True)
    with pytest.raises(Contaminated, match=r"contaminated: .* Train it on this split") as error:
        forecast.forecast(run, "best")
    assert error.value.fix[0] == "train"
    assert forecasts(run) == []


def test_a_cv_without_unseen_rows_is_refused(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    path = dag.folder(run, "eval") / "scores.json"
    files.write_json(path, {**files.read_json(path), "unseen": []})
    run_fixture.seal(path.parent)
    with pytest.raises(BadConfig, match=r"no row of this CV is unseen, .* Set split") as error:
        forecast.forecast(run, "best")
    assert error.value.fix[0] == "prepare"


def test_lines_fit_a_terminal(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    forecast.forecast(predicted_run.open(), "best")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "added to the ledger" in lines


def test_the_best_of_several_epochs_is_expected_to_score_less(
    predicted_run: RunFixture, forecast_json: ForecastJson
) -> None:
    _, best = forecast_json("small.toml")
    assert best["facts"]["choice"]["among"] == 2
    seen, unseen = best["facts"]["choice"]["optimism"]
    run = predicted_run.open()
    epochs = [
        files.read_json(dag.folder(run, "train") / f"epoch-{number}.json")["scores"]
        for number in (1, 2)
    ]
    gap = abs(epochs[0]["projection@25"]["value"] - epochs[1]["projection@25"]["value"])
    assert 0.25 * seen + 0.75 * unseen > -1e-9
    assert gap > 0
    evaluate.evaluate(run, "base")
    assert forecast_json("small.toml", "--model", "base")[1]["facts"]["choice"]["among"] == 1
