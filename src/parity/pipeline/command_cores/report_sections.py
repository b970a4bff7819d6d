"""Build the sections of a report from manifests, scores and the ledger."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from parity.analysis.compare import conclusion
from parity.analysis.forecast import calibration
from parity.analysis.forecast.forecast import Forecast
from parity.analysis.report import plots
from parity.analysis.report.html import Block, Picture, ReportSection, Table
from parity.analysis.report.plots import Curve, Point
from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, evidence_lookup
from parity.pipeline.command_cores import status
from parity.pipeline.command_cores.score_sections import cell
from parity.pipeline.dag import StageGraph, StageStatus
from parity.run import files, ledger
from parity.run.command_line import build_command
from parity.run.experiment import Run
from parity.run.ledger import Evidence, ForecastRecord
from parity.run.manifest import Manifest

_FACTS = ("queries", "passages", "diversity", "steps", "best_epoch", "precision", "result")
_GIB = 2**30
_MIN_SECONDS = 0.05  # shorter stages have no bar
_WORDS = {"equal": "equal", "near": "near: harmless or noise", "unknown": "not known on both sides"}

Standings = list[tuple[Run, str, StageStatus]]
"""Run at its round, stage and state, in order."""
EpochScores = list[tuple[int, Scores]]
"""Number of an epoch, from 1, and its scores, in order."""


def standings(run: Run) -> Standings:
    """Return the state of each stage of each round that has started, in order."""
    graph = StageGraph()
    return [(step, stage, graph.standing(step, stage)) for step, stage in status.stages_of(run)]


def story(standings: Standings) -> ReportSection:
    """Return the section of stages: state, seconds and facts of each, and the next command."""
    rows, marks, command = [], [], ""
    for run, stage, stage_status in standings:
        if stage_status.state != "done":
            command = command or run.command(stage)
        details = stage_status.reason or _describe(stage_status.manifest)
        seconds = f"{stage_status.manifest.seconds:.0f}" if stage_status.manifest else ""
        rows.append((dag.label_of(stage, run), stage_status.state, seconds, details))
        marks.append({"done": "equal", "stale": "near"}.get(stage_status.state, "unknown"))
    line = f"Next: {command}" if command else "Every stage is done."
    head = ("stage", "state", "seconds", "details")
    table = Table("Stages of every round", head, tuple(rows), tuple(marks))
    return ReportSection("stages", "Stages", (line,), (table,))


def against(records: Sequence[Evidence]) -> ReportSection:
    """Return the section of CV against leaderboard, of all runs with a leaderboard score."""
    pairs = list(_pairs(records))
    title = "CV against leaderboard"
    if not pairs:
        return ReportSection("against", title, ("No leaderboard score in the ledger yet.",))
    rows, points = [], []
    for number, (score, cv, value) in enumerate(pairs, start=1):
        mean = cv.all.score
        assert mean is not None  # a CV has rows
        half = (mean.high - mean.low) / 2
        name = f"{score.run}, round {score.round}, {score.kind}"
        points.append(Point(name, mean, Interval(value, value - half, value + half)))
        projection = cell(cv.projection) if cv.projection else "-"
        gap = f"{value - mean.value:+.4f}"
        rows.append((f"{number} {name}", cell(mean), projection, f"{value:.4f}", gap))
    head = ("run", "CV", "projection", "leaderboard", "leaderboard minus CV")
    lines = (
        "Intervals: 95 % over questions. In the picture a leaderboard score has the width of its "
        "CV's interval, as if it had as many rows; points on the dashed line have no gap.",
    )
    picture = Picture(title, plots.against(points))
    return ReportSection("against", title, lines, (picture, Table(title, head, tuple(rows))))


def epochs(rounds: Sequence[EpochScores]) -> ReportSection:
    """Return the section of the scores after each epoch of each round."""
    title = "Scores after each epoch"
    curves, rows, epochs_before = [], [], 0
    for number, scored in enumerate(rounds):
        for unseen in (False, True):
            points = [
                (epochs_before + epoch, interval)
                for epoch, scores in scored
                if (interval := (scores.unseen if unseen else scores.seen).score) is not None
            ]
            if points:
                positions, values = zip(*points, strict=True)
                name = f"round {number}, {'unseen' if unseen else 'seen'}"
                curves.append(Curve(name, positions, values, unseen))
        rows += [
            (
                f"round {number}, epoch {epoch}",
                *(cell(part.score) for part in (scores.all, scores.seen, scores.unseen)),
                cell(scores.all.recall),
            )
            for epoch, scores in scored
        ]
        epochs_before += len(scored)
    if not curves:
        return ReportSection("epochs", title, ("No current training has scored an epoch.",))
    first = next(scores for scored in rounds for _, scores in scored)
    head = ("epoch", first.metric.title, "seen", "unseen", f"Recall@{first.k}")
    table = Table(title, head, tuple(rows))
    return ReportSection("epochs", title, (), (Picture(title, plots.epochs(curves)), table))


def ladder(
    compared: Mapping[str, Evidence], data: Path, records: Sequence[Evidence]
) -> ReportSection:
    """Return the section of layers from the CV to the last step, the first difference marked."""
    title = "Layers, from CV to the last step"
    ends = evidence_lookup.ends(compared, data, records)
    if len(ends) < 2:
        return ReportSection("layers", title, ("Nothing to compare yet: no second measurement.",))
    a, b = ends
    artifacts = evidence_lookup.load_artifacts(a, b, data, records, with_text=False)
    result = conclusion.conclude(a, b, artifacts)
    rows, marks = [], []
    for finding in result.findings:
        first = finding.layer == result.layer
        state = (
            f"DIFFERS, the {finding.role}"
            if finding.role == "first"
            else f"differs: {finding.role}"
        )
        rows.append((finding.layer, _WORDS.get(finding.state, state), "; ".join(finding.lines)))
        marks.append("first" if first else finding.state)
    lines = [f"A: {a.name}. B: {b.name}.", f"Result: {result.line}"]
    lines += [f"Next: {result.advice}"] if result.advice else []
    table = Table(
        "Each layer decides the ones below it",
        ("layer", "state", "details"),
        tuple(rows),
        tuple(marks),
    )
    return ReportSection("layers", title, tuple(lines), (table,))


def parts(path: Path) -> ReportSection:
    """Return the section of attributed gaps, with the part of each layer."""
    title = "Parts of a gap"
    if not path.is_file():
        line = f"Nothing attributed yet: {build_command('reconcile', 'A', 'B', '--attribute')}"
        return ReportSection("parts", title, (line,))
    head = ("layer", "part", "95 %", "score after it", "what changed")
    attributed = []
    for pair, attribution in sorted(files.read_json(path).items()):
        rows = [("A", "", "", f"{attribution['start']:.4f}", "")]
        for step in attribution["steps"]:
            part = step["part"]
            interval = f"{part['low']:+.4f} to {part['high']:+.4f}"
            cells = (f"{part['value']:+.4f}", interval, f"{step['after']:.4f}", step["change"])
            rows.append((step["layer"], *cells))
        gap, end = f"{attribution['gap']:+.4f}", f"{attribution['end']:.4f}"
        rows.append(("B minus A", gap, "", end, ""))
        attributed.append(Table(f"{pair}, {attribution['rows']} rows", head, tuple(rows)))
    line = "The parts and the remainder sum to the gap."
    return ReportSection("parts", title, (line,), tuple(attributed))


def forecasts(
    recorded: Sequence[ForecastRecord], records: Sequence[Evidence], command: str
) -> ReportSection:
    """Return the section of forecasts of all runs, with the scores that arrived."""
    title = "Forecasts"
    if not recorded:
        return ReportSection("forecasts", title, (f"No forecast yet: {command}",))
    scores = {
        (item.name, item.board, item.created): item
        for item in calibration.join_scores(records, recorded)
    }
    drawn, rows = [], []
    for number, record in enumerate(recorded, start=1):
        forecast = Forecast.from_json(record.forecast)
        name = f"{record.run}/round-{record.round}/{record.label}"
        checked = scores.get((name, record.board, record.made))
        score = checked.score if checked else None
        drawn.append(
            plots.ForecastPoint(
                f"{number} {name}", forecast.median, forecast.half, forecast.wide, score
            )
        )
        outcome = ("-", "no score yet")
        if checked is not None:
            outcome = (f"{checked.score:.4f}", _coverage(checked))
        bounds = (f"{low:.3f}-{high:.3f}" for low, high in (forecast.half, forecast.wide))
        rows.append(
            (f"{number} {name}, {record.board}", f"{forecast.median:.4f}", *bounds, *outcome)
        )
    head = ("forecast", "median", "50 %", "90 %", "score", "score is")
    blocks = (Picture(title, plots.forecasts(drawn)), Table(title, head, tuple(rows)))
    result = calibration.check_forecasts(list(scores.values()))
    line = f"{result.line}." if result else "No score has arrived yet."
    return ReportSection("forecasts", title, (line,), blocks)


def costs(standings: Standings) -> ReportSection:
    """Return the section of seconds, tokens and memory by stage."""
    rows, bars = [], []
    for run, stage, stage_status in standings:
        if stage_status.manifest is not None:
            label, seconds = dag.label_of(stage, run), stage_status.manifest.seconds
            cells = (_tokens(stage_status.manifest), _memory(stage_status.manifest))
            rows.append((label, f"{seconds:.1f}", *cells))
            if seconds >= _MIN_SECONDS:
                bars.append((label, seconds))
    title = "Times and costs"
    if not rows:
        return ReportSection("costs", title, ("No stage has finished yet.",))
    total = sum(
        stage_status.manifest.seconds for *_, stage_status in standings if stage_status.manifest
    )
    lines = (
        f"{total:.0f} seconds of wall time in total. Tokens: number computed, shared prefixes "
        "once, cached texts never. Memory: peak of the GPU or of the rehearsal, where known.",
    )
    table = Table(title, ("stage", "seconds", "tokens", "memory, GiB"), tuple(rows))
    blocks: tuple[Block, ...] = (table,)
    if bars:
        blocks = (Picture("Seconds by stage", plots.times(bars)), table)
    return ReportSection("costs", title, lines, blocks)


def evidence(run: str, records: Sequence[Evidence]) -> ReportSection:
    """Return the section of the records of the run of this name in the ledger."""
    rows = [
        (
            *(ledger.id_of(record)[:12], record.kind, str(record.round), record.label),
            *(record.layers.get("submission", "")[:12], record.made),
        )
        for record in records
        if record.run == run and record.status != "contaminated"
    ]
    head = ("id", "kind", "round", "label", "submission", "time")
    table = Table("Records of this run", head, tuple(rows))
    return ReportSection(
        "evidence", "Evidence", () if rows else ("None yet.",), (table,) if rows else ()
    )


def _describe(manifest: Manifest | None) -> str:
    facts = manifest.facts if manifest else {}
    return "; ".join(f"{key.replace('_', ' ')} {facts[key]}" for key in _FACTS if key in facts)


def _pairs(records: Sequence[Evidence]) -> Iterator[tuple[Evidence, Scores, float]]:
    """Yield each leaderboard record with the newest CV of its adapter and its score."""
    for score in records:
        value = calibration.leaderboard_score(score)
        cvs = [
            record
            for record in records
            if (record.run, record.round, record.kind, record.status)
            == (score.run, score.round, "cv", "clean")
            and ledger.is_same_model(record.layers, score.layers)
        ]
        if value is not None and cvs:
            yield score, Scores.from_json(cvs[-1].score), value


def _tokens(manifest: Manifest) -> str:
    measured = manifest.facts.get("took", {}).values()
    return f"{sum(item['tokens'] for item in measured):,}" if measured else "-"


def _memory(manifest: Manifest) -> str:
    hidden = manifest.facts.get("hidden", {}).get("memory", {})
    peaks = [item["peak"] / _GIB for item in manifest.facts.get("took", {}).values()]
    peaks += [manifest.facts.get("peak_gib", 0.0), (hidden.get("host") or 0) / _GIB]
    return f"{max(peaks):.2f}" if max(peaks) > 0 else "-"


def _coverage(checked: calibration.CheckedForecast) -> str:
    if checked.inside(checked.forecast.half):
        return "inside 50 %"
    return "inside 90 %" if checked.inside(checked.forecast.wide) else "OUTSIDE 90 %"
