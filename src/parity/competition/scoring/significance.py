"""Compare two rankings by a paired bootstrap over units."""

from dataclasses import dataclass
from typing import Any

from parity.competition.query import Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.bootstrap import (
    Interval,
    checked,
    estimate,
    optional_interval,
    optional_json,
)
from parity.competition.scoring.metrics import check_unseen, row_scores
from parity.competition.scoring.row_metrics import Metric, metric_of
from parity.run.config.scoring import ScoringConfig

# Fewer questions than this cannot show a difference at 95 %: five equal signs in a row come by
# chance once in sixteen times, yet a bootstrap of five equal signs never crosses zero.
_FEWEST = 6
_PARTS = ("all", "seen", "unseen", "projection")


@dataclass(frozen=True, slots=True)
class Difference:
    """The score of ranking a minus that of ranking b, on the same rows.

    Attributes:
        metric: the competition's metric.
        rows: how many rows were compared.
        fewest: questions in the smallest slice that has a row and a share in the projection.
        projection: None where a slice that counts has no row, as `seen` and `unseen` are.
        identical: whether every row holds the same first k ids in the same order.
    """

    metric: Metric
    rows: int
    fewest: int
    all: Interval
    seen: Interval | None
    unseen: Interval | None
    projection: Interval | None
    identical: bool

    @property
    def k(self) -> int:
        """Depth of the scores."""
        return self.metric.k

    @property
    def result(self) -> str:
        """Which ranking is better by the projection, or over all rows without a projection."""
        gain = self.projection or self.all
        if self.fewest >= _FEWEST and gain.low > 0:
            return "a is better"
        if self.fewest >= _FEWEST and gain.high < 0:
            return "b is better"
        return "no difference shown"

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings that the number does not show, one line each."""
        lines = []
        if self.identical:
            lines.append("the two rankings are identical: were the same weights scored twice?")
        if self.fewest < _FEWEST:
            lines.append(f"a slice has {self.fewest} questions: too few to show a difference")
        if self.seen and self.unseen:
            for gainer, other, sign in (("a", "b", 1), ("b", "a", -1)):
                if _above(self.seen, sign) and not _above(self.unseen, sign):
                    lines.append(
                        f"{gainer}'s gain over {other} is shown on seen labels only; "
                        "most rows of a leaderboard may be unseen ones"
                    )
        return tuple(lines)

    def as_json(self) -> dict[str, Any]:
        """Return plain values; `from_json` gives the same difference back, bit for bit."""
        gains = {part: optional_json(getattr(self, part)) for part in _PARTS}
        return {
            **self.metric.as_json(),
            "rows": self.rows,
            "fewest": self.fewest,
            f"difference@{self.k}": gains,
            "identical": self.identical,
            "result": self.result,
        }

    @classmethod
    def from_json(cls, record: Any) -> "Difference":
        """Return what `as_json` was given.

        Raises:
            BadData: a key is missing or unknown, or names another depth than `k`.
        """
        metric = metric_of(record)
        key = f"difference@{metric.k}"
        checked(
            record,
            (*metric.as_json(), "rows", "fewest", key, "identical", "result"),
            "a difference",
        )
        gains = checked(record[key], _PARTS, key)
        parts = {part: optional_interval(gains[part]) for part in _PARTS if part != "all"}
        return cls(
            metric=metric,
            rows=record["rows"],
            fewest=record["fewest"],
            all=Interval.from_json(gains["all"]),
            identical=record["identical"],
            **parts,
        )


def compare(
    a: Ranking,
    b: Ranking,
    qrels: Qrels,
    unseen: frozenset[QueryId],
    scoring: ScoringConfig,
    metric: Metric,
) -> Difference:
    """Compare two rankings of the same rows, matched by query id in any order.

    Args:
        a: (n, k or more) positions.
        b: (n, k or more) positions of the same n queries.
        qrels: the labels of exactly these n rows.
        unseen: the rows whose labels train never shows.
        scoring: seen share, bootstrap draws and seed.
        metric: the competition's metric.

    Raises:
        Mismatch: a ranking does not hold exactly the rows of `qrels`, or has too few ids.
    """
    first = row_scores(a, qrels, metric)
    second = row_scores(b, qrels, metric)
    check_unseen(unseen, qrels)
    gain = estimate({row: first[row] - second[row] for row in first}, unseen, scoring)
    return Difference(
        metric=metric,
        rows=len(first),
        fewest=gain.fewest,
        all=gain.all,
        seen=gain.seen,
        unseen=gain.unseen,
        projection=gain.projection,
        identical=_first(a, metric.k) == _first(b, metric.k),
    )


def _first(ranking: Ranking, k: int) -> dict[QueryId, list[int]]:
    return dict(zip(ranking.query_ids, ranking.positions[:, :k].tolist(), strict=True))


def _above(gain: Interval, sign: int) -> bool:
    return (gain.low if sign > 0 else -gain.high) > 0
