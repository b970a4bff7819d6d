"""Draw the pictures of a report as inline SVG; equal numbers give equal bytes.

Text is drawn as outlines, so that a page needs no font; ids contain the drawing's name, so that one
page can have several drawings.
"""

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parity.competition.scoring.bootstrap import Interval

_WIDTH, _HEIGHT = 5.0, 3.6  # inches; narrow enough for a phone
_ROW = 0.22  # inches per row
_DARK, _ORANGE, _BLUE, _GREY = "#1b1f24", "#b34700", "#0b57a4", "#6b7480"
_STYLE = {
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify": False,
}
_OFFSET = 0.04  # epochs between seen and unseen, so that error bars do not overlap
_MARGIN = 0.08  # of the span, around points


@dataclass(frozen=True, slots=True)
class Point:
    """CV and leaderboard score of a run.

    Attributes:
        name: name of the run.
        cv: MAP with its 95 % interval.
        board: leaderboard score, with the interval that the CV's number of rows would give it.
    """

    name: str
    cv: Interval
    board: Interval


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over epochs.

    Attributes:
        name: name of the line.
        at: position of each value on the axis, ascending.
        values: value at each position.
        unseen: True for rows with an unseen label, which are drawn dashed.
    """

    name: str
    at: tuple[float, ...]
    values: tuple[Interval, ...]
    unseen: bool


@dataclass(frozen=True, slots=True)
class ForecastPoint:
    """A forecast and its score.

    Attributes:
        name: name of the run.
        median, half, wide: forecast, with its 50 % and 90 % interval.
        score: leaderboard score; None until it arrives.
    """

    name: str
    median: float
    half: tuple[float, float]
    wide: tuple[float, float]
    score: float | None


def against(points: Sequence[Point]) -> str:
    """Return a drawing of CV against leaderboard, with the line of equal scores."""
    title = "CV against leaderboard, with the line of equal scores"
    with _drawing("against", title, _describe(points)) as (axes, svg):
        ends = [
            end
            for point in points
            for interval in (point.cv, point.board)
            for end in (interval.low, interval.high)
        ]
        low, high = min(ends), max(ends)
        margin = max((high - low) * _MARGIN, 1e-3)
        low, high = low - margin, high + margin
        axes.plot([low, high], [low, high], color=_GREY, linestyle="--", label="equal")
        for point in points:
            axes.errorbar(
                [point.cv.value],
                [point.board.value],
                xerr=_error_bars([point.cv]),
                yerr=_error_bars([point.board]),
                fmt="o",
                color=_BLUE,
                capsize=3,
            )
        for number, point in enumerate(points, start=1):
            position = (point.cv.value, point.board.value)
            axes.annotate(str(number), position, (5, 5), textcoords="offset points")
        axes.set(xlabel="CV, MAP", ylabel="leaderboard, MAP", xlim=(low, high), ylim=(low, high))
        _add_legend(axes)
    return svg[0]


def epochs(curves: Sequence[Curve]) -> str:
    """Return a drawing of seen and unseen MAP per epoch with 95 % intervals."""
    description = "; ".join(
        f"{curve.name}: {', '.join(f'{value.value:.3f}' for value in curve.values)}"
        for curve in curves
    )
    with _drawing("epochs", "Seen and unseen MAP after each epoch", description) as (axes, svg):
        for curve in curves:
            axes.errorbar(
                [epoch + (_OFFSET if curve.unseen else -_OFFSET) for epoch in curve.at],
                [value.value for value in curve.values],
                yerr=_error_bars(curve.values),
                fmt="s--" if curve.unseen else "o-",
                color=_ORANGE if curve.unseen else _BLUE,
                capsize=3,
            )
        for unseen, name in ((False, "seen"), (True, "unseen")):
            style, color = ("s--", _ORANGE) if unseen else ("o-", _BLUE)
            axes.plot([], [], style, color=color, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch, over all rounds", ylabel="score")
        axes.set_ylim(bottom=0)
        last = max(epoch for curve in curves for epoch in curve.at)
        axes.set_xlim(0.5, last + 0.5)
        _add_legend(axes)
    return svg[0]


def forecasts(points: Sequence[ForecastPoint]) -> str:
    """Return a drawing of each forecast's intervals with the score that arrived."""
    description = "; ".join(
        f"{point.name}: {point.median:.3f}, 90 % {point.wide[0]:.3f} to {point.wide[1]:.3f}, "
        + ("no score yet" if point.score is None else f"score {point.score:.3f}")
        for point in points
    )
    title = "Forecasts and the scores that arrived"
    with _drawing("forecasts", title, description, rows=len(points)) as (axes, svg):
        for row, point in enumerate(points, start=1):
            axes.plot(point.wide, [row, row], color=_BLUE, linewidth=1.5)
            axes.plot(point.half, [row, row], color=_BLUE, linewidth=5, solid_capstyle="butt")
            axes.plot([point.median], [row], "|", color=_DARK, markersize=12)
            if point.score is not None:
                axes.plot([point.score], [row], "D", color=_ORANGE)
        axes.plot([], [], color=_BLUE, linewidth=1.5, label="90 %")
        axes.plot([], [], color=_BLUE, linewidth=5, label="50 %")
        axes.plot([], [], "D", color=_ORANGE, linestyle="", label="score")
        axes.set_yticks(range(1, len(points) + 1))
        axes.set(xlabel="score", ylabel="forecast", ylim=(len(points) + 0.7, 0.3))
        _add_legend(axes)
    return svg[0]


def times(seconds: Sequence[tuple[str, float]]) -> str:
    """Return a bar chart of seconds by stage."""
    description = "; ".join(f"{name}: {value:.1f} s" for name, value in seconds)
    with _drawing("times", "Seconds by stage", description, rows=len(seconds)) as (axes, svg):
        rows = range(len(seconds))
        axes.barh(rows, [value for _, value in seconds], color=_BLUE)
        axes.set_yticks(rows, [name for name, _ in seconds])
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
    return svg[0]


def _add_legend(axes: Axes) -> None:
    """Put the legend above the axes, where it hides nothing."""
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _describe(points: Sequence[Point]) -> str:
    return "; ".join(
        f"{number} {point.name}: CV {point.cv.value:.3f}, leaderboard {point.board.value:.3f}"
        for number, point in enumerate(points, start=1)
    )


def _error_bars(intervals: Sequence[Interval]) -> list[list[float]]:
    """Return lengths below and above each value; a value may be outside its interval."""
    return [
        [max(interval.value - interval.low, 0.0) for interval in intervals],
        [max(interval.high - interval.value, 0.0) for interval in intervals],
    ]


@contextmanager
def _drawing(
    name: str, title: str, description: str, *, rows: int = 0
) -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes to draw on, high enough for `rows`, and a list that receives the SVG."""
    result: list[str] = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignore the user's matplotlibrc
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        height = max(_HEIGHT, 1 + _ROW * rows)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.add_subplot(), result
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    result.append(_inlined(file.getvalue(), name, title, description))


def _inlined(text: str, name: str, title: str, description: str) -> str:
    """Return an `<svg>` element for a page with others, with a title and a description."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    box = re.search(r'viewBox="[^"]*"', body)
    assert box is not None  # matplotlib writes one
    head = (
        f'<svg role="img" aria-labelledby="{name}-title {name}-desc" {box.group()}>\n'
        f' <title id="{name}-title">{html.escape(title)}</title>\n'
        f' <desc id="{name}-desc">{html.escape(description)}</desc>'
    )
    return head + body[body.index(">") + 1 :].rstrip()
