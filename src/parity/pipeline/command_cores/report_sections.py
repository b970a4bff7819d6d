"""What a report tells: each chapter gathered from manifests, scores and the ledger."""

from collections.abc import Iterable, Iterator, Sequence

from parity.analysis.compare import conclusion
from parity.analysis.forecast import calibration
from parity.analysis.forecast.forecast import Forecast
from parity.analysis.report import plots, tables
from parity.analysis.report.html import Block, Picture, Section, Table
from parity.analysis.report.plots import Curve, Point
from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, evidence_lookup
from parity.pipeline.dag import StageGraph, StageStatus
from parity.run import files, ledger
from parity.run.experiment import Run
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest

_TOLD = ("queries", "misconceptions", "diversity", "steps", "best_epoch", "precision", "verdict")
_LEARNING = ("prepare", "mine", "train", "eval")
_GIB = 2**30
_LEAST = 0.05  # seconds or GiB: less is drawn as nothing
_WORDS = {"equal": "equal", "near": "near: harmless or noise", "unknown": "not known of both"}

Stood = list[tuple[Run, str, StageStatus]]


def standings(run: Run) -> Stood:
    """Return each stage of each round that has begun, in order, with where it stands.

    Of a round that another follows, nothing has to be shipped.
    """
    survey, count = StageGraph(), max(dag.rounds(run), 1)
    found = []
    for number in range(count):
        at = run.at(number)
        for stage in dag.STAGES if number == count - 1 else _LEARNING:
            skipped = number and stage == "prepare"
            unheld = stage == "eval" and run.config.split.kind == "full"
            if not skipped and not unheld:
                found.append((at, stage, survey.standing(at, stage)))
    return found


def story(stood: Stood) -> Section:
    """Return the stages: where each stands, how long it took, what it said; the next command."""
    rows, marks, following = [], [], ""
    for at, stage, now in stood:
        if now.state != "done":
            following = following or at.command(stage)
        said = now.why or _said(now.manifest)
        seconds = f"{now.manifest.seconds:.0f}" if now.manifest else ""
        rows.append((dag.label_of(stage, at), now.state, seconds, said))
        marks.append({"done": "equal", "stale": "near"}.get(now.state, "unknown"))
    line = f"Next: {following}" if following else "Every stage is done."
    head = ("stage", "state", "seconds", "what it says")
    table = Table("Stages of every round", head, tuple(rows), tuple(marks))
    return Section("stages", "Stages", (line,), (table,))


def scored(name: str, title: str, rows: tables.Rows, lines: Iterable[str]) -> Section:
    """Return scores with their intervals."""
    if not rows:
        return Section(name, title, (*lines, "No score yet."))
    head, titles, told = tables.cells(rows)
    cells = tuple(tuple(row) for row in told)
    return Section(name, title, (*head, *lines), (Table(title, ("scored", *titles[1:]), cells),))


def against(records: Sequence[Evidence]) -> Section:
    """Return CV against leaderboard for all runs of the ledger whose score has arrived."""
    pairs = list(_pairs(records))
    title = "CV against leaderboard"
    if not pairs:
        return Section("against", title, ("No score of a leaderboard in the ledger yet.",))
    rows, points = [], []
    for place, (score, cv, value) in enumerate(pairs, start=1):
        mean = cv.all.map
        assert mean is not None  # a CV has rows
        half = (mean.high - mean.low) / 2
        name = f"{score.run}, round {score.round}, {score.kind}"
        points.append(Point(name, mean, Interval(value, value - half, value + half)))
        projection = _interval(cv.projection) if cv.projection else "-"
        gap = f"{value - mean.value:+.4f}"
        rows.append((f"{place} {name}", _interval(mean), projection, f"{value:.4f}", gap))
    head = ("run", "CV", "projection", "leaderboard", "leaderboard less CV")
    lines = (
        "Intervals: 95 % over questions. In the picture a leaderboard's number has the width of "
        "its CV's interval, as if it had as many rows; points on the dashed line have no gap.",
    )
    picture = Picture(title, plots.against(points))
    return Section("against", title, lines, (picture, Table(title, head, tuple(rows))))


def epochs(run: Run) -> Section:
    """Return seen and unseen MAP after each epoch of each round."""
    title = "Seen and unseen after each epoch"
    curves, rows, begun = [], [], 0
    for number in range(dag.rounds(run)):
        found = list(_epochs(run.at(number)))
        for unseen in (False, True):
            kept = [
                (begun + epoch, it)
                for epoch, one in found
                if (it := (one.unseen if unseen else one.seen).map) is not None
            ]
            if kept:
                at, values = zip(*kept, strict=True)
                name = f"round {number}, {'unseen' if unseen else 'seen'}"
                curves.append(Curve(name, at, values, unseen))
        rows += [
            (f"round {number}, epoch {epoch}", *map(_cell, (one.seen.map, one.unseen.map)))
            for epoch, one in found
        ]
        begun += len(found)
    if not curves:
        return Section("epochs", title, ("No current training has scored an epoch.",))
    table = Table(title, ("epoch", "seen, MAP", "unseen, MAP"), tuple(rows))
    return Section("epochs", title, (), (Picture(title, plots.epochs(curves)), table))


def ladder(run: Run, records: Sequence[Evidence]) -> Section:
    """Return the layers from the CV to the last step of the run's way, the first red one marked."""
    title = "Layers, from CV to the last step"
    data = run.workspace.data
    ends = evidence_lookup.ends(StageGraph().compared(run), data, records)
    if len(ends) < 2:
        return Section("layers", title, ("Nothing to compare yet: no second measurement.",))
    a, b = ends
    known = evidence_lookup.known(a, b, data, records, with_text=False)
    found = conclusion.conclude(a, b, known)
    rows, marks = [], []
    for finding in found.findings:
        first = finding.layer == found.layer
        state = (
            f"DIFFERS, the {finding.role}"
            if finding.role == "first"
            else f"differs: {finding.role}"
        )
        rows.append((finding.layer, _WORDS.get(finding.state, state), "; ".join(finding.told)))
        marks.append("first" if first else finding.state)
    lines = [f"A: {a.name}. B: {b.name}.", f"Verdict: {found.line}"]
    lines += [f"Next: {found.next}"] if found.next else []
    table = Table(
        "Each layer decides the ones below it",
        ("layer", "state", "told"),
        tuple(rows),
        tuple(marks),
    )
    return Section("layers", title, tuple(lines), (table,))


def parts(run: Run) -> Section:
    """Return what made the gaps that were attributed, layer by layer."""
    title = "What makes a gap"
    path = run.workspace.attributions
    if not path.is_file():
        line = "Nothing attributed yet: invoke reconcile A B --attribute"
        return Section("parts", title, (line,))
    head = ("layer", "part", "95 %", "MAP after it", "what changed")
    shown = []
    for pair, found in sorted(files.read_json(path).items()):
        rows = [("A", "", "", f"{found['start']:.4f}", "")]
        for one in found["rungs"]:
            part = one["part"]
            between = f"{part['low']:+.4f} to {part['high']:+.4f}"
            cells = (f"{part['value']:+.4f}", between, f"{one['after']:.4f}", one["told"])
            rows.append((one["layer"], *cells))
        rows.append(("B less A", f"{found['gap']:+.4f}", "", f"{found['end']:.4f}", ""))
        shown.append(Table(f"{pair}, {found['rows']} rows", head, tuple(rows)))
    return Section("parts", title, ("Parts and remainder make the gap exactly.",), tuple(shown))


def forecasts(run: Run, records: Sequence[Evidence]) -> Section:
    """Return the forecasts of all runs, and how those did whose score has arrived."""
    title = "Forecasts"
    made = ledger.forecasts(run.workspace.ledger)
    if not made:
        return Section("forecasts", title, (f"No forecast yet: {run.command('forecast')}",))
    scores = {(one.name, one.board, one.made): one for one in calibration.joined(records, made)}
    drawn, rows = [], []
    for place, one in enumerate(made, start=1):
        told = Forecast.from_json(one.forecast)
        name = f"{one.run}/round-{one.round}/{one.label}"
        judged = scores.get((name, one.board, one.made))
        score = judged.score if judged else None
        drawn.append(
            plots.ForecastPoint(f"{place} {name}", told.median, told.half, told.wide, score)
        )
        came = ("-", "no score yet") if judged is None else (f"{judged.score:.4f}", _held(judged))
        bounds = (f"{low:.3f}-{high:.3f}" for low, high in (told.half, told.wide))
        rows.append((f"{place} {name}, {one.board}", f"{told.median:.4f}", *bounds, *came))
    head = ("forecast", "median", "50 %", "90 %", "score", "score lies")
    blocks = (Picture(title, plots.forecasts(drawn)), Table(title, head, tuple(rows)))
    return Section("forecasts", title, (_judged(list(scores.values())),), blocks)


def costs(stood: Stood) -> Section:
    """Return seconds, tokens and memory by stage."""
    rows, bars = [], []
    for at, stage, now in stood:
        if now.manifest is not None:
            label, took = dag.label_of(stage, at), now.manifest.seconds
            cells = (_tokens(now.manifest), _memory(now.manifest))
            rows.append((label, f"{took:.1f}", *cells))
            if took >= _LEAST:
                bars.append((label, took))
    title = "Times and costs"
    if not rows:
        return Section("costs", title, ("No stage has finished yet.",))
    total = sum(now.manifest.seconds for *_, now in stood if now.manifest)
    lines = (
        f"{total:.0f} seconds of wall time in all. Tokens: those computed, shared prefixes once "
        "and cached texts not at all. Memory: the GPU's or the rehearsal's peak where known.",
    )
    table = Table(title, ("stage", "seconds", "tokens", "memory, GiB"), tuple(rows))
    blocks: tuple[Block, ...] = (table,)
    if bars:
        blocks = (Picture("Seconds by stage", plots.times(bars)), table)
    return Section("costs", title, lines, blocks)


def evidence(run: Run, records: Sequence[Evidence]) -> Section:
    """Return the run's records in the ledger."""
    rows = [
        (
            *(ledger.id_of(record)[:12], record.kind, str(record.round), record.label),
            *(record.layers.get("submission", "")[:12], record.made),
        )
        for record in records
        if record.run == run.config.name and record.status != "contaminated"
    ]
    head = ("id", "kind", "round", "what", "submission", "made")
    table = Table("Records of this run", head, tuple(rows))
    return Section("evidence", "Evidence", () if rows else ("None yet.",), (table,) if rows else ())


def _said(made: Manifest | None) -> str:
    facts = made.facts if made else {}
    return "; ".join(f"{key.replace('_', ' ')} {facts[key]}" for key in _TOLD if key in facts)


def _pairs(records: Sequence[Evidence]) -> Iterator[tuple[Evidence, Scores, float]]:
    """Yield each score of a leaderboard with the newest CV of its adapter and the number."""
    for score in records:
        value = calibration.shown(score)
        cvs = [
            record
            for record in records
            if (record.run, record.round, record.kind, record.status)
            == (score.run, score.round, "cv", "clean")
            and ledger.same(record.layers, score.layers)
        ]
        if value is not None and cvs:
            yield score, Scores.from_json(cvs[-1].score), value


def _epochs(run: Run) -> Iterator[tuple[int, Scores]]:
    if StageGraph().standing(run, "train").state != "done":
        return
    number = 1
    while (path := run.workspace.epoch(run.round, number).with_suffix(".json")).is_file():
        told = files.read_json(path)["scores"]
        if told is not None:
            yield number, Scores.from_json(told)
        number += 1


def _tokens(made: Manifest) -> str:
    took = made.facts.get("took", {}).values()
    return f"{sum(one['tokens'] for one in took):,}" if took else "-"


def _memory(made: Manifest) -> str:
    hidden = made.facts.get("hidden", {}).get("memory", {})
    peaks = [one["peak"] / _GIB for one in made.facts.get("took", {}).values()]
    peaks += [made.facts.get("peak_gib", 0.0), (hidden.get("host") or 0) / _GIB]
    return f"{max(peaks):.2f}" if max(peaks) > 0 else "-"


def _held(judged: calibration.CheckedForecast) -> str:
    if judged.inside(judged.forecast.half):
        return "inside 50 %"
    return "inside 90 %" if judged.inside(judged.forecast.wide) else "OUTSIDE 90 %"


def _judged(scores: Sequence[calibration.CheckedForecast]) -> str:
    found = calibration.check_forecasts(scores)
    if found is None:
        return "No score has arrived since, so none can be judged."
    return (
        f"{found.count} scores arrived: rmse {found.rmse:.4f}, mean error {found.mean_error:+.4f}; "
        f"inside 50 %: {found.half:.0%}, inside 90 %: {found.wide:.0%}."
    )


def _cell(one: Interval | None) -> str:
    return "-" if one is None else _interval(one)


def _interval(one: Interval) -> str:
    return f"{one.value:.4f} {one.low:.3f}-{one.high:.3f}"
