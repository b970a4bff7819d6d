"""Reports of a run: complete, equal bytes each time, without text by default, for a browser."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline.run_fixture import RunFixture

from parity.pipeline import dataset, evaluations
from parity.pipeline.command_cores import report, report_sections
from parity.pipeline.command_cores.attribute import attribute
from parity.pipeline.command_cores.report_sections import standings
from parity.pipeline.stage_cores import evaluate
from parity.run import ledger
from parity.run.experiment import Run
from parity.run.ledger import Evidence, ForecastRecord

SECTIONS = (
    *("stages", "scores", "hidden", "evaluations", "against", "epochs", "layers", "parts"),
    *("forecasts", "examples", "costs", "evidence"),
)
POLICY = "<meta http-equiv[^>]*>"
SECONDS = 60
CHROMIUM = shutil.which("chromium")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no browser; apt-get install chromium")


def cv_of(run: Run) -> Evidence:
    (record,) = ledger.read(run.workspace.ledger)
    return record


def forecast(run: Run, *, median: float, date: str) -> None:
    values = {"median": median, "mean": median, "half": [0.3, 0.4], "wide": [0.2, 0.5], "pairs": 0}
    values |= {"sources": {}, "share": [0.2, 0.1, 0.3], "factor": [1.0, 0.9, 1.1]}
    layers = {name: value for name, value in cv_of(run).layers.items() if value}
    record = ForecastRecord(run.config.name, 0, "best", "public", layers, "", values, {}, date)
    assert ledger.append_forecast(run.workspace.ledger, record)


def score(run: Run, number: float) -> None:
    cv = ledger.read(run.workspace.ledger)[0]
    shown = replace(cv, kind="public", label="test", score={"map@25": number}, facts={})
    ledger.append(run.workspace.ledger, replace(shown, made="2027-01-01T00:00:00+00:00"))


def rehearse(run: Run, *, adapter: str) -> None:
    cv = cv_of(run)
    layers = {**cv.layers, "adapter": adapter or cv.layers["adapter"]}
    record = replace(cv, kind="rehearsal", label="test", status="unscored", score={}, layers=layers)
    ledger.append(run.workspace.ledger, record)


def written(run: Run, *, with_text: bool = False) -> tuple[str, str]:
    markdown = report.report(run, with_text=with_text).read_text(encoding="utf-8")
    return run.workspace.report_html.read_text(encoding="utf-8"), markdown


def part(text: str, name: str) -> str:
    """Return one section of the HTML, from its heading on."""
    return text.split(f'<h2 id="{name}">')[1].split("</section>")[0]


def test_the_same_run_gives_the_same_bytes_and_every_section(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    html, markdown = written(run)
    assert written(run) == (html, markdown)
    assert tuple(re.findall(r'<h2 id="(\w+)"', html)) == SECTIONS
    assert len(re.findall("^## ", markdown, re.MULTILINE)) == len(SECTIONS)
    assert str(predicted_run.folder / "data") not in html + markdown


def test_the_report_has_the_next_command_every_score_and_what_is_missing(
    predicted_run: RunFixture,
) -> None:
    html, markdown = written(predicted_run.open())
    assert "package --run small.toml" in markdown
    assert all(f"| {name} |" in markdown for name in ("BM25", "TF-IDF", "round 0"))
    assert "No leaderboard score in the ledger yet." in part(html, "against")
    assert "Nothing to compare yet" in part(html, "layers")
    assert "No forecast yet: " in part(html, "forecasts")
    assert "forecast --run small.toml" in part(html, "forecasts")
    assert "round 0, epoch 2" in part(html, "epochs")
    assert "Recall@25" in part(html, "epochs")
    assert 'id="epochs-title"' in part(html, "epochs")
    match = re.search(r"\| train of round 0 \| done \| (\d+) \|", markdown)
    assert match is not None


def test_a_score_is_shown_with_its_cv_and_its_forecast(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    forecast(run, median=0.35, date="2026-12-01T00:00:00+00:00")
    score(run, 0.6)
    html, markdown = written(run)
    cv = ledger.read(run.workspace.ledger)[0].score["all"]["map@25"]["value"]
    assert f"| 1 small, round 0, public | {cv:.4f} " in markdown
    assert f"| 0.6000 | {0.6 - cv:+.4f} |" in markdown
    assert "0.6000 | OUTSIDE 90 % |" in markdown
    assert "1 scores: rmse 0.2500, mean error +0.2500" in part(html, "forecasts")
    assert 'id="against-title"' in part(html, "against")


def test_the_parts_of_a_gap_are_shown_after_attribution(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = predicted_run.open()
    assert "Nothing attributed yet" in part(written(run)[0], "parts")
    name = ledger.id_of(cv_of(run))
    ladder = attribute([name, "0.3"])["attribution"]
    attribute([name, "0.3"])  # the pair keeps one table
    output = capsys.readouterr().out
    html, markdown = written(run)
    section = part(html, "parts")
    assert section.count("<table") == 1
    assert re.findall(r'<th scope="row">([^<]*)</th>', section) == [
        "A",
        *(step["layer"] for step in ladder["steps"]),
        "B minus A",
    ]
    for step in ladder["steps"]:
        assert f"| {step['layer']} | {step['part']['value']:+.4f} |" in markdown
        assert f"{step['part']['value']:+.4f}" in output
    assert f"| B minus A | {ladder['gap']:+.4f} |" in markdown


def evaluation_rows(html: str) -> dict[str, list[str]]:
    """Return name → cells of the table of models and evaluations."""
    rows = re.findall(r'<tr[^>]*><th scope="row">([^<]*)</th>(.*?)</tr>', part(html, "evaluations"))
    return {name: re.findall(r"<td[^>]*>([^<]*)</td>", cells) for name, cells in rows}


def test_every_current_evaluation_is_shown_with_its_difference(predicted_run: RunFixture) -> None:
    predicted_run.write_config(**{"evaluations.short.prompt": {"query_max_length": 32}})
    run = predicted_run.open()
    for model, name in (("base", ""), ("base", "short"), ("epoch-1", "short")):
        evaluate.evaluate(run, model, evaluation=name)
    html, markdown = written(run)
    rows = {name.removesuffix("*"): cells for name, cells in evaluation_rows(html).items()}
    assert list(rows) == ["base", "best", "base@short", "epoch-1@short"]
    assert [name.endswith("*") for name in evaluation_rows(html)].count(True) == 1
    scores = evaluations.read(run.workspace.evaluation(0, "epoch-1@short"))["epoch-1@short"]
    assert scores.all.score is not None
    split, count, score, *_, difference = rows["epoch-1@short"]
    assert (split, int(count)) == ("random-s0-v0.4", scores.all.rows)
    assert score.startswith(f"{scores.all.score.value:.4f} ")
    assert rows["base"][-1] == "-"
    assert re.fullmatch(r"[-+]0\.\d{4} \([-+]0\.\d{4} to [-+]0\.\d{4}\)", difference)
    assert f"| {difference} |" in markdown


def test_a_stale_evaluation_is_not_shown(predicted_run: RunFixture) -> None:
    def shown() -> list[str]:
        return list(evaluation_rows(written(predicted_run.open())[0]))

    predicted_run.write_config(**{"evaluations.short.prompt": {"query_max_length": 32}})
    evaluate.evaluate(predicted_run.open(), "base", evaluation="short")
    assert [name.removesuffix("*") for name in shown()] == ["best", "base@short"]
    predicted_run.write_config(**{"evaluations.short.prompt": {"query_max_length": 40}})
    assert shown() == ["best"]
    predicted_run.write_config(scoring={"seed": 1})
    assert shown() == []
    section = part(written(predicted_run.open())[0], "evaluations")
    assert "No clean and current score yet." in section


def test_a_forecast_waits_for_its_score(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    forecast(run, median=0.35, date="2026-12-01T00:00:00+00:00")
    section = part(written(run)[0], "forecasts")
    assert "no score yet" in section
    assert "No score has arrived yet." in section


def test_the_first_layer_that_differs_is_marked_and_no_other(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    rehearse(run, adapter="f" * 64)
    html, markdown = written(run)
    section = part(html, "layers")
    assert section.count('<tr class="first">') == 1
    assert '<tr class="first"><th scope="row">adapter</th><td>DIFFERS, the first</td>' in section
    assert "| adapter | DIFFERS, the first |" in markdown
    assert "Result: first difference: adapter" in markdown


def test_equal_measurements_have_no_marked_layer(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    rehearse(run, adapter="")
    section = part(written(run)[0], "layers")
    assert 'class="first"' not in section
    assert "Result: same" in section


def test_text_is_shown_on_request_and_never_in_markdown(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    data = dataset.load(run.config, run.workspace)
    texts = {text for text in dataset.texts(data) if len(text) > 12}
    plain, markdown = written(run)
    assert [text for text in texts if text in plain or text in markdown] == []
    full, full_markdown = written(run, with_text=True)
    assert [text for text in texts if text in full_markdown] == []
    assert [text for text in texts if text in full] != []
    assert "do not share" in full
    assert "do not share" not in plain


def test_examples_mark_what_is_right_and_what_train_shows(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    data = dataset.load(run.config, run.workspace)
    section = part(written(run)[0], "examples")
    shown = re.findall(r"<summary>(\S+), (seen|unseen): MAP@25 ([\d.]+)", section)
    assert {slice_ for _, slice_, _ in shown} == {"seen", "unseen"}
    for row, slice_, _ in shown:
        assert (row in data.split.unseen) == (slice_ == "unseen")
    folds = section.split("<details>")[1:]
    for (row, _, _), fold in zip(shown, folds, strict=True):
        right = re.findall(r'<tr class="right"><th scope="row">\w+</th><td[^>]*>(\d+)</td>', fold)
        assert {data.corpus.at(name) for name in right} == data.qrels[row]
        marks = re.findall(r"<td[^>]*>(\d+)</td><td>(?:RIGHT)?</td><td>(seen|unseen)</td>", fold)
        assert all(
            (data.corpus.at(name) in data.positives) == (mark == "seen") for name, mark in marks
        )
        assert len(marks) >= 10


def test_a_stale_training_shows_no_epoch(predicted_run: RunFixture) -> None:
    run = predicted_run.open("training.epochs=3")
    assert "No current training" in part(written(run)[0], "epochs")


def test_the_seconds_of_every_finished_stage_are_shown(predicted_run: RunFixture) -> None:
    states = standings(predicted_run.open())
    done = [status.manifest.seconds for *_, status in states if status.manifest]
    assert len(done) == 5
    section = report_sections.costs(states)
    assert section.lines[0].startswith(f"{sum(done):.0f} seconds")


# In a browser


@pytest.fixture
def page(predicted_run: RunFixture) -> Path:
    """Return a full report with text: a score, a forecast, a marked layer."""
    run = predicted_run.open()
    forecast(run, median=0.35, date="2026-12-01T00:00:00+00:00")
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
    """Return the width of a page in a frame, and the width of the frame."""
    script = "parent.postMessage([document.documentElement.scrollWidth, innerWidth], '*')"
    text = re.sub(POLICY, "", text).replace("<details>", "<details open>")
    inner = page.with_name("inner.html")
    inner.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    outer = page.with_name("outer.html")
    outer.write_text(
        "<script>onmessage = it => document.body.append('width ' + it.data.join(' '))</script>"
        f"<body><iframe src=inner.html style='border:0;width:{width}px;height:800px'></iframe>"
    )
    match = re.search(r"width (\d+) (\d+)", chromium(outer, "--dump-dom").stdout)
    assert match is not None
    return [int(match[1]), int(match[2])]


def shot(page: Path, name: str, text: str) -> bytes:
    """Return a screenshot of a page's text."""
    copy, picture = page.with_name(f"{name}.html"), page.with_name(f"{name}.png")
    copy.write_text(text, encoding="utf-8")
    chromium(copy, "--window-size=1000,3000", f"--screenshot={picture}")
    return picture.read_bytes()


@browser
def test_a_browser_opens_it_without_errors_and_its_links_have_targets(page: Path) -> None:
    """The page's policy forbids requests, so a request is an error in the console."""
    opened = chromium(page, "--dump-dom")
    assert "CONSOLE" not in opened.stderr
    ids = set(re.findall(r'\bid="([^"]+)"', opened.stdout))
    links = re.findall(r'<a [^>]*href="([^"]*)"', opened.stdout)
    assert len(links) == len(SECTIONS) + 2
    assert {link.removeprefix("#") for link in links} <= ids
    with_request = page.with_name("spoilt.html")
    text = page.read_text(encoding="utf-8")
    with_request.write_text(
        text.replace("</body>", '<img alt="" src="http://x.test/i.png"></body>')
    )
    assert "CONSOLE" in chromium(with_request, "--dump-dom").stderr


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
    blocked = shot(page, "barred", script)  # the page's policy forbids scripts
    assert shot(page, "plain", re.sub(POLICY, "", text)) == blocked
    assert shot(page, "removed", re.sub(POLICY, "", script)) != blocked
    paper = page.with_name("report.pdf")
    chromium(page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
    closed = page.with_name("closed.html")
    closed.write_text(page.read_text(encoding="utf-8").replace("::details-content", "::nothing"))
    short = page.with_name("closed.pdf")
    chromium(closed, "--no-pdf-header-footer", f"--print-to-pdf={short}")
    pages = [len(re.findall(rb"/Type /Page\b", file.read_bytes())) for file in (paper, short)]
    assert pages[0] > pages[1]  # folded blocks are printed
