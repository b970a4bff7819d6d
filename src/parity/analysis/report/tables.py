"""Render tables of scores for a terminal of 80 columns and for Markdown."""

from typing import Literal

from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores
from parity.competition.scoring.row_metrics import Metric
from parity.run.errors import Mismatch
from parity.run.progress import wrap_lines

_NAME, _COLUMN, _GAP = 14, 14, "  "  # four columns and a name are 78 wide
_SCORES = ("all", "seen", "unseen", "projection")
_RECALLS = ("all", "seen", "unseen")
_NONE = "-"

Rows = list[tuple[str, Scores]]
Cells = list[Interval | None]


def scores_table(rows: Rows, *, style: Literal["text", "markdown"]) -> str:
    """Return a table of scores, below a header that describes the scored rows.

    Intervals are 95 % over questions. All rows of a table share depth, seen share and the numbers
    of rows and questions; scores that differ in one of these are not comparable.

    Args:
        rows: name and scores, in order; at least one row.
        style: `text` is at most 78 columns wide and needs no color.

    Raises:
        Mismatch: two scores were measured on different rows, depths or seen shares.
    """
    if style == "markdown":
        head, titles, body = cells(rows)
        return f"{' '.join(head)}\n\n{_markdown(titles, body)}"
    _check(rows)
    first = rows[0][1]
    head = _head(first)
    return "\n".join([*head, "", *_text(rows, first.metric)]) + "\n"


def cells(rows: Rows) -> tuple[list[str], list[str], list[list[str]]]:
    """Return the header lines, the titles of columns, and each row's cells, the name first.

    Raises:
        Mismatch: as `scores_table`.
    """
    _check(rows)
    metric = rows[0][1].metric
    titles = [
        "",
        *(f"{metric.title} {name}" for name in _SCORES),
        *(f"Recall@{metric.k} {name}" for name in _RECALLS),
    ]
    body = [
        [name, *(_cell(interval) for interval in (*_score_cells(scores), *_recalls(scores)))]
        for name, scores in rows
    ]
    return _head(rows[0][1]), titles, body


def _check(rows: Rows) -> None:
    first = rows[0][1]
    for name, scores in rows:
        if _basis(scores) != _basis(first):
            raise Mismatch(
                f"{name} and {rows[0][0]} differ in rows, depth or seen share "
                f"({_basis(scores)} and {_basis(first)}). Show them in separate tables."
            )


def _basis(scores: Scores) -> tuple[Metric | float, ...]:
    parts = (scores.all, scores.seen, scores.unseen)
    return (
        scores.metric,
        scores.seen_share,
        *(n for part in parts for n in (part.rows, part.questions)),
    )


def _head(scores: Scores) -> list[str]:
    total, unseen = scores.all.rows, scores.unseen.rows
    p = scores.seen_share
    lines = [
        f"{total} rows of {scores.all.questions} questions, {unseen} of them "
        f"({unseen / total * 100:.0f} %) with an unseen label.",
        f"Intervals: 95 % over questions. Projection: {p:g} seen + {1 - p:g} unseen "
        f"{scores.metric.short}.",
    ]
    if scores.projection is None:
        empty = "unseen" if scores.seen.rows else "seen"
        lines.append(f"No projection: no row is {empty}.")
    return lines


def _text(rows: Rows, metric: Metric) -> list[str]:
    values = [(name, _score_cells(scores)) for name, scores in rows]
    recalls = [(name, _recalls(scores)) for name, scores in rows]
    score_lines = _block(metric.title, _SCORES, values)
    return [*score_lines, "", *_block(f"Recall@{metric.k}", _RECALLS, recalls)]


def _block(title: str, columns: tuple[str, ...], rows: list[tuple[str, Cells]]) -> list[str]:
    head = _line(title, columns)
    lines = [head, "-" * len(_line("", ("-" * _COLUMN,) * len(columns)))]
    for name, cells in rows:
        shown = name
        if len(name) > _NAME:  # a long name gets a line of its own
            lines += wrap_lines(name)
            shown = ""
        lines.append(_line(shown, tuple(map(_cell, cells))))
    return lines


def _line(name: str, cells: tuple[str, ...]) -> str:
    return _GAP.join([name.ljust(_NAME), *(cell.ljust(_COLUMN) for cell in cells)]).rstrip()


def _markdown(titles: list[str], rows: list[list[str]]) -> str:
    lines = [_row(titles), _row(["---", *["--:"] * (len(titles) - 1)])]
    lines += [_row([name.replace("|", "\\|"), *row]) for name, *row in rows]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _score_cells(scores: Scores) -> Cells:
    return [scores.all.score, scores.seen.score, scores.unseen.score, scores.projection]


def _recalls(scores: Scores) -> Cells:
    return [scores.all.recall, scores.seen.recall, scores.unseen.recall]


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return _NONE
    return f"{_three(interval.value)} {_three(interval.low)}-{_three(interval.high)}"


def _three(share: float) -> str:
    # Four characters: .123 below 1, else 1.00.
    text = f"{share:.3f}"
    return text[1:] if text.startswith("0") else f"{share:.2f}"
