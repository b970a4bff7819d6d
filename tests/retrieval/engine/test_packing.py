"""Packs from arrays equal those of a slow implementation, and ranks are balanced."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shipped_data import synthetic_folder

from parity.competition import few_shot
from parity.competition.eedi import kaggle_files
from parity.competition.splits import split as splits
from parity.retrieval import tokenizer
from parity.retrieval.engine import packing, trie
from parity.retrieval.engine.trie import Pack, PackingCounts
from parity.retrieval.retrieve import passages, render_queries
from parity.run.config.encoder import EncoderConfig
from parity.run.config.prompt import PromptConfig
from parity.run.config.split import SplitConfig

Sequences = list[list[int]]

# 255, 256 and 2**31 - 1 are out of order in little-endian bytes.
ids = st.sampled_from([0, 1, 255, 256, 2**31 - 1])
lists_of_ids = st.lists(st.lists(ids, min_size=1, max_size=8), max_size=16)
budgets = st.integers(1, 40)
sizes = st.lists(st.integers(0, 30), max_size=9)


class SlowPack:
    """One pack, built token by token from sequences in sorted order."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.depth: list[int] = []
        self.end: list[int] = []
        self.last: list[int] = []
        self.owner: list[int] = []
        self.path: list[int] = []  # tokens from the root to the last one

    def shared(self, tokens: Sequence[int]) -> int:
        pairs = zip(self.path, tokens, strict=False)
        return len(list(itertools.takewhile(lambda pair: self.ids[pair[0]] == pair[1], pairs)))

    def add(self, index: int, tokens: Sequence[int]) -> None:
        shared = self.shared(tokens)
        self.close(shared)
        for position in range(shared, len(tokens)):
            self.path.append(len(self.ids))
            self.ids.append(tokens[position])
            self.depth.append(position)
            self.end.append(-1)
        self.last.append(self.path[-1])
        self.owner.append(index)

    def close(self, keep: int) -> None:
        for node in self.path[keep:]:
            self.end[node] = len(self.ids) - 1
        del self.path[keep:]


def slow_packs(sequences: Sequences, budget: int) -> list[SlowPack]:
    """Return packs filled one after the other up to the budget."""
    packs: list[SlowPack] = []
    for index in sorted(range(len(sequences)), key=lambda index: (sequences[index], index)):
        cost = len(sequences[index]) - (packs[-1].shared(sequences[index]) if packs else 0)
        if not packs or (cost and len(packs[-1].ids) + cost > budget):
            packs.append(SlowPack())
        packs[-1].add(index, sequences[index])
    for pack in packs:
        pack.close(0)
    return packs


def columns(packs: Sequence[Pack | SlowPack]) -> list[list[list[int]]]:
    return [
        [
            list(map(int, column))
            for column in (pack.ids, pack.depth, pack.end, pack.last, pack.owner)
        ]
        for pack in packs
    ]


@given(lists_of_ids)
def test_one_pack_equals_the_slow_implementation(sequences: Sequences) -> None:
    assert columns(trie.pack(sequences, 1000)) == columns(slow_packs(sequences, 1000))


@given(lists_of_ids, budgets)
def test_packs_equal_the_slow_implementation_at_the_lowest_sufficient_level(
    sequences: Sequences, budget: int
) -> None:
    count = len(slow_packs(sequences, budget))
    level = next(
        number for number in range(1, budget + 1) if len(slow_packs(sequences, number)) <= count
    )
    assert columns(trie.pack(sequences, budget)) == columns(slow_packs(sequences, level))


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_the_chunk_size_does_not_change_the_packs(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = models.sequences()
    expected = columns(trie.pack(sequences, 64))
    monkeypatch.setattr(packing, "_CHUNK_TOKENS", chunk)
    assert columns(trie.pack(sequences, 64)) == expected


def test_the_last_pack_is_not_nearly_empty() -> None:
    sequences = [[tail] for tail in range(101)]
    assert [len(item.ids) for item in slow_packs(sequences, 100)] == [100, 1]
    assert [len(item) for item in trie.pack(sequences, 100)] == [51, 50]


def test_concatenated_sequences_are_packed_like_lists() -> None:
    sequences = models.sequences()
    concatenated = packing.concatenate(sequences)
    assert (len(concatenated), concatenated.lengths().tolist()) == (
        len(sequences),
        list(map(len, sequences)),
    )
    assert (concatenated.ids.dtype, concatenated.offsets.dtype) == (
        np.dtype(np.int32),
        np.dtype(np.int64),
    )
    assert columns(trie.pack_concatenated(concatenated, 64)) == columns(trie.pack(sequences, 64))


@given(lists_of_ids)
def test_shared_lengths_are_the_common_prefixes_of_neighbors(sequences: Sequences) -> None:
    order = packing.sort_sequences(packing.concatenate(sequences))
    rows = [sequences[owner] for owner in order.owner]
    assert rows == sorted(sequences)
    for before, after, shared in zip(rows, rows[1:], order.shared[1:], strict=False):
        assert before[:shared] == after[:shared]
        assert before[shared : shared + 1] != after[shared : shared + 1] or before == after
    assert order.added_tokens().sum() == sum(len(pack) for pack in trie.pack(sequences, 1000))


@given(sizes, st.integers(1, 3))
def test_no_rank_exceeds_the_bound_of_the_lpt_rule(sequences: list[int], world: int) -> None:
    owners = packing.assign_ranks(sequences, world)
    loads = [
        sum(size for size, owner in zip(sequences, owners, strict=True) if owner == rank)
        for rank in range(world)
    ]
    assert (len(owners), sum(loads)) == (len(sequences), sum(sequences))
    # Holds without the optimum: a rank got a pack only if it had the fewest tokens.
    for rank, load in enumerate(loads):
        own_sizes = [size for size, owner in zip(sequences, owners, strict=True) if owner == rank]
        assert load - min(own_sizes, default=0) <= min(loads)
    if len(sequences) <= 6:
        assert max(loads) <= (4 / 3 - 1 / (3 * world)) * best_max_load(sequences, world) + 1e-9


def best_max_load(sequences: list[int], world: int) -> int:
    deals = itertools.product(range(world), repeat=len(sequences))
    return min(
        max(
            sum(size for size, owner in zip(sequences, deal, strict=True) if owner == rank)
            for rank in range(world)
        )
        for deal in deals
    )


def test_ties_go_to_the_smaller_index_and_rank() -> None:
    assert packing.assign_ranks([5, 5, 5, 5], 2) == (0, 1, 0, 1)
    assert packing.assign_ranks([1, 2, 9, 4], 2) == (1, 1, 0, 1)
    assert packing.assign_ranks([], 2) == ()


def synthetic_counts(tmp_path: Path, kind: str) -> PackingCounts:
    """Return the counts of one list of the synthetic competition, tokenized byte by byte."""
    prompt = PromptConfig(query_max_length=2048, passage_max_length=256)
    if kind == "fixed":
        prompt = PromptConfig(query_max_length=2048, examples="fixed", example_count=3)
    base = models.write(tmp_path / "mistral", "mistral")
    reader = tokenizer.load_tokenizer(base, EncoderConfig(token_budget=8192))
    competition = kaggle_files.read(synthetic_folder())
    if kind == "corpus":
        sequences = passages(reader, prompt, competition.corpus)
    else:
        split = splits.make(competition.queries, competition.qrels, SplitConfig())
        pool = few_shot.pool(competition.queries, competition.qrels, competition.corpus, split)
        rows = [*competition.queries, *competition.test]
        sequences = render_queries(reader, prompt, rows, few_shot.shown(rows, pool, prompt)).tokens
    shuffled = random.Random(0).sample(sequences, len(sequences))
    counts = trie.count_tokens(reader.packs(sequences), sequences)
    assert counts == trie.count_tokens(reader.packs(shuffled), shuffled)
    return counts


@pytest.mark.parametrize(
    ("kind", "expected", "sharing"),
    [
        ("none", PackingCounts(1019, 120099, 30979, 4, 122693, 215), 3.877),
        ("fixed", PackingCounts(1019, 707079, 44056, 6, 709637, 3211), 16.05),
        ("corpus", PackingCounts(380, 24855, 9450, 2, 25716, 1), 2.63),
    ],
)
def test_the_token_counts_of_the_synthetic_competition_are_pinned(
    kind: str, expected: PackingCounts, sharing: float, tmp_path: Path
) -> None:
    counts = synthetic_counts(tmp_path, kind)
    assert counts == expected
    assert round(counts.sharing, 3) == sharing
