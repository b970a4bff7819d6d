"""Is one ranking better than another: a paired bootstrap over questions."""

from dataclasses import dataclass
from typing import Any

from parity.competition.query import Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.competition.scoring.bootstrap import (
    Interval,
    checked,
    depth_of,
    estimate,
    optional_interval,
    optional_json,
)
from parity.competition.scoring.metrics import average_precisions, check_unseen
from parity.run.config.run_file import ScoringConfig

# Fewer questions than this cannot show a difference at 95 %: five equal signs in a row come by
# chance once in sixteen times, yet a bootstrap of five equal signs never crosses zero.
_FEWEST = 6
_PARTS = ("all", "seen", "unseen", "projection")


@dataclass(frozen=True, slots=True)
class Difference:
    """MAP@k of ranking a minus that of ranking b, on the same rows.

    Attributes:
        k: depth.
        rows: how many rows were compared.
        fewest: questions in the smallest slice that has a row and a share in the projection.
        projection: None where a slice that counts has no row, as `seen` and `unseen` are.
        identical: whether every row holds the same first k ids in the same order.
    """

    k: int
    rows: int
    fewest: int
    all: Interval
    seen: Interval | None
    unseen: Interval | None
    projection: Interval | None
    identical: bool

    @property
    def verdict(self) -> str:
        """Say which is better by the projection, or over all rows where there is none."""
        judged = self.projection or self.all
        if self.fewest >= _FEWEST and judged.low > 0:
            return "a is better"
        if self.fewest >= _FEWEST and judged.high < 0:
            return "b is better"
        return "no difference shown"

    @property
    def findings(self) -> tuple[str, ...]:
        """Say what a reader of the number alone would miss, one line each."""
        lines = []
        if self.identical:
            lines.append("the two rankings are identical: were the same weights scored twice?")
        if self.fewest < _FEWEST:
            lines.append(f"a slice has {self.fewest} questions: too few to show a difference")
        if self.seen and self.unseen:
            for gainer, other, sign in (("a", "b", 1), ("b", "a", -1)):
                if _above(self.seen, sign) and not _above(self.unseen, sign):
                    lines.append(
                        f"{gainer}'s gain over {other} is shown on seen misconceptions only; "
                        "most rows of a leaderboard may be unseen ones"
                    )
        return tuple(lines)

    def as_json(self) -> dict[str, Any]:
        """Return plain values; `from_json` gives the same difference back, bit for bit."""
        gains = {part: optional_json(getattr(self, part)) for part in _PARTS}
        return {
            "k": self.k,
            "rows": self.rows,
            "fewest": self.fewest,
            f"difference@{self.k}": gains,
            "identical": self.identical,
            "verdict": self.verdict,
        }

    @classmethod
    def from_json(cls, record: Any) -> "Difference":
        """Return what `as_json` was given.

        Raises:
            BadData: a key is missing or unknown, or names another depth than `k`.
        """
        k = depth_of(record)
        key = f"difference@{k}"
        checked(record, ("k", "rows", "fewest", key, "identical", "verdict"), "a difference")
        gains = checked(record[key], _PARTS, key)
        parts = {part: optional_interval(gains[part]) for part in _PARTS if part != "all"}
        return cls(
            k=k,
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
    *,
    k: int = 25,
) -> Difference:
    """Compare two rankings of the same rows, matched by query id, whatever their order.

    Args:
        a: (n, k or more) ids.
        b: (n, k or more) ids of the same n queries.
        qrels: the labels of exactly these n rows.
        unseen: the rows whose misconceptions train never shows.
        scoring: seen share, bootstrap draws and seed.
        k: depth.

    Raises:
        Mismatch: a ranking does not hold exactly the rows of `qrels`, or has too few ids.
    """
    first = average_precisions(a, qrels, k=k)
    second = average_precisions(b, qrels, k=k)
    check_unseen(unseen, qrels)
    gain = estimate({row: first[row] - second[row] for row in first}, unseen, scoring)
    return Difference(
        k=k,
        rows=len(first),
        fewest=gain.fewest,
        all=gain.all,
        seen=gain.seen,
        unseen=gain.unseen,
        projection=gain.projection,
        identical=_first_ids(a, k) == _first_ids(b, k),
    )


def _first_ids(ranking: Ranking, k: int) -> dict[QueryId, list[int]]:
    return dict(zip(ranking.query_ids, ranking.ids[:, :k].tolist(), strict=True))


def _above(gain: Interval, sign: int) -> bool:
    return (gain.low if sign > 0 else -gain.high) > 0
