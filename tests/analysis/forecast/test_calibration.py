"""Past forecasts and scores: how they are joined, and their errors and coverage."""

from dataclasses import replace
from typing import Any

import pytest

from parity.analysis.forecast import calibration
from parity.analysis.forecast.forecast import Forecast
from parity.run.ledger import Evidence, ForecastRecord, Kind

MADE = "2026-11-2{}T10:00:00+00:00"
FORECAST = Forecast(
    *(0.30, 0.30, (0.28, 0.32), (0.25, 0.35)),
    *({"cv": 1.0}, (0.25, 0.1, 0.4), (1.0, 0.9, 1.1), 0),
)


def forecast_record(day: int = 1, **changes: Any) -> ForecastRecord:
    defaults: dict[str, Any] = {
        "run": "demo",
        "round": 0,
        "label": "best",
        "board": "public",
        "layers": {"adapter": "aa", "base": "bb", "template": "cc", "split": "dd"},
        "key": f"{day}",
        "forecast": FORECAST.as_json(),
        "facts": {},
        "made": MADE.format(day),
    }
    return ForecastRecord(**defaults | changes)


def scored(value: float, day: int = 5, kind: Kind = "public", adapter: str = "aa") -> Evidence:
    layers = {"adapter": adapter, "base": "bb", "template": "cc"}
    score = {"map@25": value, "ref": 7, "key": "k"}
    return Evidence("demo", 0, "test", kind, "clean", layers, score, made=MADE.format(day))


def test_a_score_is_joined_with_the_last_forecast_before_it() -> None:
    result = calibration.join_scores(
        [scored(0.31)],
        [
            forecast_record(1),
            forecast_record(3),
            forecast_record(7),
            forecast_record(4, board="private"),
        ],
    )
    assert [(item.created, item.score) for item in result] == [(MADE.format(3), 0.31)]
    assert result[0].name == "demo/round-0/best"
    assert result[0].error == pytest.approx(0.01)


@pytest.mark.parametrize(
    "score",
    [
        scored(0.3, adapter="other"),
        scored(0.3, kind="private"),
        replace(scored(0.3), run="another"),
        replace(scored(0.3), round=1),
        replace(scored(0.3), kind="kernel"),
    ],
    ids=["adapter", "board", "run", "round", "kernel"],
)
def test_a_score_of_another_adapter_or_board_is_ignored(score: Evidence) -> None:
    assert calibration.join_scores([score], [forecast_record()]) == []


@pytest.mark.parametrize(
    "score",
    [
        {"mrr@10": 0.4, "ref": 7, "key": "k"},
        {"metric": "fbeta", "beta": 2.0, "threshold": 0.0, "count": 5, "k": 50, "f2@50": 0.4},
    ],
    ids=["key alone", "metric and key"],
)
def test_a_score_of_another_metric_is_joined_too(score: dict[str, Any]) -> None:
    record = replace(scored(0.0), score=score)
    result = calibration.join_scores([record], [forecast_record()])
    assert [item.score for item in result] == [0.4]


def test_a_second_score_of_one_forecast_is_ignored() -> None:
    result = calibration.join_scores([scored(0.3), scored(0.4)], [forecast_record()])
    assert [item.score for item in result] == [0.3]


def test_errors_and_coverage_by_hand() -> None:
    checked = calibration.join_scores(
        [scored(0.31, adapter="a"), scored(0.34, adapter="b"), scored(0.40, adapter="c")],
        [
            forecast_record(day, layers={"adapter": name, "base": "bb", "template": "cc"})
            for day, name in enumerate("abc")
        ],
    )
    result = calibration.check_forecasts(checked)
    assert result is not None
    assert result.count == 3
    assert result.mean_error == pytest.approx(0.05)
    assert result.rmse == pytest.approx(((0.01**2 + 0.04**2 + 0.10**2) / 3) ** 0.5)
    assert (result.half, result.wide) == pytest.approx((1 / 3, 2 / 3))
    lines = calibration.text(checked).splitlines()
    assert [line.endswith("out") for line in lines[1:4]] == [False, False, True]
    assert "rmse 0.0624, mean error +0.0500; inside 50 %: 33%, inside 90 %: 67%" in lines[4]
    assert max(map(len, lines)) <= 80


def test_without_a_score_the_text_says_so() -> None:
    assert calibration.text(calibration.join_scores([], [forecast_record()])) == "no score yet"
    assert calibration.check_forecasts([]) is None
