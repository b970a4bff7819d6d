"""Past forecasts against scores: which judges which, and what is told of them."""

from dataclasses import replace
from typing import Any

import pytest

from parity.analysis.forecast import calibration
from parity.analysis.forecast.forecast import Forecast
from parity.run.ledger import Evidence, ForecastRecord, Kind

MADE = "2026-11-2{}T10:00:00+00:00"
FOUND = Forecast(
    *(0.30, 0.30, (0.28, 0.32), (0.25, 0.35)),
    *({"cv": 1.0}, (0.25, 0.1, 0.4), (1.0, 0.9, 1.1), 0),
)


def foretold(day: int = 1, **changes: Any) -> ForecastRecord:
    usual: dict[str, Any] = {
        "run": "demo",
        "round": 0,
        "label": "best",
        "board": "public",
        "layers": {"adapter": "aa", "base": "bb", "template": "cc", "split": "dd"},
        "key": f"{day}",
        "forecast": FOUND.as_json(),
        "facts": {},
        "made": MADE.format(day),
    }
    return ForecastRecord(**usual | changes)


def scored(value: float, day: int = 5, kind: Kind = "public", adapter: str = "aa") -> Evidence:
    layers = {"adapter": adapter, "base": "bb", "template": "cc"}
    score = {"map@25": value, "ref": 7, "key": "k"}
    return Evidence("demo", 0, "test", kind, "clean", layers, score, made=MADE.format(day))


def test_a_score_judges_the_last_forecast_made_before_it() -> None:
    found = calibration.joined(
        [scored(0.31)], [foretold(1), foretold(3), foretold(7), foretold(4, board="private")]
    )
    assert [(one.made, one.score) for one in found] == [(MADE.format(3), 0.31)]
    assert found[0].name == "demo/round-0/best"
    assert found[0].error == pytest.approx(0.01)


@pytest.mark.parametrize(
    "other",
    [
        scored(0.3, adapter="other"),
        scored(0.3, kind="private"),
        replace(scored(0.3), run="another"),
        replace(scored(0.3), round=1),
        replace(scored(0.3), kind="kernel"),
    ],
    ids=["adapter", "board", "run", "round", "kernel"],
)
def test_what_is_of_something_else_judges_nothing(other: Evidence) -> None:
    assert calibration.joined([other], [foretold()]) == []


def test_a_score_told_twice_judges_once() -> None:
    assert [one.score for one in calibration.joined([scored(0.3), scored(0.4)], [foretold()])] == [
        0.3
    ]


def test_how_they_did() -> None:
    judged = calibration.joined(
        [scored(0.31, adapter="a"), scored(0.34, adapter="b"), scored(0.40, adapter="c")],
        [
            foretold(day, layers={"adapter": name, "base": "bb", "template": "cc"})
            for day, name in enumerate("abc")
        ],
    )
    found = calibration.check_forecasts(judged)
    assert found is not None
    assert found.count == 3
    assert found.mean_error == pytest.approx(0.05)
    assert found.rmse == pytest.approx(((0.01**2 + 0.04**2 + 0.10**2) / 3) ** 0.5)
    assert (found.half, found.wide) == pytest.approx((1 / 3, 2 / 3))
    lines = calibration.text(judged).splitlines()
    assert [line.endswith("out") for line in lines[1:4]] == [False, False, True]
    assert "rmse 0.0624, mean error +0.0500; inside 50 %: 33%, inside 90 %: 67%" in lines[4]
    assert max(map(len, lines)) <= 80


def test_no_score_yet() -> None:
    assert calibration.text(calibration.joined([], [foretold()])) == "no score yet"
    assert calibration.check_forecasts([]) is None
