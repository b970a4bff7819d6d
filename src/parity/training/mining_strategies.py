"""How one query's negatives are chosen from its ranking; each query draws from its own generator.

Ids decide everywhere; a sentence is compared only to keep out an id that says the same as a right
one.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.competition.query import Corpus, MisconceptionId, QueryId
from parity.run.config.run_file import MiningConfig

Places = NDArray[np.int64]
"""(k,) places in the corpus, best ranked first."""
Scores = NDArray[np.float64]
"""(k,) scores, not increasing."""


def sentence_keys(corpus: Corpus) -> dict[MisconceptionId, MisconceptionId]:
    """Return each id's key: the smallest id with the same sentence, case and space aside.

    >>> sentence_keys({MisconceptionId(4): "Adds  both", MisconceptionId(7): "adds both "})
    {4: 4, 7: 4}
    """
    first: dict[str, MisconceptionId] = {}
    return {
        key: first.setdefault(" ".join(corpus[key].split()).casefold(), key)
        for key in sorted(corpus)
    }


def generator(*parts: int | str) -> random.Random:
    """Return a generator seeded by the sha256 of `parts` alone."""
    name = "/".join(map(str, parts)).encode()
    return random.Random(int.from_bytes(hashlib.sha256(name).digest(), "big"))


def random_count(config: MiningConfig) -> int:
    """Return how many negatives of a query are meant to be drawn at random.

    >>> random_count(MiningConfig(strategy="mix", count=15, random_share=0.5))
    8
    """
    share = {"random": 1.0, "mix": config.random_share}.get(config.strategy, 0.0)
    return int(config.count * share + 0.5)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The corpus as mining sees it; arrays run over it in ascending order of id.

    Attributes:
        ids: (c,) misconceptions.
        keys: (c,) their sentence keys.
        inside: (c,) whether they are in scope.
        key_of: id → sentence key.
        config: the strategy.
    """

    ids: NDArray[np.int64]
    keys: NDArray[np.int64]
    inside: NDArray[np.bool_]
    key_of: Mapping[MisconceptionId, MisconceptionId]
    config: MiningConfig

    @classmethod
    def of(
        cls, corpus: Corpus, config: MiningConfig, positives: frozenset[MisconceptionId]
    ) -> "Candidates":
        """Return the candidates of `corpus`.

        Args:
            corpus: all misconceptions.
            config: the strategy and its scope.
            positives: misconceptions that are right somewhere in train (the scope `positives`).
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
        self, query_id: QueryId, places: Places, scores: Scores, right: frozenset[MisconceptionId]
    ) -> tuple[list[int], list[MisconceptionId]]:
        """Return the ranked columns (from 0) and the drawn ids, both ascending.

        Args:
            query_id: seeds the draws, with `config.seed`.
            places: (k,) the ranking.
            scores: (k,) its scores.
            right: the query's right misconceptions.
        """
        draws = generator(self.config.seed, query_id)
        said = [self.key_of[key] for key in right]
        wrong = self.inside & ~np.isin(self.keys, said)  # (c,)
        if self.config.strategy == "range":
            columns = self._window(wrong[places], draws)
        else:
            where = np.isin(self.ids[places], list(right))  # (k,)
            columns = self._hardest(wrong[places], scores, scores[where])
        wrong[places[columns]] = False  # none comes twice
        rest = [MisconceptionId(key) for key in self.ids[wrong].tolist()]
        wanted = min(self.config.count - len(columns), len(rest))
        return columns, sorted(draws.sample(rest, wanted))

    def _window(self, wrong: NDArray[np.bool_], draws: random.Random) -> list[int]:
        """Return at most `count` columns among ranks `low` to `high`, sampled."""
        low = self.config.low - 1
        columns: list[int] = (low + np.flatnonzero(wrong[low : self.config.high])).tolist()
        if len(columns) <= self.config.count:
            return columns
        return sorted(draws.sample(columns, self.config.count))

    def _hardest(self, wrong: NDArray[np.bool_], scores: Scores, right: Scores) -> list[int]:
        """Return the best ranked columns that score clearly below the lowest positive."""
        wanted = self.config.count - random_count(self.config)
        if wanted == 0:
            return []  # nothing is taken by score, and the ranking need not hold the positive
        lowest = float(right.min())
        # That is positive - |positive| * (1 - percpos): below a negative positive too.
        limit = lowest * (self.config.percpos if lowest >= 0 else 2 - self.config.percpos)
        columns: list[int] = np.flatnonzero(wrong & (scores < limit))[:wanted].tolist()
        return columns
