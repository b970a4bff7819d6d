"""A few rows of the valid side with what the retriever ranked: ids always, text where asked for."""

from collections.abc import Sequence

from parity.analysis.report.html import Fold, Section, Table
from parity.competition import ranking as rankings
from parity.competition.query import MisconceptionId, Query, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring import metrics
from parity.pipeline import dag, evaluation
from parity.pipeline.dag import StageGraph
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage_cores import evaluate
from parity.run.experiment import Run

_EACH = 3  # examples of a slice: the best, the middle and the worst
_SHOWN = 10  # ranks shown; a right one further down is shown too
_TITLE = "Examples"

Row = tuple[float, QueryId]
"""Average precision with its sign turned, and the row: sorts best first."""


def examples(run: Run, known: Dataset, *, with_text: bool) -> Section:
    """Return the best, the middle and the worst ranked row of the seen and of the unseen slice.

    Args:
        run: at the round whose best adapter ranked.
        known: the competition as it is parted.
        with_text: show the question and the misconceptions, not only their ids.
    """
    done = StageGraph().standing(run, "eval").state == "done"
    if not done or not evaluate.read(run, evaluate.BEST):  # a contaminated one shows nothing
        return Section("examples", _TITLE, ("No clean and current ranking of the valid side.",))
    k = min(evaluation.K, len(known.corpus))
    ranking = rankings.read(dag.folder(run, "eval") / "ranking.jsonl").top(k)
    values = metrics.average_precisions(ranking, known.valid_qrels, k=k)
    asked = {query.query_id: query for query in known.valid}
    blocks = []
    for unseen in (False, True):
        order = sorted(
            (-value, row) for row, value in values.items() if (row in known.split.unseen) == unseen
        )
        for _, row in _picked(order):
            blocks.append(_one(asked[row], ranking, known, values[row], with_text=with_text))
    lines = (
        f"Of the seen and of the unseen rows the best, the middle and the worst of round "
        f"{run.round}. The first {_SHOWN} ranks and every right one are shown.",
        "Seen: a row of train has this misconception. Text of the competition stands in the HTML "
        f"alone, and only after: {run.command('report', '--with-text')}",
    )
    return Section("examples", _TITLE, lines, tuple(blocks))


def _picked(order: Sequence[Row]) -> list[Row]:
    """Return first, middle and last, each once."""
    last = len(order) - 1
    places = sorted({round(last * step / (_EACH - 1)) for step in range(_EACH)}) if order else []
    return [order[place] for place in places]


def _one(query: Query, ranking: Ranking, known: Dataset, value: float, *, with_text: bool) -> Fold:
    row = query.query_id
    right, seen = known.qrels[row], known.positives
    answer = ranking.of((row,))
    ids = [MisconceptionId(int(one)) for one in answer.ids[0]]
    scores = answer.scores[0]
    kept = [
        (str(rank), one, f"{score:.4f}")
        for rank, (one, score) in enumerate(zip(ids, scores, strict=True), start=1)
        if rank <= _SHOWN or one in right
    ]
    kept += [("below", one, "-") for one in sorted(right - set(ids))]
    cells = [
        (rank, str(one), "RIGHT" if one in right else "", "seen" if one in seen else "unseen", told)
        for rank, one, told in kept
    ]
    marks = tuple("right" if one in right else "" for _, one, _ in kept)
    caption = f"Ranking of {row}"
    head = ("rank", "misconception", "right", "in train", "score")
    plain = Table(caption, head, tuple(cells), marks)
    slice_ = "unseen" if row in known.split.unseen else "seen"
    summary = f"{row}, {slice_}: average precision {value:.3f}"
    if not with_text:
        return Fold(summary, (), plain)
    told = (
        f"Question: {query.question}",
        f"Construct: {query.construct}. Subject: {query.subject}.",
        f"Right answer: {query.correct}. Wrong answer: {query.wrong}",
    )
    texts = (known.corpus[one] for _, one, _ in kept)
    full = tuple((*told_of, text) for told_of, text in zip(cells, texts, strict=True))
    return Fold(summary, told, plain, Table(caption, (*head, "text"), full, marks))
