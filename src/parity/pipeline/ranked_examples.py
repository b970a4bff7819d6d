"""Some validation rows with their ranked passages: ids, and texts on request."""

from collections.abc import Sequence

from parity.analysis.report.html import Fold, ReportSection, Table
from parity.competition.query import Position, Query, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring import metrics
from parity.pipeline.dataset import Dataset

_EACH = 3  # number of examples per slice: the best, the middle and the worst
_SHOWN = 10  # number of ranks shown; right passages at lower ranks are shown too
_TITLE = "Examples"

Row = tuple[float, QueryId]
"""Negative score and row id, so that the best row sorts first."""


def examples(
    ranking: Ranking | None, data: Dataset, round_: int, command: str, *, with_text: bool
) -> ReportSection:
    """Return the best, middle and worst ranked rows of the seen and the unseen slice.

    Args:
        ranking: ranking of the validation rows; None if it is not clean and current.
        data: dataset with its split.
        round_: number of the round whose best adapter ranked.
        command: command that shows the texts.
        with_text: whether to show the texts of query and passages too.
    """
    if ranking is None:
        return ReportSection(
            "examples", _TITLE, ("No clean and current ranking of the validation set.",)
        )
    metric = data.metric
    ranking = ranking.top(metric.k)
    values = metrics.row_scores(ranking, data.valid_qrels, metric)
    queries = {query.query_id: query for query in data.valid}
    blocks = []
    for unseen in (False, True):
        order = sorted(
            (-value, row) for row, value in values.items() if (row in data.split.unseen) == unseen
        )
        for _, row in _picked(order):
            blocks.append(_fold(queries[row], ranking, data, values[row], with_text=with_text))
    lines = (
        f"Of the seen and of the unseen rows the best, the middle and the worst of round "
        f"{round_}. The first {_SHOWN} ranks and every right one are shown.",
        "Seen: a row of train has this label. Text of the competition stands in the HTML "
        f"alone, and only after: {command}",
    )
    return ReportSection("examples", _TITLE, lines, tuple(blocks))


def _picked(order: Sequence[Row]) -> list[Row]:
    """Return the first, the middle and the last row, without duplicates."""
    last = len(order) - 1
    indices = sorted({round(last * step / (_EACH - 1)) for step in range(_EACH)}) if order else []
    return [order[index] for index in indices]


def _fold(query: Query, ranking: Ranking, data: Dataset, value: float, *, with_text: bool) -> Fold:
    row = query.query_id
    right, seen = data.qrels[row], data.positives
    answer = ranking.of((row,))
    ids = [Position(int(position)) for position in answer.positions[0]]
    scores = answer.scores[0]
    ranked = [
        (str(rank), position, f"{score:.4f}")
        for rank, (position, score) in enumerate(zip(ids, scores, strict=True), start=1)
        if rank <= _SHOWN or position in right
    ]
    ranked += [("below", position, "-") for position in sorted(right - set(ids))]
    cells = [
        (
            rank,
            data.corpus.ids[position],
            "RIGHT" if position in right else "",
            "seen" if position in seen else "unseen",
            shown_score,
        )
        for rank, position, shown_score in ranked
    ]
    marks = tuple("right" if position in right else "" for _, position, _ in ranked)
    caption = f"Ranking of {row}"
    head = ("rank", "passage", "right", "in train", "score")
    plain = Table(caption, head, tuple(cells), marks)
    slice_ = "unseen" if row in data.split.unseen else "seen"
    summary = f"{row}, {slice_}: {data.metric.title} {value:.3f}"
    if not with_text:
        return Fold(summary, (), plain)
    fields = tuple(f"{name.capitalize()}: {text}" for name, text in query.fields.items())
    texts = (data.corpus[position] for _, position, _ in ranked)
    full = tuple((*row_cells, text) for row_cells, text in zip(cells, texts, strict=True))
    return Fold(summary, fields, plain, Table(caption, (*head, "text"), full, marks))
