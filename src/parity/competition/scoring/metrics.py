"""MAP@k and Recall@k as Kaggle counts them, unrounded, on exactly the labeled rows asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.competition.query import Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.bootstrap import (
    Estimate,
    Interval,
    checked,
    depth_of,
    estimate,
    optional_interval,
    optional_json,
    question_of,
)
from parity.run.config.run_file import ScoringConfig
from parity.run.errors import BadData, Mismatch

_SLICES = ("all", "seen", "unseen")


@dataclass(frozen=True, slots=True)
class Slice:
    """Scores on some of the rows; both intervals are None where there is no row."""

    rows: int
    questions: int
    map: Interval | None
    recall: Interval | None


@dataclass(frozen=True, slots=True)
class Scores:
    """What a ranking is worth.

    Attributes:
        k: the depth of every number here; it names the keys of `as_json`.
        seen: rows with a misconception that train shows.
        unseen: rows whose misconceptions train never shows.
        projection: of MAP, p·seen + (1-p)·unseen; None where a slice that counts has no row.
        seen_share: p.
    """

    k: int
    all: Slice
    seen: Slice
    unseen: Slice
    projection: Interval | None
    seen_share: float

    def as_json(self) -> dict[str, Any]:
        """Return plain values under keys such as `map@25`; `from_json` gives the same back."""
        map_key, recall_key, projection_key = _keys(self.k)
        record: dict[str, Any] = {"k": self.k, "seen_share": self.seen_share}
        for name in _SLICES:
            part: Slice = getattr(self, name)
            record[name] = {
                "rows": part.rows,
                "questions": part.questions,
                map_key: optional_json(part.map),
                recall_key: optional_json(part.recall),
            }
        record[projection_key] = optional_json(self.projection)
        return record

    @classmethod
    def from_json(cls, record: Any) -> "Scores":
        """Return what `as_json` was given.

        Raises:
            BadData: a key is missing or unknown, or names another depth than `k`.
        """
        k = depth_of(record)
        map_key, recall_key, projection_key = _keys(k)
        checked(record, ("k", "seen_share", *_SLICES, projection_key), "scores")
        parts: dict[str, Slice] = {}
        for name in _SLICES:
            part = checked(record[name], ("rows", "questions", map_key, recall_key), name)
            parts[name] = Slice(
                part["rows"],
                part["questions"],
                optional_interval(part[map_key]),
                optional_interval(part[recall_key]),
            )
        projection = optional_interval(record[projection_key])
        return cls(k=k, projection=projection, seen_share=record["seen_share"], **parts)


def average_precision(ids: Iterable[int], relevant: frozenset[int], k: int) -> float:
    """Return the average precision of one row.

    A repeated prediction is skipped: it neither scores nor takes up a place. (A valid submission
    has none, and `evaluate` refuses a ranking that has.)

    Args:
        ids: predicted misconceptions, best first.
        relevant: the right ones, at least one.
        k: how many distinct predictions count.

    Raises:
        BadData: nothing is right.

    >>> average_precision([7, 3, 7, 5], frozenset({3, 5}), 25)
    0.5833333333333333

    Source: Kaggle's MAP@K, as in benhamner/Metrics: Python/ml_metrics/average_precision.py.
    """
    _need_relevant(relevant)
    hits, total = 0, 0.0
    for place, found in enumerate(list(dict.fromkeys(ids))[:k], start=1):
        if found in relevant:
            hits += 1
            total += hits / place
    return total / min(len(relevant), k)


def recall(ids: Iterable[int], relevant: frozenset[int], k: int) -> float:
    """Return the share of the right misconceptions among the first `k` distinct predictions.

    Raises:
        BadData: nothing is right.

    >>> recall([7, 3, 5], frozenset({3, 5}), 2)
    0.5
    """
    _need_relevant(relevant)
    return len(relevant.intersection(list(dict.fromkeys(ids))[:k])) / len(relevant)


def average_precisions(ranking: Ranking, qrels: Qrels, *, k: int = 25) -> dict[QueryId, float]:
    """Return each row's average precision, in the ranking's order.

    Raises:
        Mismatch: as `evaluate`.
    """
    return _per_row(average_precision, ranking, qrels, k)


def evaluate(
    ranking: Ranking,
    qrels: Qrels,
    unseen: frozenset[QueryId],
    scoring: ScoringConfig,
    *,
    k: int = 25,
) -> Scores:
    """Score a ranking on all, seen and unseen rows.

    The order of the rows does not matter. The ranking must hold exactly the rows of `qrels` and at
    least `k` distinct ids in each; for a corpus of fewer than `k` ids pass `k=len(corpus)`, which
    changes no value and names the depth truthfully.

    Args:
        ranking: (n, k or more) ids.
        qrels: the labels of exactly these n rows.
        unseen: the rows whose misconceptions train never shows.
        scoring: seen share, bootstrap draws and seed.
        k: depth.

    Raises:
        Mismatch: the rows differ, a row comes twice, or there are too few or repeated ids.
    """
    precisions = _per_row(average_precision, ranking, qrels, k)
    recalls = _per_row(recall, ranking, qrels, k)
    check_unseen(unseen, qrels)
    maps = estimate(precisions, unseen, scoring)
    found = estimate(recalls, unseen, scoring)
    rows = {"all": qrels.keys(), "seen": qrels.keys() - unseen, "unseen": unseen}
    parts = {name: _slice(frozenset(rows[name]), maps, found, name) for name in _SLICES}
    return Scores(k=k, projection=maps.projection, seen_share=scoring.seen_share, **parts)


def check_unseen(unseen: frozenset[QueryId], qrels: Qrels) -> None:
    """Check that every row marked unseen is a row to score.

    Raises:
        Mismatch: one is not, so the mark comes from another split.
    """
    if strange := sorted(unseen - qrels.keys()):
        raise Mismatch(
            f"{len(strange)} rows marked unseen are not among the {len(qrels)} labeled rows "
            f"(first: {strange[0]}); take marks and labels from one split"
        )


def _per_row(
    measure: Callable[[Iterable[int], frozenset[int], int], float],
    ranking: Ranking,
    qrels: Qrels,
    k: int,
) -> dict[QueryId, float]:
    _check(ranking, qrels, k)
    return {
        query_id: measure(ids, frozenset(qrels[query_id]), k)
        for query_id, ids in zip(ranking.query_ids, ranking.ids.tolist(), strict=True)
    }


def _check(ranking: Ranking, qrels: Qrels, k: int) -> None:
    rows = frozenset(ranking.query_ids)
    if len(rows) < len(ranking.query_ids) or len(ranking.query_ids) != len(ranking.ids):
        raise Mismatch(
            f"the ranking holds {len(rows)} distinct query ids in {len(ranking.query_ids)} rows, "
            f"with {len(ranking.ids)} rows of ids; each query must be ranked once"
        )
    missing, unlabeled = sorted(qrels.keys() - rows), sorted(rows - qrels.keys())
    if missing or unlabeled or not rows:
        first = f" (first: {(missing or unlabeled)[0]})" if missing or unlabeled else ""
        raise Mismatch(
            f"{len(missing)} labeled rows are not ranked and {len(unlabeled)} of {len(rows)} "
            f"ranked rows have no label{first}; a score is over exactly the labeled rows asked for"
        )
    width = ranking.ids.shape[1]
    if not 1 <= k <= width:
        raise Mismatch(
            f"the ranking holds {width} ids a row, too few for MAP@{k}; rank with k = {k}, or "
            f"score with k = {width} where the corpus holds no more"
        )
    ordered = np.sort(ranking.ids[:, :k], axis=1)
    repeated = np.flatnonzero((np.diff(ordered, axis=1) == 0).any(axis=1))
    if repeated.size:
        raise Mismatch(f"query {ranking.query_ids[repeated[0]]}: the ranking repeats an id")


def _slice(rows: frozenset[QueryId], maps: Estimate, recalls: Estimate, name: str) -> Slice:
    questions = {question_of(row) for row in rows}
    return Slice(len(rows), len(questions), getattr(maps, name), getattr(recalls, name))


def _keys(k: int) -> tuple[str, str, str]:
    return f"map@{k}", f"recall@{k}", f"projection@{k}"


def _need_relevant(relevant: frozenset[int]) -> None:
    if not relevant:
        raise BadData("a row without a right misconception cannot be scored")
