"""The prefix trie contains each prefix once, for any budget and any order of the input."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.retrieval.engine.trie import (
    Pack,
    ancestors,
    attention_mask,
    count_tokens,
    pack,
    pack_equal_lengths,
    split_blocks,
    unpack,
)
from parity.run.errors import BadData

Sequences = list[list[int]]

token_ids = st.lists(st.integers(0, 2), min_size=1, max_size=8)
lists_of_tokens = st.lists(token_ids, max_size=16)
budgets = st.integers(1, 40)


def contents(packs: list[Pack], sequences: Sequences) -> list[tuple[object, ...]]:
    """Return the contents of packs, with the token ids of owners instead of their index."""
    return [
        (
            pack_.ids.tolist(),
            pack_.depth.tolist(),
            pack_.end.tolist(),
            [(node, sequences[owner]) for node, owner in zip(pack_.last, pack_.owner, strict=True)],
        )
        for pack_ in packs
    ]


def owned_sequences(pack_: Pack, sequences: Sequences) -> set[tuple[int, ...]]:
    return {tuple(sequences[owner]) for owner in pack_.owner.tolist()}


def test_the_trie_of_branching_sequences_matches_a_manual_layout() -> None:
    (pack_,) = pack([[7, 8, 9], [7, 8], [7, 5, 6], [7, 8]], budget=10)
    assert pack_.ids.tolist() == [7, 5, 6, 8, 9]
    assert pack_.depth.tolist() == [0, 1, 2, 1, 2]
    assert pack_.end.tolist() == [4, 2, 2, 4, 4]
    assert pack_.last.tolist() == [2, 3, 3, 4]
    assert pack_.owner.tolist() == [2, 1, 3, 0]
    assert len(pack_) == 5


@given(lists_of_tokens, budgets)
def test_unpacking_gives_back_what_was_packed(sequences: Sequences, budget: int) -> None:
    assert unpack(pack(sequences, budget)) == dict(enumerate(sequences))


@given(lists_of_tokens, budgets)
def test_every_packed_token_attends_to_its_own_prefix_only(
    sequences: Sequences, budget: int
) -> None:
    for pack_ in pack(sequences, budget):
        prefixes = {
            row[:stop]
            for row in owned_sequences(pack_, sequences)
            for stop in range(1, len(row) + 1)
        }
        paths = [tuple(pack_.ids[ancestors(pack_, node)].tolist()) for node in range(len(pack_))]
        assert sorted(paths) == sorted(prefixes)  # each prefix is one packed token
        assert [len(path) - 1 for path in paths] == pack_.depth.tolist()


@given(lists_of_tokens, budgets)
def test_no_pack_exceeds_the_budget_unless_it_is_one_sequence(
    sequences: Sequences, budget: int
) -> None:
    for pack_ in pack(sequences, budget):
        assert len(pack_) <= budget or len(owned_sequences(pack_, sequences)) == 1


@given(lists_of_tokens, budgets)
def test_equal_sequences_share_one_last_token(sequences: Sequences, budget: int) -> None:
    positions: dict[tuple[int, ...], set[tuple[int, int]]] = {}
    for number, pack_ in enumerate(pack(sequences, budget)):
        for node, owner in zip(pack_.last.tolist(), pack_.owner.tolist(), strict=True):
            positions.setdefault(tuple(sequences[owner]), set()).add((number, node))
    assert {len(pairs) for pairs in positions.values()} <= {1}


@given(lists_of_tokens, budgets, st.randoms())
def test_the_order_of_the_input_changes_only_the_owners(
    sequences: Sequences, budget: int, generator: random.Random
) -> None:
    shuffled = generator.sample(sequences, len(sequences))
    for pack_function in (pack, pack_equal_lengths):
        assert contents(pack_function(sequences, budget), sequences) == contents(
            pack_function(shuffled, budget), shuffled
        )


@given(lists_of_tokens)
def test_with_a_large_budget_one_pack_has_each_prefix_once(sequences: Sequences) -> None:
    prefixes = {tuple(row[:stop]) for row in sequences for stop in range(1, len(row) + 1)}
    packs = pack(sequences, 10_000)
    assert [len(pack_) for pack_ in packs] == ([len(prefixes)] if sequences else [])


def test_a_split_prefix_is_repeated_once_in_the_next_pack() -> None:
    sequences = [[1, 2, 3, tail] for tail in range(5)]
    assert [len(pack_) for pack_ in pack(sequences, 5)] == [5, 5, 4]
    assert [len(pack_) for pack_ in pack(sequences, 8)] == [8]


@given(lists_of_tokens, budgets)
def test_the_dense_mask_shows_the_ancestors(sequences: Sequences, budget: int) -> None:
    for pack_ in pack(sequences, budget):
        visible = attention_mask(pack_)
        assert visible.shape == (len(pack_), len(pack_))
        for node in range(len(pack_)):
            assert np.flatnonzero(visible[node]).tolist() == ancestors(pack_, node)


@given(lists_of_tokens, budgets, st.integers(1, 9))
def test_the_ancestors_of_a_block_are_all_earlier_visible_tokens(
    sequences: Sequences, budget: int, size: int
) -> None:
    for pack_ in [*pack(sequences, budget), *pack_equal_lengths(sequences, budget)]:
        visible, blocks = attention_mask(pack_), split_blocks(pack_, size)
        bounds = [*range(0, len(pack_), size), len(pack_)]
        assert [(block.start, block.stop) for block in blocks] == list(itertools.pairwise(bounds))
        for block in blocks:
            before = visible[block.start : block.stop, : block.start].any(axis=0)
            assert block.ancestors.tolist() == np.flatnonzero(before).tolist()
            assert block.ancestors.dtype == np.int64


def test_packing_counts_match_a_manual_computation() -> None:
    sequences = [[1, 2, 3, tail] for tail in range(5)] + [[1, 2, 3, 0], [9]]
    counts = count_tokens(pack(sequences, 5), sequences, batch=3)
    # [1 2 3 0 1] [1 2 3 2 3] [1 2 3 4 9], padded to 3 · 4 + 3 · 4 + 1
    assert (
        counts.sequences,
        counts.tokens_without_sharing,
        counts.tokens_with_sharing,
        counts.packs,
    ) == (7, 25, 15, 3)
    assert (counts.padded_tokens, counts.repeated_tokens, counts.sharing) == (25, 6, 25 / 15)
    assert count_tokens([], []).sharing == 1


@given(lists_of_tokens, budgets)
def test_packed_tokens_are_distinct_prefixes_plus_repeated_tokens(
    sequences: Sequences, budget: int
) -> None:
    counts = count_tokens(pack(sequences, budget), sequences)
    prefixes = {tuple(row[:stop]) for row in sequences for stop in range(1, len(row) + 1)}
    assert counts.tokens_with_sharing - counts.repeated_tokens == len(prefixes)


@given(lists_of_tokens, budgets)
def test_packed_tokens_are_int32_and_indices_int64(sequences: Sequences, budget: int) -> None:
    for pack_ in [*pack(sequences, budget), *pack_equal_lengths(sequences, budget)]:
        assert {column.dtype for column in (pack_.ids, pack_.depth, pack_.end)} == {
            np.dtype(np.int32)
        }
        assert {pack_.last.dtype, pack_.owner.dtype} == {np.dtype(np.int64)}


def test_arrays_are_accepted_as_sequences() -> None:
    sequences = [np.array([3, 1]), np.array([3])]
    assert unpack(pack(sequences, 9)) == {0: [3, 1], 1: [3]}  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("pack_function", [pack, pack_equal_lengths])
def test_an_empty_sequence_is_refused_by_number(pack_function: object) -> None:
    assert callable(pack_function)
    with pytest.raises(BadData, match="sequence 1 has no tokens"):
        pack_function([[1], []], 9)


@pytest.mark.parametrize("pack_function", [pack, pack_equal_lengths])
def test_an_empty_list_gives_no_packs(pack_function: object) -> None:
    assert callable(pack_function)
    assert pack_function([], 9) == []


@given(lists_of_tokens, budgets)
def test_equal_length_packs_unpack_to_the_input(sequences: Sequences, budget: int) -> None:
    assert unpack(pack_equal_lengths(sequences, budget)) == dict(enumerate(sequences))


@given(lists_of_tokens, budgets)
def test_equal_length_packs_contain_distinct_sequences_of_one_length(
    sequences: Sequences, budget: int
) -> None:
    stored: list[tuple[int, ...]] = []
    for pack_ in pack_equal_lengths(sequences, budget):
        width = int(pack_.depth[-1]) + 1
        rows = [tuple(row) for row in pack_.ids.reshape(-1, width).tolist()]
        assert owned_sequences(pack_, sequences) == set(rows)
        assert len(pack_) <= budget or len(rows) == 1
        assert pack_.depth.tolist() == list(range(width)) * len(rows)
        stored += rows
    assert sorted(stored) == sorted({tuple(row) for row in sequences})


@given(lists_of_tokens)
def test_equal_length_packs_fill_the_budget(sequences: Sequences) -> None:
    lengths = {len(row) for row in sequences}
    assert len(pack_equal_lengths(sequences, 10_000)) == len(lengths)
