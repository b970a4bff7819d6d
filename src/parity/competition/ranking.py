"""A ranking: per query, passages and scores, best first."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity.competition.query import QueryId
from parity.run import digest, files

Positions = NDArray[np.int64]
"""(n, k) int64 positions in the corpus, best first."""
Scores = NDArray[np.float32]
"""(n, k) float32, non-increasing along each row."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranked passages of n queries.

    Attributes:
        query_ids: n query ids, in the order of the queries.
        positions: (n, k) int64, positions in the corpus.
        scores: (n, k) float32; equal scores go to the smaller position.
    """

    query_ids: tuple[QueryId, ...]
    positions: Positions
    scores: Scores

    def digest(self) -> str:
        """Return the digest of query ids and ranked positions; scores stay out (noise)."""
        return digest.of_value([list(self.query_ids), self.positions.tolist()])

    def of(self, query_ids: tuple[QueryId, ...]) -> "Ranking":
        """Return the rows of these queries, in the order given."""
        row_of = {query_id: row for row, query_id in enumerate(self.query_ids)}
        rows = [row_of[query_id] for query_id in query_ids]
        return Ranking(query_ids, self.positions[rows], self.scores[rows])

    def top(self, k: int) -> "Ranking":
        """Return the first `k` columns."""
        return Ranking(self.query_ids, self.positions[:, :k], self.scores[:, :k])


def write(path: Path, ranking: Ranking) -> None:
    """Write `ranking.jsonl`, one query a line; float32 scores survive exactly."""
    files.write_jsonl(
        path,
        (
            {"query_id": query_id, "positions": positions.tolist(), "scores": scores.tolist()}
            for query_id, positions, scores in zip(
                ranking.query_ids, ranking.positions, ranking.scores, strict=True
            )
        ),
    )


def read(path: Path) -> Ranking:
    """Read what `write` wrote."""
    rows = files.read_jsonl(path)
    shape = (len(rows), -1 if rows else 0)
    return Ranking(
        tuple(QueryId(row["query_id"]) for row in rows),
        np.array([row["positions"] for row in rows], dtype=np.int64).reshape(shape),
        np.array([row["scores"] for row in rows], dtype=np.float32).reshape(shape),
    )
