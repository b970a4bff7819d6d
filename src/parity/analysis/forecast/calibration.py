"""Were the forecasts right: past ones against the scores that arrived."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
        board: `public` or `private`.
        made: when it was forecast, ISO, UTC.
        forecast: what was forecast.
        score: what the leaderboard showed.
    """

    name: str
    board: str
    made: str
    forecast: Forecast
    score: float

    @property
    def error(self) -> float:
        """Score less median."""
        return self.score - self.forecast.median

    def inside(self, interval: tuple[float, float]) -> bool:
        """Return whether an interval holds the score."""
        return interval[0] <= self.score <= interval[1]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a series of forecasts did.

    Attributes:
        count: forecasts whose score arrived.
        rmse: of the medians, in MAP.
        mean_error: score less median.
        half: part of the scores inside the 50 % interval.
        wide: part inside the 90 % interval.
    """

    count: int
    rmse: float
    mean_error: float
    half: float
    wide: float


def joined(
    records: Sequence[Evidence], forecasts: Sequence[ForecastRecord]
) -> list[CheckedForecast]:
    """Return the forecasts whose score arrived, in the order of the forecasts.

    A score judges the last forecast of its adapter and leaderboard that was made before it.

    Args:
        records: of the ledger, oldest first.
        forecasts: of the ledger, oldest first.
    """
    last: dict[int, CheckedForecast] = {}
    for score in records:
        value = shown(score)
        before = [
            place
            for place, one in enumerate(forecasts)
            if (one.run, one.round, one.board) == (score.run, score.round, score.kind)
            and one.made <= score.made
            and ledger.same(one.layers, score.layers)
        ]
        if value is None or not before or before[-1] in last:
            continue
        one = forecasts[before[-1]]
        name = f"{one.run}/round-{one.round}/{one.label}"
        told = Forecast.from_json(one.forecast)
        last[before[-1]] = CheckedForecast(name, one.board, one.made, told, value)
    return [last[place] for place in sorted(last)]


def shown(record: Evidence) -> float | None:
    """Return the score a leaderboard showed; None of a record that is of no leaderboard."""
    if record.kind not in ledger.BOARDS:
        return None
    found = [value for key, value in record.score.items() if key.startswith("map@")]
    return float(found[0]) if found else None


def check_forecasts(judged: Sequence[CheckedForecast]) -> Calibration | None:
    """Return how forecasts did; None where no score has arrived."""
    if not judged:
        return None
    errors = np.array([one.error for one in judged])
    return Calibration(
        len(judged),
        float(np.sqrt(np.mean(errors**2))),
        float(errors.mean()),
        float(np.mean([one.inside(one.forecast.half) for one in judged])),
        float(np.mean([one.inside(one.forecast.wide) for one in judged])),
    )


def text(judged: Sequence[CheckedForecast]) -> str:
    """Return the forecasts with their scores, the rmse up to each, and how they did together."""
    found = check_forecasts(judged)
    if found is None:
        return _NONE
    lines = [
        f"{'forecast of':{_NAME}}  {'median':>6}  {'90 %':12}  {'score':>6}  {'error':>7}  rmse"
    ]
    for place, one in enumerate(judged, start=1):
        so_far = check_forecasts(judged[:place])
        assert so_far is not None  # there is one
        low, high = one.forecast.wide
        name = one.name if len(one.name) <= _NAME else f"{one.name[: _NAME - 2]}.."
        out = "" if one.inside(one.forecast.wide) else "  out"
        lines.append(
            f"{name:{_NAME}}  {one.forecast.median:6.4f}  {low:.3f}-{high:.3f}   {one.score:6.4f}"
            f"  {one.error:+7.4f}  {so_far.rmse:.4f}{out}"
        )
    return "\n".join(
        [
            *lines,
            f"{found.count} scores: rmse {found.rmse:.4f}, mean error {found.mean_error:+.4f}; "
            f"inside 50 %: {found.half:.0%}, inside 90 %: {found.wide:.0%}",
        ]
    )
