"""Build the sections of a report with scores: the main models, and all models and evaluations."""

from collections.abc import Iterable, Sequence

from parity.analysis.report import tables
from parity.analysis.report.html import ReportSection, Table
from parity.competition.scoring.bootstrap import Interval
from parity.pipeline.score_tables import ScoreTable, describe_losses, describe_quick_looks


def scored(name: str, title: str, rows: tables.Rows, lines: Iterable[str]) -> ReportSection:
    """Return a section with a table of scores and their intervals."""
    if not rows:
        return ReportSection(name, title, (*lines, "No score yet."))
    head, titles, body = tables.cells(rows)
    cells = tuple(tuple(row) for row in body)
    return ReportSection(
        name, title, (*head, *lines), (Table(title, ("scored", *titles[1:]), cells),)
    )


def evaluations(score_tables: Sequence[ScoreTable]) -> ReportSection:
    """Return the section of every model under every settings, with differences to the first."""
    title = "Models and evaluations"
    rows, marks = [], []
    for table in score_tables:
        for model, difference in zip(table.models, table.differences, strict=True):
            gain = (difference.projection or difference.all) if difference else None
            scores, is_best = model.scores, model is table.best and len(table.models) > 1
            rows.append(
                (
                    f"{model.name}*" if is_best else model.name,
                    model.run.config.split.name,
                    str(scores.all.rows),
                    *map(cell, (scores.all.score, scores.seen.score, scores.unseen.score)),
                    cell(scores.projection),
                    f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})" if gain else "-",
                )
            )
            marks.append("equal" if is_best else "")
    if not rows:
        return ReportSection("evaluations", title, ("No clean and current score yet.",))
    head = ("model", "split", "rows", "all", "seen", "unseen", "projection", "difference")
    lines = (
        "MODEL@EVALUATION: scored under the settings of an evaluation of the run file. Difference: "
        "paired, by projection, to the first model that was scored on the same rows; 95 %. "
        "* is the best of these.",
    )
    losses = [line for table in score_tables for line in describe_losses(table)]
    losses += [line for table in score_tables for line in describe_quick_looks(table) if line]
    shown = Table(title, head, tuple(rows), tuple(marks))
    return ReportSection("evaluations", title, (*lines, *losses), (shown,))


def cell(interval: Interval | None) -> str:
    """Return a value with its interval, as tables of a report show it."""
    if interval is None:
        return "-"
    return f"{interval.value:.4f} {interval.low:.3f}-{interval.high:.3f}"
