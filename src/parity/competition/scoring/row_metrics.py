"""Metrics of one row: MAP@k, recall@k, MRR@k and F-beta, as competitions count them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from parity.run.errors import BadData

MetricName = Literal["map", "recall", "mrr", "fbeta"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A competition's metric.

    Attributes:
        name: `map`, `recall`, `mrr` or `fbeta`.
        k: number of passages that a row may name.
        beta: weight of recall in `fbeta`.
        threshold: score from which `fbeta` predicts a passage; the best one is always predicted.
        count: number of passages that `fbeta` predicts; 0 uses the threshold.
    """

    name: MetricName
    k: int
    beta: float = 1.0
    threshold: float = 0.0
    count: int = 0

    @property
    def short(self) -> str:
        """The name in titles, without the depth."""
        return f"F{self.beta:g}" if self.name == "fbeta" else _SHORT[self.name]

    @property
    def title(self) -> str:
        """The name in tables and messages, such as MAP@25."""
        return f"{self.short}@{self.k}"

    @property
    def key(self) -> str:
        """The name in JSON records, such as map@25."""
        return self.title.lower()

    @property
    def is_fixed(self) -> bool:
        """Whether every row names the same number of passages."""
        return self.name != "fbeta"

    def within(self, size: int) -> "Metric":
        """Return the metric for a corpus of `size` passages, which may hold fewer than k."""
        return replace(self, k=min(self.k, size))

    def predicted(self, positions: Sequence[int], scores: Sequence[float]) -> list[int]:
        """Return the passages of a ranked row that are predicted, best first."""
        row = [position for position in positions[: self.k] if position >= 0]
        if self.is_fixed:
            return row
        if self.count:
            return row[: self.count]
        above = sum(score >= self.threshold for score in scores[: len(row)])
        return row[: max(1, above)]

    def value(
        self, positions: Sequence[int], scores: Sequence[float], relevant: frozenset[int]
    ) -> float:
        """Return the score of one ranked row.

        Args:
            positions: ranked passages, best first.
            scores: their scores, not increasing.
            relevant: the right passages, at least one.
        """
        row = self.predicted(positions, scores)
        if self.name == "map":
            return average_precision(row, relevant, self.k)
        if self.name == "recall":
            return recall(row, relevant, self.k)
        if self.name == "mrr":
            return reciprocal_rank(row, relevant, self.k)
        return f_beta(row, relevant, self.beta)

    def as_json(self) -> dict[str, Any]:
        """Return plain values; `metric_of` returns the same metric."""
        record: dict[str, Any] = {"k": self.k}
        if self.name == "map":
            return record
        record["metric"] = self.name
        if self.name == "fbeta":
            record |= {"beta": self.beta, "threshold": self.threshold, "count": self.count}
        return record


_SHORT = {"map": "MAP", "recall": "Recall", "mrr": "MRR"}
_NAMES: dict[str, MetricName] = {"map": "map", "recall": "recall", "mrr": "mrr"}
_KEY = re.compile(r"(map|recall|mrr|f\d+(?:\.\d+)?)@(\d+)")


def metric_of(record: Any) -> Metric:
    """Return the metric of a record of scores; one without `metric` is MAP.

    Raises:
        BadData: it has no depth k.
    """
    k = record.get("k") if isinstance(record, dict) else None
    if k is None and isinstance(record, dict):  # a leaderboard score names its metric by its key
        metrics = [metric for key in record if (metric := _metric_of_key(key)) is not None]
        if metrics:
            return metrics[0]
    if type(k) is not int:
        raise BadData(f"scores need a depth k; got {k!r}")
    options = {name: record[name] for name in ("beta", "threshold", "count") if name in record}
    return Metric(record.get("metric", "map"), k, **options)


def _metric_of_key(key: str) -> Metric | None:
    """Return the metric that a key such as `map@25` or `f0.5@10` names, None for another key."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    name, k = match[1], int(match[2])
    return Metric("fbeta", k, float(name[1:])) if name[0] == "f" else Metric(_NAMES[name], k)


def average_precision(ids: Iterable[int], relevant: frozenset[int], k: int) -> float:
    """Return the average precision of one row.

    A repeated prediction is skipped: it neither scores nor takes up a rank. (A valid submission
    has no repetition, and `evaluate` refuses a ranking that has.)

    Args:
        ids: predicted passages, best first.
        relevant: the right passages, at least one.
        k: how many distinct predictions count.

    Raises:
        BadData: nothing is right.

    >>> average_precision([7, 3, 7, 5], frozenset({3, 5}), 25)
    0.5833333333333333

    Source: Kaggle's MAP@K, as in benhamner/Metrics: Python/ml_metrics/average_precision.py.
    """
    _need_relevant(relevant)
    hits, total = 0, 0.0
    for rank, passage in enumerate(list(dict.fromkeys(ids))[:k], start=1):
        if passage in relevant:
            hits += 1
            total += hits / rank
    return total / min(len(relevant), k)


def recall(ids: Iterable[int], relevant: frozenset[int], k: int) -> float:
    """Return the share of the right passages among the first `k` distinct predictions.

    Raises:
        BadData: nothing is right.

    >>> recall([7, 3, 5], frozenset({3, 5}), 2)
    0.5
    """
    _need_relevant(relevant)
    return len(relevant.intersection(list(dict.fromkeys(ids))[:k])) / len(relevant)


def reciprocal_rank(ids: Iterable[int], relevant: frozenset[int], k: int) -> float:
    """Return 1 / rank of the first right passage, 0 where the first `k` have none.

    Raises:
        BadData: nothing is right.

    >>> reciprocal_rank([7, 3, 5], frozenset({3, 5}), 25)
    0.5
    """
    _need_relevant(relevant)
    ranked = list(dict.fromkeys(ids))[:k]
    return next((1 / rank for rank, item in enumerate(ranked, start=1) if item in relevant), 0.0)


def f_beta(ids: Iterable[int], relevant: frozenset[int], beta: float) -> float:
    """Return the F-beta score of a set of predictions.

    Raises:
        BadData: nothing is right.

    >>> f_beta([7, 3], frozenset({3}), 2.0)
    0.8333333333333334
    """
    _need_relevant(relevant)
    predicted = frozenset(ids)
    hits = len(predicted & relevant)
    weight = beta * beta
    return (1 + weight) * hits / (weight * len(relevant) + len(predicted))


def _need_relevant(relevant: frozenset[int]) -> None:
    if not relevant:
        raise BadData("a row without a right passage cannot be scored")
