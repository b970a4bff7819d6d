"""`forecast` on what real stages wrote: before a score, judged after, refused without a CV."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.__main__ import main
from parity.analysis.forecast.forecast import Forecast
from parity.competition.lineage import Lineage
from parity.pipeline import dag, dataset
from parity.pipeline.command_cores import forecast
from parity.pipeline.stage_cores import evaluate
from parity.run import ledger
from parity.run.errors import BadConfig, Contaminated, StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence, ForecastRecord

Told = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Return what starts `forecast --json` and gives its exit code and what it told a machine."""

    def start(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["forecast", *words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return start


def written(run: Run) -> list[ForecastRecord]:
    return ledger.forecasts(run.workspace.ledger)


def score(run: Run, value: float, **layers: str) -> Evidence:
    """Let a leaderboard show a score, of the run's CV or of one whose layers differ."""
    cv = next(one for one in ledger.read(run.workspace.ledger) if one.kind == "cv")
    name = layers.get("adapter", "")
    if name:
        ledger.append(run.workspace.ledger, replace(cv, run=name, layers={**cv.layers, **layers}))
    found = replace(
        cv,
        run=name or cv.run,
        kind="public",
        label="test",
        layers={**cv.layers, **layers},
        score={"map@25": value, "ref": 1, "key": "k"},
        made=ledger.now(),
    )
    ledger.append(run.workspace.ledger, found)
    return found


def test_it_is_written_once_and_only_before_the_score(made: Bench, told: Told) -> None:
    run = made.run()
    code, first = told("small.toml")
    assert code == 0
    (one,) = written(run)
    assert (one.run, one.round, one.label, one.board) == ("small", 0, "best", "public")
    assert one.forecast == first["forecast"] == Forecast.from_json(one.forecast).as_json()
    assert told("small.toml")[1] == first
    assert written(run) == [one]
    assert told("small.toml", "--set", "forecast.rows=50")[1]["key"] != first["key"]
    assert len(written(run)) == 2
    score(run, 0.1)
    code, after = told("small.toml", "--set", "forecast.rows=60")
    assert (code, after["score"]) == (0, 0.1)
    assert len(written(run)) == 2


def test_past_forecasts_are_judged(made: Bench, told: Told) -> None:
    assert told("--judge") == (0, {"judged": [], "together": None})
    run = made.run()
    median = told("small.toml")[1]["forecast"]["median"]
    score(run, median + 0.01)
    code, found = told("--judge")
    assert code == 0
    assert [one["score"] for one in found["judged"]] == [median + 0.01]
    assert found["together"]["mean_error"] == pytest.approx(0.01)
    assert found["together"]["wide"] == 1.0


def test_evidence_is_read_beside_a_forecast(made: Bench) -> None:
    before = ledger.read(made.run().workspace.ledger)
    forecast.forecast(made.run(), "best")
    assert ledger.read(made.run().workspace.ledger) == before
    assert ledger.steps(made.run().workspace.ledger) == []


def test_it_follows_from_the_cv(made: Bench, told: Told) -> None:
    run = made.run()
    scores = evaluate.read(run, "best")["best"]
    seen, unseen = scores.seen.map, scores.unseen.map
    assert seen is not None
    assert unseen is not None
    _, found = told("small.toml")
    assert found["facts"]["seen"] == pytest.approx(seen.value)
    assert found["facts"]["unseen"] == pytest.approx(unseen.value)
    assert 0 < found["facts"]["covered"] < 1
    low, high = found["forecast"]["wide"]
    assert low < found["forecast"]["median"] < high
    _, surer = told("small.toml", "--set", "forecast.share_rows=1000.0")
    assert surer["forecast"]["sources"]["share"] < 0.1 * found["forecast"]["sources"]["share"]


def test_other_adapters_scores_teach_it(made: Bench, told: Told) -> None:
    run = made.run()
    before = told("small.toml")[1]
    for name in ("one", "two", "three"):
        score(run, 2 * before["forecast"]["median"], adapter=name)
    after = told("small.toml")[1]
    assert (before["forecast"]["pairs"], after["forecast"]["pairs"]) == (0, 3)
    assert after["forecast"]["median"] > 1.4 * before["forecast"]["median"]
    assert not any(one["other"] for one in after["facts"]["pairs"])
    score(run, 0.2, adapter="four", split="another")
    assert [one["other"] for one in told("small.toml")[1]["facts"]["pairs"]] == [*[False] * 3, True]
    score(run, 0.2, adapter="five", data="of another competition")
    assert told("small.toml")[1]["forecast"]["pairs"] == 4


def test_a_table_of_pairs_teaches_it(made: Bench, told: Told) -> None:
    split = made.run().config.split.name
    Path("pairs.csv").write_text(
        "name,split,seen,unseen,score\n"
        f"bm25,{split},0.2,0.1,0.15\nolder,v1,0.3,0.1,0.2\nsmall,{split},0.9,0.9,0.9\n"
    )
    _, found = told("small.toml", "--set", "forecast.pairs=pairs.csv")
    pairs = found["facts"]["pairs"]
    assert [(pair["seen"], pair["score"], pair["other"]) for pair in pairs] == [
        (0.2, 0.15, False),
        (0.3, 0.2, True),
    ]


@pytest.mark.parametrize("text", [None, "name,seen\na,0.2\n", "name,split,seen,unseen,score\na\n"])
def test_refuses_a_table_that_is_none_of_pairs(made: Bench, text: str | None) -> None:
    if text is not None:
        Path("pairs.csv").write_text(text)
    with pytest.raises(BadConfig, match=r"forecast.pairs = pairs.csv: .*want a table of name"):
        forecast.forecast(made.run("forecast.pairs=pairs.csv"), "best")


def test_refuses_without_a_cv(bench: Bench) -> None:
    with pytest.raises(StaleInput, match=r"no CV of best .*; run: invoke eval --run small.toml"):
        forecast.forecast(bench.run(), "best")


def test_refuses_a_stale_cv(made: Bench) -> None:
    with pytest.raises(StaleInput, match=r"stale .*; run: invoke eval --run small.toml"):
        forecast.forecast(made.run("prompt.query_max_length=64"), "best")
    with pytest.raises(StaleInput, match=r"no CV of base .* --adapter base"):
        forecast.forecast(made.run(), "base")


def test_refuses_a_contaminated_cv(made: Bench) -> None:
    run = made.run()
    split = dataset.load(run).split
    trained = dag.folder(run, "train")
    Lineage(frozenset({*split.train, split.valid[0]})).write(trained / "adapter" / "lineage.json")
    benches.seal(trained)
    evaluate.evaluate(run, accept_contaminated=True)
    with pytest.raises(
        Contaminated, match=r"contaminated: .*; train it on this split: invoke train"
    ):
        forecast.forecast(run, "best")
    assert written(run) == []


def test_refuses_a_cv_of_one_slice(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made.run()
    known = dataset.load(run)
    other = replace(known, split=replace(known.split, unseen=frozenset()))
    monkeypatch.setattr(dataset, "load", lambda _: other)
    with pytest.raises(BadConfig, match=r"no row of this CV is unseen, .*invoke prepare"):
        forecast.forecast(run, "best")


def test_lines_fit_a_terminal(made: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    forecast.forecast(made.run(), "best")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "written to the ledger" in lines


def test_the_golden_backtest_needs_no_run(told: Told) -> None:
    code, found = told("--golden")
    assert code == 0
    assert found["line on CV"]["rmse"] == pytest.approx(0.0282, abs=1e-4)
