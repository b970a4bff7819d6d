"""The competition's metric and recall@k, unrounded, on exactly the labeled rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.competition.query import Qrels, QueryId, unit_of
from parity.competition.ranking import Ranking
from parity.competition.scoring.bootstrap import (
    Estimate,
    Interval,
    checked,
    estimate,
    optional_interval,
    optional_json,
)
from parity.competition.scoring.row_metrics import Metric, metric_of
from parity.run.config.scoring import ScoringConfig
from parity.run.errors import Mismatch

_SLICES = ("all", "seen", "unseen")


@dataclass(frozen=True, slots=True)
class Slice:
    """Scores on some of the rows; both intervals are None where there is no row.

    Attributes:
        rows: number of rows.
        questions: number of units.
        score: by the competition's metric.
        recall: recall@k.
    """

    rows: int
    questions: int
    score: Interval | None
    recall: Interval | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a ranking.

    Attributes:
        metric: the competition's metric; it names the keys of `as_json`.
        seen: rows with a label that train shows.
        unseen: rows whose labels train never shows.
        projection: of the metric, p·seen + (1-p)·unseen; None where a slice that counts has no row.
        seen_share: p.
    """

    metric: Metric
    all: Slice
    seen: Slice
    unseen: Slice
    projection: Interval | None
    seen_share: float

    @property
    def k(self) -> int:
        """Depth of every score."""
        return self.metric.k

    def as_json(self) -> dict[str, Any]:
        """Return plain values under keys such as `map@25`; `from_json` gives the same back."""
        record: dict[str, Any] = {**self.metric.as_json(), "seen_share": self.seen_share}
        for name in _SLICES:
            part: Slice = getattr(self, name)
            record[name] = {
                "rows": part.rows,
                "questions": part.questions,
                f"recall@{self.k}": optional_json(part.recall),
                self.metric.key: optional_json(part.score),
            }
        record[f"projection@{self.k}"] = optional_json(self.projection)
        return record

    @classmethod
    def from_json(cls, record: Any) -> "Scores":
        """Return what `as_json` was given.

        Raises:
            BadData: a key is missing or unknown, or names another depth than `k`.
        """
        metric = metric_of(record)
        keys, recall_key = metric.as_json(), f"recall@{metric.k}"
        projection_key = f"projection@{metric.k}"
        checked(record, (*keys, "seen_share", *_SLICES, projection_key), "scores")
        parts: dict[str, Slice] = {}
        for name in _SLICES:
            part = checked(record[name], ("rows", "questions", metric.key, recall_key), name)
            parts[name] = Slice(
                part["rows"],
                part["questions"],
                optional_interval(part[metric.key]),
                optional_interval(part[recall_key]),
            )
        projection = optional_interval(record[projection_key])
        return cls(metric=metric, projection=projection, seen_share=record["seen_share"], **parts)


def row_scores(ranking: Ranking, qrels: Qrels, metric: Metric) -> dict[QueryId, float]:
    """Return each row's score by the metric, in the ranking's order.

    Raises:
        Mismatch: as `evaluate`.
    """
    _check(ranking, qrels, metric)
    rows = zip(ranking.query_ids, ranking.positions.tolist(), ranking.scores.tolist(), strict=True)
    return {
        query_id: metric.value(positions, scores, frozenset(qrels[query_id]))
        for query_id, positions, scores in rows
    }


def evaluate(
    ranking: Ranking,
    qrels: Qrels,
    unseen: frozenset[QueryId],
    scoring: ScoringConfig,
    metric: Metric,
) -> Scores:
    """Score a ranking on all, seen and unseen rows.

    The order of the rows does not matter. The ranking must hold exactly the rows of `qrels` and at
    least `metric.k` distinct passages in each; for a corpus of fewer passages pass
    `metric.within(len(corpus))`, which changes no score and names the depth correctly.

    Args:
        ranking: (n, k or more) positions.
        qrels: the labels of exactly these n rows.
        unseen: the rows whose labels train never shows.
        scoring: seen share, bootstrap draws and seed.
        metric: the competition's metric.

    Raises:
        Mismatch: the rows differ, a row comes twice, or there are too few or repeated passages.
    """
    values = row_scores(ranking, qrels, metric)
    recalled = row_scores(ranking, qrels, Metric("recall", metric.k))
    check_unseen(unseen, qrels)
    scores = estimate(values, unseen, scoring)
    recalls = estimate(recalled, unseen, scoring)
    rows = {"all": qrels.keys(), "seen": qrels.keys() - unseen, "unseen": unseen}
    parts = {name: _slice(frozenset(rows[name]), scores, recalls, name) for name in _SLICES}
    return Scores(
        metric=metric, projection=scores.projection, seen_share=scoring.seen_share, **parts
    )


def check_unseen(unseen: frozenset[QueryId], qrels: Qrels) -> None:
    """Check that every row marked unseen is a row to score.

    Raises:
        Mismatch: some are not, so the marks come from another split.
    """
    if strange := sorted(unseen - qrels.keys()):
        raise Mismatch(
            f"{len(strange)} rows marked unseen are not among the {len(qrels)} labeled rows "
            f"(first: {strange[0]}); take marks and labels from one split"
        )


def _check(ranking: Ranking, qrels: Qrels, metric: Metric) -> None:
    rows = frozenset(ranking.query_ids)
    if len(rows) < len(ranking.query_ids) or len(ranking.query_ids) != len(ranking.positions):
        raise Mismatch(
            f"the ranking holds {len(rows)} distinct query ids in {len(ranking.query_ids)} rows, "
            f"with {len(ranking.positions)} rows of ids; each query must be ranked once"
        )
    missing, unlabeled = sorted(qrels.keys() - rows), sorted(rows - qrels.keys())
    if missing or unlabeled or not rows:
        first = f" (first: {(missing or unlabeled)[0]})" if missing or unlabeled else ""
        raise Mismatch(
            f"{len(missing)} labeled rows are not ranked and {len(unlabeled)} of {len(rows)} "
            f"ranked rows have no label{first}; a score is over exactly the labeled rows asked for"
        )
    width = ranking.positions.shape[1]
    k = metric.k if metric.is_fixed else min(metric.k, width)
    if not 1 <= k <= width:
        raise Mismatch(
            f"the ranking holds {width} ids a row, too few for {metric.title}; rank with "
            f"k = {k}, or score with k = {width} where the corpus holds no more"
        )
    ordered = np.sort(ranking.positions[:, :k], axis=1)
    equal = (np.diff(ordered, axis=1) == 0) & (ordered[:, 1:] >= 0)  # -1 names no passage
    repeated = np.flatnonzero(equal.any(axis=1))
    if repeated.size:
        raise Mismatch(f"query {ranking.query_ids[repeated[0]]}: the ranking repeats an id")


def _slice(rows: frozenset[QueryId], scores: Estimate, recalls: Estimate, name: str) -> Slice:
    questions = {unit_of(row) for row in rows}
    return Slice(len(rows), len(questions), getattr(scores, name), getattr(recalls, name))
