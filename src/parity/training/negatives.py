"""Negatives: which misconceptions each query is to be pushed away from, and how they were mined.

A row depends on its own ranking, the corpus, the scope and the seed alone: not on other rows, on
their order, on the hash seed or on the process.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.competition.query import Corpus, MisconceptionId, Qrels, QueryId
from parity.competition.ranking import Ranking
from parity.run import files
from parity.run.config.run_file import MiningConfig
from parity.run.errors import BadConfig, BadData, Mismatch, StaleInput
from parity.training.mining_strategies import Candidates, random_count

_TOP = 10  # ids whose share of all negatives tells how diverse they are
_MINE = "run: invoke mine"


@dataclass(frozen=True, slots=True)
class QueryNegatives:
    """The negatives of one query: ranked ones first, best rank first, then those drawn.

    Attributes:
        query_id: the query.
        ids: distinct misconceptions, none of them right, none with a right one's sentence.
        ranks: each one's rank from 1; 0 where it was drawn at random.
        scores: each one's score; None where it was drawn at random.
        teacher: a teacher's score of each; empty where there is none.
        positives: right misconceptions with their teacher's scores; empty where there is none.
    """

    query_id: QueryId
    ids: tuple[MisconceptionId, ...]
    ranks: tuple[int, ...]
    scores: tuple[float | None, ...]
    teacher: tuple[float, ...] = ()
    positives: tuple[tuple[MisconceptionId, float], ...] = ()

    def __post_init__(self) -> None:
        """Check that every id has a rank and a score."""
        if not len(self.ids) == len(self.ranks) == len(self.scores):
            raise BadData(f"query {self.query_id}: negatives, ranks and scores differ in number")
        if self.teacher and len(self.teacher) != len(self.ids):
            raise BadData(f"query {self.query_id}: negatives and teacher's scores differ in number")

    def scored(self) -> dict[MisconceptionId, float]:
        """Return the teacher's score of each positive and negative that has one."""
        return {**dict(self.positives), **dict(zip(self.ids, self.teacher, strict=False))}

    def taught(self, ids: Sequence[MisconceptionId]) -> tuple[float, ...]:
        """Return the teacher's score of each of `ids`.

        Raises:
            Mismatch: one of them has none.
        """
        scores = self.scored()
        if any(key not in scores for key in ids):
            raise Mismatch(
                f"query {self.query_id} has no teacher's scores for training.distillation; run: "
                "invoke mine --import FILE with pos_scores and neg_scores"
            )
        return tuple(scores[key] for key in ids)


@dataclass(frozen=True, slots=True)
class Negatives:
    """What `negatives.jsonl` holds.

    Attributes:
        rows: one a query.
        miner: digest of the encoder that ranked.
        strategy: name of the strategy, or `imported`.
        config: how they were mined; None where they were imported.
    """

    rows: tuple[QueryNegatives, ...]
    miner: str
    strategy: str
    config: MiningConfig | None = None


@dataclass(frozen=True, slots=True)
class Diversity:
    """How varied negatives are: a miner that knows nothing gives every query the same few.

    Attributes:
        rows: queries.
        negatives: ids over all rows.
        distinct: different ids among them.
        top_ten: share of all negatives that the ten commonest ids make up.
        padded: negatives drawn at random because too few ranked ones qualified.
        short: rows with fewer negatives than asked for.
    """

    rows: int
    negatives: int
    distinct: int
    top_ten: float
    padded: int
    short: int

    @property
    def text(self) -> str:
        """One line for a person."""
        return (
            f"{self.negatives} negatives for {self.rows} queries: {self.distinct} distinct ids, "
            f"the ten commonest make up {self.top_ten:.1%}; {self.padded} padded at random, "
            f"{self.short} rows short"
        )


def depth(config: MiningConfig, corpus_size: int) -> int:
    """Return how many ids a query's ranking must hold for `mine`.

    A positive's score, which `percpos` wants, may lie at any rank: it takes the whole corpus.

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
    corpus: Corpus,
    config: MiningConfig,
    *,
    positives: frozenset[MisconceptionId],
    miner: str,
) -> Negatives:
    """Choose negatives for every ranked query.

    `range` samples from ranks `low` to `high`, counted with the positives in. `percpos` takes the
    hardest that score below `percpos` times the lowest positive's score. `random` draws. `mix`
    draws `random_share` of them and takes the rest as `percpos` does. Too few are filled up by
    drawing from the scope, without repeating an id.

    Args:
        ranking: (n, `depth` or more) ids of train queries.
        qrels: the right misconceptions of at least these queries.
        corpus: all misconceptions.
        config: the strategy.
        positives: misconceptions that are right somewhere in train (the scope `positives`).
        miner: digest of the encoder that made the ranking.

    Raises:
        BadConfig: `low` is above `high`, or past the corpus.
        Mismatch: the ranking is too shallow, or knows queries or ids that the others do not.

    Source: FlagOpen/FlagEmbedding: scripts/hn_mine.py, where `--range_for_sampling a-b` is a slice
    from 0, so ranks a+1 to b here (`range`); NV-Retriever, arXiv 2407.15831, section 3.2, TopK-
    PercPos, made safe for negative scores as in sentence-transformers (`percpos`).
    """
    _check(ranking, qrels, corpus, config)
    candidates = Candidates.of(corpus, config, positives)
    places = np.searchsorted(candidates.ids, ranking.ids)  # (n, k) places in the corpus
    scores = ranking.scores.astype(np.float64)  # (n, k)
    rows = []
    for row, query_id in enumerate(ranking.query_ids):
        columns, drawn = candidates.choose(query_id, places[row], scores[row], qrels[query_id])
        ranked = [MisconceptionId(key) for key in ranking.ids[row, columns].tolist()]
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
    """Count how varied the negatives are."""
    config = negatives.config
    often = Counter(key for row in negatives.rows for key in row.ids)
    commonest = sorted(often.values(), reverse=True)[:_TOP]
    wanted = config.count if config else 0
    meant = random_count(config) if config else sys.maxsize  # imported ones have no rank at all
    return Diversity(
        rows=len(negatives.rows),
        negatives=often.total(),
        distinct=len(often),
        top_ten=sum(commonest) / max(1, often.total()),
        padded=sum(max(0, row.ranks.count(0) - meant) for row in negatives.rows),
        short=sum(len(row.ids) < wanted for row in negatives.rows),
    )


def write(path: Path, negatives: Negatives) -> None:
    """Write `negatives.jsonl`: a header with miner, strategy and config, then one query a line."""
    config = negatives.config.model_dump(mode="json") if negatives.config else None
    header = {"miner": negatives.miner, "strategy": negatives.strategy, "config": config}
    files.write_jsonl(path, [header, *map(_line, negatives.rows)])


def read(path: Path) -> Negatives:
    """Read what `write` wrote.

    Raises:
        StaleInput: there is no such file.
        BadData: it does not start with the header.
    """
    if not path.is_file():
        raise StaleInput(f"{path}: no negatives there; {_MINE}")
    header, *lines = files.read_jsonl(path) or [{}]
    if header.keys() != {"miner", "strategy", "config"}:
        raise BadData(f"{path}, line 1: no header with miner, strategy and config; {_MINE}")
    rows = tuple(
        QueryNegatives(
            line["query_id"],
            tuple(line["ids"]),
            tuple(line["ranks"]),
            tuple(line["scores"]),
            tuple(line.get("teacher", ())),
            tuple((key, score) for key, score in line.get("positives", ())),
        )
        for line in lines
    )
    config = MiningConfig.model_validate(header["config"]) if header["config"] else None
    return Negatives(rows, header["miner"], header["strategy"], config)


def _line(row: QueryNegatives) -> dict[str, Any]:
    """Return a row's keys, without a teacher's where there is none."""
    return {
        key: value
        for key, value in asdict(row).items()
        if value or key not in ("teacher", "positives")
    }


def _check(ranking: Ranking, qrels: Qrels, corpus: Corpus, config: MiningConfig) -> None:
    if config.strategy == "range" and not config.low <= min(config.high, len(corpus)):
        raise BadConfig(
            f"mining.low = {config.low}: above mining.high = {config.high} or past the corpus "
            f"of {len(corpus)}"
        )
    wanted, width = depth(config, len(corpus)), ranking.ids.shape[1]
    if width < wanted:
        raise Mismatch(
            f"the ranking holds {width} ids a query, strategy {config.strategy!r} needs {wanted}; "
            f"{_MINE}"
        )
    if missing := [row for row in ranking.query_ids if row not in qrels]:
        raise Mismatch(f"query {missing[0]} was ranked and has no label; {_MINE}")
    if len(set(ranking.query_ids)) < len(ranking.query_ids):
        raise Mismatch(f"the ranking holds a query twice; {_MINE}")
    if (np.diff(np.sort(ranking.ids, axis=1), axis=1) == 0).any():
        raise Mismatch(f"the ranking repeats an id within a query; {_MINE}")
    if not np.isfinite(ranking.scores).all():
        raise Mismatch("the ranking has a score that is no number; its encoder is broken")
    right = {key for row in ranking.query_ids for key in qrels[row]}
    if strange := sorted((right | set(np.unique(ranking.ids).tolist())) - corpus.keys()):
        raise Mismatch(f"misconception {strange[0]} is not in the corpus; {_MINE}")
