"""A run's report: complete, the same each time, without text unless asked, fit for a browser."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline.run_fixture import Bench

from parity.pipeline import dataset
from parity.pipeline.command_cores import report, report_sections
from parity.pipeline.command_cores.attribute import attribute
from parity.pipeline.command_cores.report_sections import standings
from parity.run import ledger
from parity.run.experiment import Run
from parity.run.ledger import Evidence, ForecastRecord

SECTIONS = (
    *("stages", "scores", "hidden", "against", "epochs", "layers", "parts"),
    *("forecasts", "examples", "costs", "evidence"),
)
POLICY = "<meta http-equiv[^>]*>"
SECONDS = 60
CHROMIUM = shutil.which("chromium")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no browser; apt-get install chromium")


def cv_of(run: Run) -> Evidence:
    (found,) = ledger.read(run.workspace.ledger)
    return found


def forecast(run: Run, *, median: float, made: str) -> None:
    told = {"median": median, "mean": median, "half": [0.3, 0.4], "wide": [0.2, 0.5], "pairs": 0}
    told |= {"sources": {}, "share": [0.2, 0.1, 0.3], "factor": [1.0, 0.9, 1.1]}
    layers = {name: value for name, value in cv_of(run).layers.items() if value}
    one = ForecastRecord(run.config.name, 0, "best", "public", layers, "", told, {}, made)
    assert ledger.append_forecast(run.workspace.ledger, one)


def score(run: Run, number: float) -> None:
    cv = ledger.read(run.workspace.ledger)[0]
    shown = replace(cv, kind="public", label="test", score={"map@25": number}, facts={})
    ledger.append(run.workspace.ledger, replace(shown, made="2027-01-01T00:00:00+00:00"))


def rehearse(run: Run, *, adapter: str) -> None:
    cv = cv_of(run)
    layers = {**cv.layers, "adapter": adapter or cv.layers["adapter"]}
    other = replace(cv, kind="rehearsal", label="test", status="unscored", score={}, layers=layers)
    ledger.append(run.workspace.ledger, other)


def written(run: Run, *, with_text: bool = False) -> tuple[str, str]:
    markdown = report.report(run, with_text=with_text).read_text(encoding="utf-8")
    return run.workspace.report_html.read_text(encoding="utf-8"), markdown


def part(text: str, name: str) -> str:
    """Return one section of the HTML, from its heading on."""
    return text.split(f'<h2 id="{name}">')[1].split("</section>")[0]


def test_the_same_run_gives_the_same_bytes_and_every_section(made: Bench) -> None:
    run = made.run()
    html, markdown = written(run)
    assert written(run) == (html, markdown)
    assert tuple(re.findall(r'<h2 id="(\w+)"', html)) == SECTIONS
    assert len(re.findall("^## ", markdown, re.MULTILINE)) == len(SECTIONS)
    assert str(made.folder / "data") not in html + markdown


def test_it_tells_the_next_command_every_score_and_what_is_not_there_yet(made: Bench) -> None:
    html, markdown = written(made.run())
    assert "Next: invoke package --run small.toml" in markdown
    assert all(f"| {name} |" in markdown for name in ("BM25", "TF-IDF", "round 0"))
    assert "No score of a leaderboard in the ledger yet." in part(html, "against")
    assert "Nothing to compare yet" in part(html, "layers")
    assert "No forecast yet: invoke forecast --run small.toml" in part(html, "forecasts")
    assert "round 0, epoch 2" in part(html, "epochs")
    assert 'id="epochs-title"' in part(html, "epochs")
    took = re.search(r"\| train of round 0 \| done \| (\d+) \|", markdown)
    assert took is not None


def test_a_score_stands_beside_its_cv_and_judges_its_forecast(made: Bench) -> None:
    run = made.run()
    forecast(run, median=0.35, made="2026-12-01T00:00:00+00:00")
    score(run, 0.6)
    html, markdown = written(run)
    cv = ledger.read(run.workspace.ledger)[0].score["all"]["map@25"]["value"]
    assert f"| 1 small, round 0, public | {cv:.4f} " in markdown
    assert f"| 0.6000 | {0.6 - cv:+.4f} |" in markdown
    assert "0.6000 | OUTSIDE 90 % |" in markdown
    assert "1 scores arrived: rmse 0.2500, mean error +0.2500" in part(html, "forecasts")
    assert 'id="against-title"' in part(html, "against")


def test_what_makes_a_gap_is_told_once_it_was_attributed(
    made: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.run()
    assert "Nothing attributed yet" in part(written(run)[0], "parts")
    name = ledger.id_of(cv_of(run))
    ladder = attribute([name, "0.3"])["ladder"]
    attribute([name, "0.3"])  # again: the pair has one table
    said = capsys.readouterr().out
    html, markdown = written(run)
    told = part(html, "parts")
    assert told.count("<table") == 1
    assert re.findall(r'<th scope="row">([^<]*)</th>', told) == [
        "A",
        *(one["layer"] for one in ladder["rungs"]),
        "B less A",
    ]
    for one in ladder["rungs"]:
        assert f"| {one['layer']} | {one['part']['value']:+.4f} |" in markdown
        assert f"{one['part']['value']:+.4f}" in said
    assert f"| B less A | {ladder['gap']:+.4f} |" in markdown


def test_a_forecast_waits_for_its_score(made: Bench) -> None:
    run = made.run()
    forecast(run, median=0.35, made="2026-12-01T00:00:00+00:00")
    told = part(written(run)[0], "forecasts")
    assert "no score yet" in told
    assert "none can be judged" in told


def test_the_first_layer_that_differs_is_marked_and_no_other(made: Bench) -> None:
    run = made.run()
    rehearse(run, adapter="f" * 64)
    html, markdown = written(run)
    told = part(html, "layers")
    assert told.count('<tr class="first">') == 1
    assert '<tr class="first"><th scope="row">adapter</th><td>DIFFERS, the first</td>' in told
    assert "| adapter | DIFFERS, the first |" in markdown
    assert "Verdict: different because adapter" in markdown


def test_two_measurements_of_one_thing_have_no_red_rung(made: Bench) -> None:
    run = made.run()
    rehearse(run, adapter="")
    told = part(written(run)[0], "layers")
    assert 'class="first"' not in told
    assert "Verdict: same" in told


def test_text_is_shown_only_where_asked_for_and_never_in_markdown(made: Bench) -> None:
    run = made.run()
    known = dataset.load(run)
    texts = {text for text in dataset.texts(known) if len(text) > 12}
    plain, markdown = written(run)
    assert [text for text in texts if text in plain or text in markdown] == []
    full, beside = written(run, with_text=True)
    assert [text for text in texts if text in beside] == []
    assert [text for text in texts if text in full] != []
    assert "not to be shared" in full
    assert "not to be shared" not in plain


def test_examples_mark_what_is_right_and_what_train_shows(made: Bench) -> None:
    run = made.run()
    known = dataset.load(run)
    told = part(written(run)[0], "examples")
    shown = re.findall(r"<summary>(\S+), (seen|unseen): average precision ([\d.]+)", told)
    assert {slice_ for _, slice_, _ in shown} == {"seen", "unseen"}
    for row, slice_, _ in shown:
        assert (row in known.split.unseen) == (slice_ == "unseen")
    folds = told.split("<details>")[1:]
    for (row, _, _), fold in zip(shown, folds, strict=True):
        right = re.findall(r'<tr class="right"><th scope="row">\w+</th><td[^>]*>(\d+)</td>', fold)
        assert set(map(int, right)) == known.qrels[row]
        marks = re.findall(r"<td[^>]*>(\d+)</td><td>(?:RIGHT)?</td><td>(seen|unseen)</td>", fold)
        assert all((int(one) in known.positives) == (mark == "seen") for one, mark in marks)
        assert len(marks) >= 10


def test_a_stale_training_shows_no_epoch(made: Bench) -> None:
    run = made.run("training.epochs=3")
    assert "No current training" in part(written(run)[0], "epochs")


def test_the_seconds_of_every_finished_stage_are_told(made: Bench) -> None:
    stood = standings(made.run())
    done = [now.manifest.seconds for *_, now in stood if now.manifest]
    assert len(done) == 5
    told = report_sections.costs(stood)
    assert told.lines[0].startswith(f"{sum(done):.0f} seconds")


# In a browser


@pytest.fixture
def page(made: Bench) -> Path:
    """Return a full report with text: a score, a forecast, a red rung."""
    run = made.run()
    forecast(run, median=0.35, made="2026-12-01T00:00:00+00:00")
    rehearse(run, adapter="f" * 64)
    score(run, 0.6)
    written(run, with_text=True)
    return run.workspace.report_html.resolve()


def chromium(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a browser without a window."""
    assert CHROMIUM is not None
    always = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *(f"--user-data-dir={page.parent / 'profile'}", "--hide-scrollbars"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=2000"),
    )
    words = [CHROMIUM, *always, *flags, page.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS)


def measured(page: Path, text: str, width: int) -> list[int]:
    """Return how wide a page is that has so much room, and how wide its room is."""
    tell = "parent.postMessage([document.documentElement.scrollWidth, innerWidth], '*')"
    text = re.sub(POLICY, "", text).replace("<details>", "<details open>")
    inner = page.with_name("inner.html")
    inner.write_text(text.replace("</body>", f"<script>{tell}</script></body>"))
    outer = page.with_name("outer.html")
    outer.write_text(
        "<script>onmessage = it => document.body.append('told ' + it.data.join(' '))</script>"
        f"<body><iframe src=inner.html style='border:0;width:{width}px;height:800px'></iframe>"
    )
    told = re.search(r"told (\d+) (\d+)", chromium(outer, "--dump-dom").stdout)
    assert told is not None
    return [int(told[1]), int(told[2])]


def shot(page: Path, name: str, text: str) -> bytes:
    """Return a picture of a text as a page."""
    beside, taken = page.with_name(f"{name}.html"), page.with_name(f"{name}.png")
    beside.write_text(text, encoding="utf-8")
    chromium(beside, "--window-size=1000,3000", f"--screenshot={taken}")
    return taken.read_bytes()


@browser
def test_a_browser_opens_it_without_a_complaint_and_its_links_lead_somewhere(page: Path) -> None:
    """The page's policy lets nothing be fetched: what would be is a complaint."""
    opened = chromium(page, "--dump-dom")
    assert "CONSOLE" not in opened.stderr
    ids = set(re.findall(r'\bid="([^"]+)"', opened.stdout))
    links = re.findall(r'<a [^>]*href="([^"]*)"', opened.stdout)
    assert len(links) == len(SECTIONS) + 2
    assert {link.removeprefix("#") for link in links} <= ids
    spoilt = page.with_name("spoilt.html")
    text = page.read_text(encoding="utf-8")
    spoilt.write_text(text.replace("</body>", '<img alt="" src="http://x.test/i.png"></body>'))
    assert "CONSOLE" in chromium(spoilt, "--dump-dom").stderr


@browser
def test_a_phone_shows_it_without_scrolling_sideways(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert measured(page, text, 360) == [360, 360]
    wide = text.replace("overflow-x: auto", "overflow-x: visible")
    assert measured(page, wide, 360)[0] > 360


@browser
def test_it_looks_the_same_without_javascript_and_prints(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    script = text.replace("</body>", "<script>document.body.remove()</script></body>")
    barred = shot(page, "barred", script)  # the page's own policy lets no script run
    assert shot(page, "whole", re.sub(POLICY, "", text)) == barred
    assert shot(page, "gone", re.sub(POLICY, "", script)) != barred
    paper = page.with_name("report.pdf")
    chromium(page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
    closed = page.with_name("closed.html")
    closed.write_text(page.read_text(encoding="utf-8").replace("::details-content", "::nothing"))
    short = page.with_name("closed.pdf")
    chromium(closed, "--no-pdf-header-footer", f"--print-to-pdf={short}")
    pages = [len(re.findall(rb"/Type /Page\b", one.read_bytes())) for one in (paper, short)]
    assert pages[0] > pages[1]  # what is folded is printed
