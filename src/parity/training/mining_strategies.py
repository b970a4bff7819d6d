"""Choice of a query's negatives from its ranking; each query has its own random generator.

Passages are compared by position. Texts are compared only to exclude passages with the text of a
positive.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.competition.query import Passages, Position, QueryId
from parity.run.config.mining import MiningConfig

CorpusIndices = NDArray[np.int64]
"""(k,) indices into the corpus, best ranked first."""
Scores = NDArray[np.float64]
"""(k,) scores, not increasing."""


def sentence_keys(corpus: Passages) -> dict[Position, Position]:
    """Return each passage's key: the first passage whose text is equal up to case and white space.

    >>> sentence_keys({Position(4): "Adds  both", Position(7): "adds both "})
    {4: 4, 7: 4}
    """
    first: dict[str, Position] = {}
    return {
        key: first.setdefault(" ".join(corpus[key].split()).casefold(), key)
        for key in sorted(corpus)
    }


def generator(*parts: int | str) -> random.Random:
    """Return a random generator that is seeded only by the sha256 of `parts`."""
    name = "/".join(map(str, parts)).encode()
    return random.Random(int.from_bytes(hashlib.sha256(name).digest(), "big"))


def random_count(config: MiningConfig) -> int:
    """Return how many negatives of a query the strategy draws at random.

    >>> random_count(MiningConfig(strategy="mix", count=15, random_share=0.5))
    8
    """
    share = {"random": 1.0, "mix": config.random_share}.get(config.strategy, 0.0)
    return int(config.count * share + 0.5)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Passages that may be negatives; arrays have one entry per passage, in the corpus' order.

    Attributes:
        ids: (c,) int64, positions.
        keys: (c,) int64, sentence keys.
        in_scope: (c,) bool, whether the passage is in the scope.
        key_of: position → sentence key.
        config: mining settings.
    """

    ids: NDArray[np.int64]
    keys: NDArray[np.int64]
    in_scope: NDArray[np.bool_]
    key_of: Mapping[Position, Position]
    config: MiningConfig

    @classmethod
    def of(
        cls, corpus: Passages, config: MiningConfig, positives: frozenset[Position]
    ) -> "Candidates":
        """Return the candidates of `corpus`.

        Args:
            corpus: all passages.
            config: mining settings.
            positives: passages that are positives of a train query (the scope `positives`).
        """
        key_of = sentence_keys(corpus)
        return cls(
            np.array(list(key_of), dtype=np.int64),
            np.array(list(key_of.values()), dtype=np.int64),
            np.array([config.scope == "corpus" or key in positives for key in key_of], dtype=bool),
            key_of,
            config,
        )

    def choose(
        self, query_id: QueryId, indices: CorpusIndices, scores: Scores, right: frozenset[Position]
    ) -> tuple[list[int], list[Position]]:
        """Return the chosen ranking columns (from 0) and the random passages, both ascending.

        Args:
            query_id: seed of the draws, with `config.seed`.
            indices: (k,) ranked passages.
            scores: (k,) scores of the ranked passages.
            right: positives of the query.
        """
        draws = generator(self.config.seed, query_id)
        right_keys = [self.key_of[key] for key in right]
        is_wrong = self.in_scope & ~np.isin(self.keys, right_keys)  # (c,)
        if self.config.strategy == "range":
            columns = self._window(is_wrong[indices], draws)
        else:
            is_right = np.isin(self.ids[indices], list(right))  # (k,)
            columns = self._hardest(is_wrong[indices], scores, scores[is_right])
        is_wrong[indices[columns]] = False  # no passage is chosen twice
        unused = [Position(key) for key in self.ids[is_wrong].tolist()]
        count = min(self.config.count - len(columns), len(unused))
        return columns, sorted(draws.sample(unused, count))

    def _window(self, is_wrong: NDArray[np.bool_], draws: random.Random) -> list[int]:
        """Return at most `count` columns among ranks `low` to `high`, sampled."""
        low = self.config.low - 1
        columns: list[int] = (low + np.flatnonzero(is_wrong[low : self.config.high])).tolist()
        if len(columns) <= self.config.count:
            return columns
        return sorted(draws.sample(columns, self.config.count))

    def _hardest(self, is_wrong: NDArray[np.bool_], scores: Scores, right: Scores) -> list[int]:
        """Return the best ranked columns that score clearly below the lowest positive."""
        count = self.config.count - random_count(self.config)
        if count == 0:
            return []  # no negative is chosen by score, so the ranking may not have the positive
        lowest = float(right.min())
        # Equal to positive - |positive| * (1 - percpos), so it is below a negative score too.
        limit = lowest * (self.config.percpos if lowest >= 0 else 2 - self.config.percpos)
        columns: list[int] = np.flatnonzero(is_wrong & (scores < limit))[:count].tolist()
        return columns
