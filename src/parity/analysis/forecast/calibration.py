"""Check past forecasts against the scores that arrived."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parity.analysis.compare import layer_values
from parity.analysis.forecast.forecast import Forecast
from parity.run import ledger
from parity.run.ledger import Evidence, ForecastRecord

_NONE = "no score yet"
_NAME = 26  # columns of a run's name


@dataclass(frozen=True, slots=True)
class CheckedForecast:
    """A forecast and the score that came after it.

    Attributes:
        name: run, round and label.
        board: leaderboard, `public` or `private`.
        created: time of the forecast, ISO, UTC.
        forecast: the forecast.
        score: score on the leaderboard.
    """

    name: str
    board: str
    created: str
    forecast: Forecast
    score: float

    @property
    def error(self) -> float:
        """Score minus median."""
        return self.score - self.forecast.median

    def inside(self, interval: tuple[float, float]) -> bool:
        """Return whether the score is in an interval."""
        return interval[0] <= self.score <= interval[1]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Errors of a series of forecasts and how often their intervals hold.

    Attributes:
        count: number of forecasts whose score arrived.
        rmse: root mean squared error of the medians, in MAP.
        mean_error: mean of score minus median.
        half: share of scores inside the 50 % interval.
        wide: share of scores inside the 90 % interval.
    """

    count: int
    rmse: float
    mean_error: float
    half: float
    wide: float

    @property
    def line(self) -> str:
        """Summary in one line."""
        return (
            f"{self.count} scores: rmse {self.rmse:.4f}, mean error {self.mean_error:+.4f}; "
            f"inside 50 %: {self.half:.0%}, inside 90 %: {self.wide:.0%}"
        )


def join_scores(
    records: Sequence[Evidence], forecasts: Sequence[ForecastRecord]
) -> list[CheckedForecast]:
    """Return the forecasts whose score arrived, in the order of the forecasts.

    A score is joined with the last forecast of its adapter and leaderboard before it.

    Args:
        records: evidence of the ledger, oldest first.
        forecasts: forecasts of the ledger, oldest first.
    """
    last: dict[int, CheckedForecast] = {}
    for score in records:
        value = leaderboard_score(score)
        before = [
            index
            for index, record in enumerate(forecasts)
            if (record.run, record.round, record.board) == (score.run, score.round, score.kind)
            and record.made <= score.made
            and ledger.is_same_model(record.layers, score.layers)
        ]
        if value is None or not before or before[-1] in last:
            continue
        record = forecasts[before[-1]]
        name = f"{record.run}/round-{record.round}/{record.label}"
        forecast = Forecast.from_json(record.forecast)
        last[before[-1]] = CheckedForecast(name, record.board, record.made, forecast, value)
    return [last[index] for index in sorted(last)]


def leaderboard_score(record: Evidence) -> float | None:
    """Return the score of a leaderboard's record; None for another record."""
    if record.kind not in ledger.BOARDS:
        return None
    return layer_values.value(record.score)


def check_forecasts(checked: Sequence[CheckedForecast]) -> Calibration | None:
    """Return the errors and coverage of forecasts; None where no score has arrived."""
    if not checked:
        return None
    errors = np.array([item.error for item in checked])
    return Calibration(
        len(checked),
        float(np.sqrt(np.mean(errors**2))),
        float(errors.mean()),
        float(np.mean([item.inside(item.forecast.half) for item in checked])),
        float(np.mean([item.inside(item.forecast.wide) for item in checked])),
    )


def text(checked: Sequence[CheckedForecast]) -> str:
    """Return a table of the forecasts with their scores, the rmse up to each, and a summary."""
    calibration = check_forecasts(checked)
    if calibration is None:
        return _NONE
    lines = [
        f"{'forecast of':{_NAME}}  {'median':>6}  {'90 %':12}  {'score':>6}  {'error':>7}  rmse"
    ]
    for count, item in enumerate(checked, start=1):
        so_far = check_forecasts(checked[:count])
        assert so_far is not None  # the sequence is not empty
        low, high = item.forecast.wide
        name = item.name if len(item.name) <= _NAME else f"{item.name[: _NAME - 2]}.."
        out = "" if item.inside(item.forecast.wide) else "  out"
        lines.append(
            f"{name:{_NAME}}  {item.forecast.median:6.4f}  {low:.3f}-{high:.3f}   "
            f"{item.score:6.4f}  {item.error:+7.4f}  {so_far.rmse:.4f}{out}"
        )
    return "\n".join([*lines, calibration.line])
