"""Drawings of a report as inline SVG: the same numbers give the same bytes.

Text is drawn as outlines, so that a page needs no font; ids carry the drawing's name, so that
several stand in one page.
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

_WIDE, _HIGH = 5.0, 3.6  # inches; narrow, so that a phone shows letters at nearly their size
_ROW = 0.22  # inches that a row of its own needs
_DARK, _ORANGE, _BLUE, _GREY = "#1b1f24", "#b34700", "#0b57a4", "#6b7480"
_STYLE = {
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify": False,
}
_ASIDE = 0.04  # epochs that seen and unseen stand beside each other, so that no bar hides one
_ROOM = 0.08  # of the span, left free around points


@dataclass(frozen=True, slots=True)
class Point:
    """A run's CV and what a leaderboard showed.

    Attributes:
        name: of the run.
        cv: MAP with its 95 % interval.
        board: the number, with the interval that as many rows as CV's would give it.
    """

    name: str
    cv: Interval
    board: Interval


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over epochs.

    Attributes:
        name: of the line.
        at: place of each value on the axis, ascending.
        values: one for each place.
        unseen: whether it is of the rows with an unseen misconception, which are drawn dashed.
    """

    name: str
    at: tuple[float, ...]
    values: tuple[Interval, ...]
    unseen: bool


@dataclass(frozen=True, slots=True)
class ForecastPoint:
    """A forecast beside its score.

    Attributes:
        name: what was forecast.
        median, half, wide: the forecast, with its 50 % and 90 % interval.
        score: what came; None until it does.
    """

    name: str
    median: float
    half: tuple[float, float]
    wide: tuple[float, float]
    score: float | None


def against(points: Sequence[Point]) -> str:
    """Return CV against leaderboard with the line on which the two are equal."""
    title = "CV against leaderboard, with the line where both are equal"
    with _drawn("against", title, _told_of(points)) as (axes, svg):
        ends = [
            end for point in points for it in (point.cv, point.board) for end in (it.low, it.high)
        ]
        low, high = min(ends), max(ends)
        room = max((high - low) * _ROOM, 1e-3)
        low, high = low - room, high + room
        axes.plot([low, high], [low, high], color=_GREY, linestyle="--", label="equal")
        for one in points:
            axes.errorbar(
                [one.cv.value],
                [one.board.value],
                xerr=_arms([one.cv]),
                yerr=_arms([one.board]),
                fmt="o",
                color=_BLUE,
                capsize=3,
            )
        for place, one in enumerate(points, start=1):
            axes.annotate(
                str(place), (one.cv.value, one.board.value), (5, 5), textcoords="offset points"
            )
        axes.set(xlabel="CV, MAP", ylabel="leaderboard, MAP", xlim=(low, high), ylim=(low, high))
        _named(axes)
    return svg[0]


def epochs(curves: Sequence[Curve]) -> str:
    """Return seen and unseen MAP per epoch with their 95 % intervals."""
    told = "; ".join(
        f"{curve.name}: {', '.join(f'{value.value:.3f}' for value in curve.values)}"
        for curve in curves
    )
    with _drawn("epochs", "Seen and unseen MAP after each epoch", told) as (axes, svg):
        for one in curves:
            axes.errorbar(
                [place + (_ASIDE if one.unseen else -_ASIDE) for place in one.at],
                [value.value for value in one.values],
                yerr=_arms(one.values),
                fmt="s--" if one.unseen else "o-",
                color=_ORANGE if one.unseen else _BLUE,
                capsize=3,
            )
        for unseen, name in ((False, "seen"), (True, "unseen")):
            style, color = ("s--", _ORANGE) if unseen else ("o-", _BLUE)
            axes.plot([], [], style, color=color, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch, over all rounds", ylabel="MAP")
        axes.set_ylim(bottom=0)
        last = max(place for curve in curves for place in curve.at)
        axes.set_xlim(0.5, last + 0.5)
        _named(axes)
    return svg[0]


def forecasts(made: Sequence[ForecastPoint]) -> str:
    """Return each forecast's intervals with the score that came."""
    told = "; ".join(
        f"{one.name}: {one.median:.3f}, 90 % {one.wide[0]:.3f} to {one.wide[1]:.3f}, "
        + ("no score yet" if one.score is None else f"score {one.score:.3f}")
        for one in made
    )
    title = "Forecasts and the scores that came"
    with _drawn("forecasts", title, told, rows=len(made)) as (axes, svg):
        for row, one in enumerate(made, start=1):
            axes.plot(one.wide, [row, row], color=_BLUE, linewidth=1.5)
            axes.plot(one.half, [row, row], color=_BLUE, linewidth=5, solid_capstyle="butt")
            axes.plot([one.median], [row], "|", color=_DARK, markersize=12)
            if one.score is not None:
                axes.plot([one.score], [row], "D", color=_ORANGE)
        axes.plot([], [], color=_BLUE, linewidth=1.5, label="90 %")
        axes.plot([], [], color=_BLUE, linewidth=5, label="50 %")
        axes.plot([], [], "D", color=_ORANGE, linestyle="", label="score")
        axes.set_yticks(range(1, len(made) + 1))
        axes.set(xlabel="MAP", ylabel="forecast", ylim=(len(made) + 0.7, 0.3))
        _named(axes)
    return svg[0]


def times(seconds: Sequence[tuple[str, float]]) -> str:
    """Return seconds by stage as bars."""
    told = "; ".join(f"{name}: {value:.1f} s" for name, value in seconds)
    with _drawn("times", "Seconds by stage", told, rows=len(seconds)) as (axes, svg):
        places = range(len(seconds))
        axes.barh(places, [value for _, value in seconds], color=_BLUE)
        axes.set_yticks(places, [name for name, _ in seconds])
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
    return svg[0]


def _named(axes: Axes) -> None:
    """Put the legend above the axes, where it hides nothing."""
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _told_of(points: Sequence[Point]) -> str:
    return "; ".join(
        f"{place} {one.name}: CV {one.cv.value:.3f}, leaderboard {one.board.value:.3f}"
        for place, one in enumerate(points, start=1)
    )


def _arms(found: Sequence[Interval]) -> list[list[float]]:
    """Return how far intervals reach below and above; a value may lie outside its interval."""
    return [
        [max(one.value - one.low, 0.0) for one in found],
        [max(one.high - one.value, 0.0) for one in found],
    ]


@contextmanager
def _drawn(name: str, title: str, told: str, *, rows: int = 0) -> Iterator[tuple[Axes, list[str]]]:
    """Give axes to draw on, with room for so many rows, and a list that then holds the SVG."""
    done: list[str] = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a person's own matplotlibrc says
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        high = max(_HIGH, 1 + _ROW * rows)
        figure = Figure(figsize=(_WIDE, high), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.add_subplot(), done
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    done.append(_inlined(file.getvalue(), name, title, told))


def _inlined(text: str, name: str, title: str, told: str) -> str:
    """Return an `<svg>` that may stand beside others, with a title and a description."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    box = re.search(r'viewBox="[^"]*"', body)
    assert box is not None  # matplotlib writes one
    head = (
        f'<svg role="img" aria-labelledby="{name}-title {name}-desc" {box.group()}>\n'
        f' <title id="{name}-title">{html.escape(title)}</title>\n'
        f' <desc id="{name}-desc">{html.escape(told)}</desc>'
    )
    return head + body[body.index(">") + 1 :].rstrip()
