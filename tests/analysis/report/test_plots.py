"""Drawings of a page: equal bytes each time, unique ids, descriptions, no requests."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib
import pytest

from parity.analysis.report import plots
from parity.analysis.report.plots import Curve, ForecastPoint, Point
from parity.competition.scoring.bootstrap import Interval

POINTS = [
    Point("a<b", Interval(0.3, 0.25, 0.35), Interval(0.28, 0.23, 0.33)),
    Point("c", Interval(0.4, 0.35, 0.45), Interval(0.31, 0.26, 0.36)),
]
CURVES = [
    Curve("round 0, seen", (1, 2), (Interval(0.4, 0.3, 0.5), Interval(0.5, 0.4, 0.6)), False),
    Curve("round 0, unseen", (1, 2), (Interval(0.2, 0.1, 0.3), Interval(0.1, 0.0, 0.2)), True),
]
FORECASTS = [
    ForecastPoint("first", 0.4, (0.38, 0.42), (0.3, 0.5), 0.45),
    ForecastPoint("second", 0.3, (0.28, 0.32), (0.2, 0.4), None),
]
DRAWINGS: dict[str, Callable[[], str]] = {
    "against": lambda: plots.against(POINTS),
    "epochs": lambda: plots.epochs(CURVES),
    "forecasts": lambda: plots.forecasts(FORECASTS),
    "times": lambda: plots.times([("mine", 3.0), ("train", 30.5)]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_numbers_give_the_same_bytes_with_any_user_settings(name: str) -> None:
    first = DRAWINGS[name]()
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": "x", "svg.fonttype": "none"}):
        assert DRAWINGS[name]() == first
    assert "<dc:date>" not in first


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_an_image_with_title_description_and_links_inside_it(name: str) -> None:
    svg = DRAWINGS[name]()
    assert svg.startswith('<svg role="img" aria-labelledby=')
    element = ElementTree.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
    assert [child.tag for child in list(element)[:2]] == ["title", "desc"]
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert all(id_.startswith(f"{name}-") for id_ in ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= set(ids)
    assert re.search(r'href="(?!#)|url\((?!#)|http|@import', svg) is None


def test_drawings_of_one_page_share_no_id() -> None:
    ids = [id_ for draw in DRAWINGS.values() for id_ in re.findall(r'\bid="([^"]+)"', draw())]
    assert len(ids) == len(set(ids))


def test_a_description_has_the_numbers_and_escaped_names() -> None:
    svg = plots.against(POINTS)
    assert "1 a&lt;b: CV 0.300, leaderboard 0.280" in svg
    assert "second: 0.300, 90 % 0.200 to 0.400, no score yet" in plots.forecasts(FORECASTS)
    assert "round 0, unseen: 0.200, 0.100" in plots.epochs(CURVES)


def test_other_numbers_give_another_drawing() -> None:
    moved = [POINTS[0], Point("c", POINTS[1].cv, Interval(0.33, 0.26, 0.36))]
    assert plots.against(moved) != plots.against(POINTS)
