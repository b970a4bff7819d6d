"""Planning by arrays makes the tries of the slow twin, in no more packs, and evenly dealt."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.competition import few_shot
from parity.competition.eedi import kaggle_files
from parity.competition.splits import split as splits
from parity.retrieval import tokenizer
from parity.retrieval.engine import packing, trie
from parity.retrieval.engine.trie import Counts, Pack
from parity.retrieval.retrieve import passages, render_queries
from parity.run.config.run_file import EncoderConfig, PromptConfig, SplitConfig

Sequences = list[list[int]]

SYNTHETIC = Path(__file__).parents[3] / "data" / "synthetic"

# 255, 256 and 2**31 - 1 are out of order in little-endian bytes.
ids = st.sampled_from([0, 1, 255, 256, 2**31 - 1])
several = st.lists(st.lists(ids, min_size=1, max_size=8), max_size=16)
budgets = st.integers(1, 40)
sizes = st.lists(st.integers(0, 30), max_size=9)


class Slow:
    """Grows one pack from sequences in sorted order, token by token."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.depth: list[int] = []
        self.end: list[int] = []
        self.last: list[int] = []
        self.owner: list[int] = []
        self.path: list[int] = []  # nodes from the root to the node added last

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


def slow(asked: Sequences, budget: int) -> list[Slow]:
    """Fill packs one after the other to the budget."""
    packs: list[Slow] = []
    for index in sorted(range(len(asked)), key=lambda index: (asked[index], index)):
        cost = len(asked[index]) - (packs[-1].shared(asked[index]) if packs else 0)
        if not packs or (cost and len(packs[-1].ids) + cost > budget):
            packs.append(Slow())
        packs[-1].add(index, asked[index])
    for pack in packs:
        pack.close(0)
    return packs


def columns(packs: Sequence[Pack | Slow]) -> list[list[list[int]]]:
    return [
        [
            list(map(int, column))
            for column in (pack.ids, pack.depth, pack.end, pack.last, pack.owner)
        ]
        for pack in packs
    ]


@given(several)
def test_a_wide_budget_makes_the_tries_of_the_slow_twin(asked: Sequences) -> None:
    assert columns(trie.pack(asked, 1000)) == columns(slow(asked, 1000))


@given(several, budgets)
def test_packs_are_those_of_the_slow_twin_at_the_lowest_level_that_needs_no_more(
    asked: Sequences, budget: int
) -> None:
    most = len(slow(asked, budget))
    level = next(number for number in range(1, budget + 1) if len(slow(asked, number)) <= most)
    assert columns(trie.pack(asked, budget)) == columns(slow(asked, level))


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_how_much_is_compared_at_once_changes_nothing(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = models.sequences()
    whole = columns(trie.pack(asked, 64))
    monkeypatch.setattr(packing, "_AT_ONCE", at_once)
    assert columns(trie.pack(asked, 64)) == whole


def test_the_last_pack_is_not_nearly_empty() -> None:
    asked = [[tail] for tail in range(101)]
    assert [len(one.ids) for one in slow(asked, 100)] == [100, 1]
    assert [len(one) for one in trie.pack(asked, 100)] == [51, 50]


def test_sequences_end_to_end_are_packed_as_lists_are() -> None:
    asked = models.sequences()
    one = packing.flat(asked)
    assert (len(one), one.lengths().tolist()) == (len(asked), list(map(len, asked)))
    assert (one.ids.dtype, one.offsets.dtype) == (np.dtype(np.int32), np.dtype(np.int64))
    assert columns(trie.pack_flat(one, 64)) == columns(trie.pack(asked, 64))


@given(several)
def test_neighbours_share_what_they_begin_with(asked: Sequences) -> None:
    order = packing.ordered(packing.flat(asked))
    rows = [asked[owner] for owner in order.owner]
    assert rows == sorted(asked)
    for before, after, shared in zip(rows, rows[1:], order.shared[1:], strict=False):
        assert before[:shared] == after[:shared]
        assert before[shared : shared + 1] != after[shared : shared + 1] or before == after
    assert order.new().sum() == sum(len(one) for one in trie.pack(asked, 1000))


@given(sizes, st.integers(1, 3))
def test_no_rank_is_dealt_more_than_the_rule_allows(asked: list[int], world: int) -> None:
    owners = packing.deal(asked, world)
    loads = [
        sum(size for size, owner in zip(asked, owners, strict=True) if owner == rank)
        for rank in range(world)
    ]
    assert (len(owners), sum(loads)) == (len(asked), sum(asked))
    # A bound that is proven without the best deal: nobody got a pack while another had less.
    for rank, load in enumerate(loads):
        dealt = [size for size, owner in zip(asked, owners, strict=True) if owner == rank]
        assert load - min(dealt, default=0) <= min(loads)
    if len(asked) <= 6:
        assert max(loads) <= (4 / 3 - 1 / (3 * world)) * fullest_at_best(asked, world) + 1e-9


def fullest_at_best(asked: list[int], world: int) -> int:
    deals = itertools.product(range(world), repeat=len(asked))
    return min(
        max(
            sum(size for size, owner in zip(asked, deal, strict=True) if owner == rank)
            for rank in range(world)
        )
        for deal in deals
    )


def test_ties_go_to_the_smaller_index_and_rank() -> None:
    assert packing.deal([5, 5, 5, 5], 2) == (0, 1, 0, 1)
    assert packing.deal([1, 2, 9, 4], 2) == (1, 1, 0, 1)
    assert packing.deal([], 2) == ()


def saved(tmp_path: Path, kind: str) -> Counts:
    """Return the counts of one list of the synthetic competition, tokenized byte by byte."""
    prompt = PromptConfig(query_max_length=2048, passage_max_length=256)
    if kind == "fixed":
        prompt = PromptConfig(query_max_length=2048, examples="fixed", example_count=3)
    base = models.write(tmp_path / "mistral", "mistral")
    read = tokenizer.opened(base, EncoderConfig(token_budget=8192))
    known = kaggle_files.read(SYNTHETIC)
    if kind == "corpus":
        asked = passages(read, prompt, known.corpus)
    else:
        split = splits.make(known.queries, known.qrels, SplitConfig())
        pool = few_shot.pool(known.queries, known.qrels, known.corpus, split)
        rows = [*known.queries, *known.test]
        asked = render_queries(read, prompt, rows, few_shot.shown(rows, pool, prompt)).tokens
    turned = random.Random(0).sample(asked, len(asked))
    counted = trie.counts(read.packs(asked), asked)
    assert counted == trie.counts(read.packs(turned), turned)
    return counted


@pytest.mark.parametrize(
    ("kind", "expected", "sharing"),
    [
        ("none", Counts(1019, 120099, 30979, 4, 122693, 215), 3.877),
        ("fixed", Counts(1019, 707079, 44056, 6, 709637, 3211), 16.05),
        ("corpus", Counts(380, 24855, 9450, 2, 25716, 1), 2.63),
    ],
)
def test_the_synthetic_competition_costs_these_tokens_and_no_more(
    kind: str, expected: Counts, sharing: float, tmp_path: Path
) -> None:
    found = saved(tmp_path, kind)
    assert found == expected
    assert round(found.sharing, 3) == sharing
