"""Tables of a run's evaluations, with paired differences between those of the same rows."""

import csv
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parity.analysis.report.tables import scores_table
from parity.competition import ranking as rankings
from parity.competition.query import QueryId
from parity.competition.scoring.bootstrap import Interval
from parity.competition.scoring.metrics import Scores
from parity.competition.scoring.significance import Difference, compare
from parity.pipeline import dataset, evaluations
from parity.pipeline.dataset import Dataset
from parity.pipeline.evaluations import ScoredModel
from parity.pipeline.model_reference import BASE
from parity.run import files
from parity.run.progress import wrap, wrap_lines

_PARTS = ("all", "seen", "unseen", "projection")
_NAME = 26  # columns of a name in the list of differences


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Evaluations of the same rows, in order, and their differences to the first one.

    Attributes:
        models: evaluations, at least one.
        differences: paired difference of each evaluation to the first; None for the first.
    """

    models: tuple[ScoredModel, ...]
    differences: tuple[Difference | None, ...]

    @property
    def best(self) -> ScoredModel:
        """Evaluation with the highest value; of equal ones the first."""
        return max(self.models, key=lambda model: model.value)


def build_tables(models: Sequence[ScoredModel]) -> list[ScoreTable]:
    """Return the evaluations in tables of the same rows, metric and seen share, in order."""
    groups: dict[tuple[object, ...], list[ScoredModel]] = {}
    for model in models:
        ranking = rankings.read(model.folder / "ranking.jsonl")
        rows = (frozenset(ranking.query_ids), model.unseen)
        key = (model.scores.metric, model.scores.seen_share, *rows)
        groups.setdefault(key, []).append(model)
    return [ScoreTable(tuple(group), _differences(group)) for group in groups.values()]


def render_table(table: ScoreTable) -> str:
    """Return a table and its differences for a terminal of 80 columns."""
    first, best = table.models[0], table.best
    rows = [*first.lexical.items()]
    rows += [(f"{m.name}*" if m is best else m.name, m.scores) for m in table.models]
    lines = [scores_table(rows, style="text").rstrip("\n")]
    if len(table.models) > 1:
        by = "projection" if first.scores.projection else "score"
        title = f"* best by {by}. Differences to {first.name}, 95 % over questions:"
        lines += ["", wrap(title)]
        for model, difference in zip(table.models, table.differences, strict=True):
            if difference is not None:
                lines.append(_difference_line(model, difference))
    return "\n".join([*lines, *map(wrap, describe_losses(table)), *describe_quick_looks(table)])


def describe_losses(table: ScoreTable) -> list[str]:
    """Return a line for each model that ranks unseen labels worse than the base model."""
    if table.models[0].label != BASE:
        return []
    lines = []
    for model, difference in zip(table.models, table.differences, strict=True):
        loss = difference.unseen if difference else None
        if loss is not None and loss.value < 0:
            lines.append(
                f"{model.name}: {-loss.value:.4f} below the base model on unseen labels "
                f"({loss.low:+.4f} to {loss.high:+.4f}{', not shown' if loss.high >= 0 else ''})"
            )
    return lines


def describe_quick_looks(table: ScoreTable) -> list[str]:
    """Return what the digests of settings without a name mean."""
    looks = {
        model.run.evaluation: model.run.config.overrides
        for model in table.models
        if model.run.evaluation not in ("", *model.run.config.evaluations)
    }
    lines = [
        f"@{name}: {' '.join(f'--set {shlex.quote(override)}' for override in overrides)}"
        for name, overrides in looks.items()
    ]
    return ["", *map(wrap, lines)] if lines else []


def as_json(tables: Sequence[ScoreTable]) -> list[dict[str, Any]]:
    """Return plain values of every evaluation, with its difference to the first of its table."""
    return [
        {
            **_columns(model),
            "scores": model.scores.as_json(),
            "difference": difference.as_json() if difference else None,
            "is_best": model is table.best,
        }
        for table in tables
        for model, difference in zip(table.models, table.differences, strict=True)
    ]


def write_csv(path: Path, tables: Sequence[ScoreTable]) -> None:
    """Write a row for each evaluation: scores and differences with their intervals."""
    rows = [
        {
            **_columns(model),
            "metric": model.scores.metric.title,
            **_cells("", _estimates(model.scores)),
            "recall": model.scores.all.recall.value if model.scores.all.recall else "",
            **_cells("difference_", {part: getattr(d, part) if d else None for part in _PARTS}),
            "is_best": model is table.best,
        }
        for table in tables
        for model, d in zip(table.models, table.differences, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]) if rows else ["model"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def with_rows_of(data: Dataset, folder: Path) -> Dataset:
    """Return a dataset whose validation set holds the rows of an evaluation.

    Args:
        data: dataset with the split of the evaluation.
        folder: folder of the evaluation.
    """
    unseen = frozenset(map(QueryId, files.read_json(folder / evaluations.SCORES)["unseen"]))
    ids = frozenset(rankings.read(folder / "ranking.jsonl").query_ids)
    units = frozenset(query.unit for query in data.valid if query.query_id in ids)
    valid = tuple(unit for unit in data.split.valid if unit in units)
    return replace(data, split=replace(data.split, valid=valid, unseen=unseen))


def _differences(models: Sequence[ScoredModel]) -> tuple[Difference | None, ...]:
    first = models[0]
    if len(models) == 1:
        return (None,)
    data = dataset.load(first.run.config, first.run.workspace)
    data = with_rows_of(data, first.folder)
    reference = rankings.read(first.folder / "ranking.jsonl")
    return (
        None,
        *(
            compare(
                rankings.read(model.folder / "ranking.jsonl"),
                reference,
                data.valid_qrels,
                first.unseen,
                first.run.config.scoring,
                first.scores.metric,
            )
            for model in models[1:]
        ),
    )


def _difference_line(model: ScoredModel, difference: Difference) -> str:
    gain = difference.projection or difference.all
    result = {"a is better": "better", "b is better": "worse"}.get(
        difference.result, "no difference shown"
    )
    name = f"  {model.name:<{_NAME}}"
    if len(model.name) > _NAME:  # a long name gets a line of its own
        name = "\n".join([*wrap_lines(model.name, "  "), " " * len(f"  {'':{_NAME}}")])
    return f"{name} {gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})  {result}"


def _columns(model: ScoredModel) -> dict[str, str | int]:
    """Return what was scored, on which rows: the first columns of JSON and CSV."""
    return {
        "model": model.label.partition("@")[0],
        "evaluation": model.run.evaluation,
        "round": model.run.round,
        "split": model.run.config.split.name,
        "rows": model.scores.all.rows,
    }


def _estimates(scores: Scores) -> dict[str, Interval | None]:
    return {
        "all": scores.all.score,
        "seen": scores.seen.score,
        "unseen": scores.unseen.score,
        "projection": scores.projection,
    }


def _cells(prefix: str, estimates: dict[str, Interval | None]) -> dict[str, float | str]:
    """Return the cells of some intervals; empty where there is none."""
    cells: dict[str, float | str] = {}
    for part, interval in estimates.items():
        cells[f"{prefix}{part}"] = interval.value if interval else ""
        cells[f"{prefix}{part}_low"] = interval.low if interval else ""
        cells[f"{prefix}{part}_high"] = interval.high if interval else ""
    return cells
