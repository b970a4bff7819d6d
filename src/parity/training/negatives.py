"""Mined negatives of each query: how they are chosen, written and read.

A row depends only on its ranking, the corpus, the scope and the seed. It does not depend on other
rows, on their order, on the hash seed or on the process.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.competition.corpus import Corpus
from parity.competition.query import Passages, Position, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.run import files
from parity.run.config.mining import MiningConfig
from parity.run.errors import BadConfig, BadData, Mismatch, StaleInput
from parity.training.mining_strategies import Candidates, random_count

_TOP = 10  # ids whose share of all negatives measures diversity
_MINE = ("mine",)
"""Command that makes new negatives."""


@dataclass(frozen=True, slots=True)
class QueryNegatives:
    """Negatives of one query: ranked ones first, best rank first, then random ones.

    Attributes:
        query_id: the query.
        positions: distinct passages; no positive, and no passage with the text of a positive.
        ranks: rank of each negative from 1; 0 if it was drawn at random.
        scores: score of each negative; None if it was drawn at random.
        teacher: teacher's score of each negative; empty without a teacher.
        positives: positives with their teacher's scores; empty without a teacher.
    """

    query_id: QueryId
    positions: tuple[Position, ...]
    ranks: tuple[int, ...]
    scores: tuple[float | None, ...]
    teacher: tuple[float, ...] = ()
    positives: tuple[tuple[Position, float], ...] = ()

    def __post_init__(self) -> None:
        """Check that every id has a rank and a score."""
        if not len(self.positions) == len(self.ranks) == len(self.scores):
            raise BadData(f"query {self.query_id}: negatives, ranks and scores differ in number")
        if self.teacher and len(self.teacher) != len(self.positions):
            raise BadData(f"query {self.query_id}: negatives and teacher's scores differ in number")

    def scored(self) -> dict[Position, float]:
        """Return the teacher's score of each positive and negative that has one."""
        return {**dict(self.positives), **dict(zip(self.positions, self.teacher, strict=False))}

    def teacher_scores(self, ids: Sequence[Position]) -> tuple[float, ...]:
        """Return the teacher's score of each of `ids`.

        Raises:
            Mismatch: an id has no teacher's score.
        """
        scores = self.scored()
        if any(key not in scores for key in ids):
            raise Mismatch(
                f"query {self.query_id} has no teacher's scores for training.distillation; import "
                "a file with pos_scores and neg_scores",
                fix=("mine", "--import", "FILE"),
            )
        return tuple(scores[key] for key in ids)


@dataclass(frozen=True, slots=True)
class Negatives:
    """Contents of `negatives.jsonl`.

    Attributes:
        rows: negatives, one row per query.
        miner: digest of the encoder that made the ranking.
        strategy: name of the strategy, or `imported`.
        config: mining settings; None if the negatives were imported.
    """

    rows: tuple[QueryNegatives, ...]
    miner: str
    strategy: str
    config: MiningConfig | None = None


@dataclass(frozen=True, slots=True)
class Diversity:
    """Diversity of negatives: an untrained miner gives every query the same few passages.

    Attributes:
        rows: number of queries.
        negatives: number of ids over all rows.
        distinct: number of different ids.
        top_ten: share of all negatives that the ten most common ids make up, 0 to 1.
        padded: number of negatives drawn at random because too few ranked ones qualified.
        short: number of rows with fewer negatives than `mining.count`.
    """

    rows: int
    negatives: int
    distinct: int
    top_ten: float
    padded: int
    short: int

    @property
    def text(self) -> str:
        """Summary in one line."""
        return (
            f"{self.negatives} negatives for {self.rows} queries: {self.distinct} distinct ids, "
            f"the ten commonest make up {self.top_ten:.1%}; {self.padded} padded at random, "
            f"{self.short} rows short"
        )


def depth(config: MiningConfig, corpus_size: int) -> int:
    """Return how many ids a query's ranking must hold for `mine`.

    `percpos` needs the score of a positive, which may be at any rank: it needs the entire corpus.

    >>> depth(MiningConfig(strategy="range", high=200), 2587)
    200
    >>> depth(MiningConfig(strategy="percpos"), 2587)
    2587
    """
    if config.strategy == "range":
        return min(config.high, corpus_size)
    return corpus_size if random_count(config) < config.count else 1


def mine(
    ranking: Ranking,
    qrels: Qrels,
    corpus: Passages,
    config: MiningConfig,
    *,
    positives: frozenset[Position],
    miner: str,
) -> Negatives:
    """Choose negatives for every ranked query.

    `range` samples from ranks `low` to `high`; positives count as ranks. `percpos` takes the
    hardest passages that score below `percpos` times the lowest score of a positive. `random`
    draws from the scope. `mix` draws `random_share` of the negatives and takes the others as
    `percpos` does. If too few qualify, random ones from the scope are added. No id repeats.

    Args:
        ranking: (n, `depth` or more) ids of train queries, with scores.
        qrels: positives of at least these queries.
        corpus: all passages.
        config: mining settings.
        positives: passages that are positives of a train query (the scope `positives`).
        miner: digest of the encoder that made the ranking.

    Raises:
        BadConfig: `low` is above `high` or larger than the corpus.
        Mismatch: the ranking is too shallow, or has unknown queries or passages.

    Source: FlagOpen/FlagEmbedding: scripts/hn_mine.py, where `--range_for_sampling a-b` is a slice
    from 0, so ranks a+1 to b here (`range`); NV-Retriever, arXiv 2407.15831, section 3.2, TopK-
    PercPos, made safe for negative scores as in sentence-transformers (`percpos`).
    """
    _check(ranking, qrels, corpus, config)
    candidates = Candidates.of(corpus, config, positives)
    indices = np.searchsorted(candidates.ids, ranking.positions)  # (n, k) indices into the corpus
    scores = ranking.scores.astype(np.float64)  # (n, k)
    rows = []
    for row, query_id in enumerate(ranking.query_ids):
        columns, drawn = candidates.choose(query_id, indices[row], scores[row], qrels[query_id])
        ranked = [Position(key) for key in ranking.positions[row, columns].tolist()]
        rows.append(
            QueryNegatives(
                query_id,
                (*ranked, *drawn),
                (*(column + 1 for column in columns), *(0 for _ in drawn)),
                (*scores[row, columns].tolist(), *(None for _ in drawn)),
            )
        )
    return Negatives(tuple(rows), miner, config.strategy, config)


def diversity(negatives: Negatives) -> Diversity:
    """Return the diversity of the negatives."""
    config = negatives.config
    counts = Counter(key for row in negatives.rows for key in row.positions)
    top_counts = sorted(counts.values(), reverse=True)[:_TOP]
    count = config.count if config else 0
    random_per_row = (
        random_count(config) if config else sys.maxsize
    )  # imported negatives have no ranks
    return Diversity(
        rows=len(negatives.rows),
        negatives=counts.total(),
        distinct=len(counts),
        top_ten=sum(top_counts) / max(1, counts.total()),
        padded=sum(max(0, row.ranks.count(0) - random_per_row) for row in negatives.rows),
        short=sum(len(row.positions) < count for row in negatives.rows),
    )


def write(path: Path, negatives: Negatives, corpus: Corpus) -> None:
    """Write `negatives.jsonl`: a header with miner, strategy and config, then the queries."""
    config = negatives.config.model_dump(mode="json") if negatives.config else None
    header = {"miner": negatives.miner, "strategy": negatives.strategy, "config": config}
    files.write_jsonl(path, [header, *(_line(row, corpus) for row in negatives.rows)])


def read(path: Path, corpus: Corpus) -> Negatives:
    """Read what `write` wrote.

    Raises:
        StaleInput: the file does not exist.
        BadData: the file does not start with the header.
    """
    if not path.is_file():
        raise StaleInput(f"{path}: the file does not exist", fix=_MINE)
    header, *lines = files.read_jsonl(path) or [{}]
    if header.keys() != {"miner", "strategy", "config"}:
        raise BadData(f"{path}, line 1: no header with miner, strategy and config", fix=_MINE)
    rows = tuple(
        QueryNegatives(
            line["query_id"],
            tuple(map(corpus.at, line["passage_ids"])),
            tuple(line["ranks"]),
            tuple(line["scores"]),
            tuple(line.get("teacher", ())),
            tuple((corpus.at(key), score) for key, score in line.get("positives", ())),
        )
        for line in lines
    )
    config = MiningConfig.model_validate(header["config"]) if header["config"] else None
    return Negatives(rows, header["miner"], header["strategy"], config)


def _line(row: QueryNegatives, corpus: Corpus) -> dict[str, Any]:
    """Return a row as a JSON object with passage ids; keys of a teacher only if it has scores."""
    line: dict[str, Any] = {
        "query_id": row.query_id,
        "passage_ids": [corpus.ids[position] for position in row.positions],
        "ranks": row.ranks,
        "scores": row.scores,
    }
    if row.teacher:
        line["teacher"] = row.teacher
    if row.positives:
        line["positives"] = [(corpus.ids[key], score) for key, score in row.positives]
    return line


def _check(ranking: Ranking, qrels: Qrels, corpus: Passages, config: MiningConfig) -> None:
    if config.strategy == "range" and not config.low <= min(config.high, len(corpus)):
        raise BadConfig(
            f"mining.low = {config.low}: above mining.high = {config.high} or past the corpus "
            f"of {len(corpus)}"
        )
    needed, width = depth(config, len(corpus)), ranking.positions.shape[1]
    if width < needed:
        raise Mismatch(
            f"the ranking has {width} ids per query, strategy {config.strategy!r} needs {needed}",
            fix=_MINE,
        )
    if missing := [row for row in ranking.query_ids if row not in qrels]:
        raise Mismatch(f"query {missing[0]} is in the ranking but has no label", fix=_MINE)
    if len(set(ranking.query_ids)) < len(ranking.query_ids):
        raise Mismatch("the ranking has a query twice", fix=_MINE)
    if (np.diff(np.sort(ranking.positions, axis=1), axis=1) == 0).any():
        raise Mismatch("the ranking repeats an id within a query", fix=_MINE)
    if not np.isfinite(ranking.scores).all():
        raise Mismatch(
            "the ranking contains NaN or infinite scores. Try encoder.precision fp32 or bf16"
        )
    right = {key for row in ranking.query_ids for key in qrels[row]}
    if unknown := sorted((right | set(np.unique(ranking.positions).tolist())) - corpus.keys()):
        raise Mismatch(f"passage {unknown[0]} is not in the corpus", fix=_MINE)
