"""The prefix trie holds exactly what was put in, once, under any budget and in any order."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.retrieval.engine.trie import (
    Pack,
    ancestors,
    blocks,
    counts,
    pack,
    rows,
    unpack,
    visible,
)
from parity.run.errors import BadData

Sequences = list[list[int]]

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=8)
several = st.lists(tokens, max_size=16)
budgets = st.integers(1, 40)


def told(packs: list[Pack], asked: Sequences) -> list[tuple[object, ...]]:
    """Return all that packs say, owners by their tokens instead of their place in the input."""
    return [
        (
            one.ids.tolist(),
            one.depth.tolist(),
            one.end.tolist(),
            [(node, asked[owner]) for node, owner in zip(one.last, one.owner, strict=True)],
        )
        for one in packs
    ]


def owned(one: Pack, asked: Sequences) -> set[tuple[int, ...]]:
    return {tuple(asked[owner]) for owner in one.owner.tolist()}


def test_two_sequences_that_part_worked_out_by_hand() -> None:
    (one,) = pack([[7, 8, 9], [7, 8], [7, 5, 6], [7, 8]], budget=10)
    assert one.ids.tolist() == [7, 5, 6, 8, 9]
    assert one.depth.tolist() == [0, 1, 2, 1, 2]
    assert one.end.tolist() == [4, 2, 2, 4, 4]
    assert one.last.tolist() == [2, 3, 3, 4]
    assert one.owner.tolist() == [2, 1, 3, 0]
    assert len(one) == 5


@given(several, budgets)
def test_unpacking_gives_back_what_was_packed(asked: Sequences, budget: int) -> None:
    assert unpack(pack(asked, budget)) == dict(enumerate(asked))


@given(several, budgets)
def test_every_node_sees_its_own_prefix_and_nothing_else(asked: Sequences, budget: int) -> None:
    for one in pack(asked, budget):
        prefixes = {row[:stop] for row in owned(one, asked) for stop in range(1, len(row) + 1)}
        paths = [tuple(one.ids[ancestors(one, node)].tolist()) for node in range(len(one))]
        assert sorted(paths) == sorted(prefixes)  # each prefix is one node
        assert [len(path) - 1 for path in paths] == one.depth.tolist()


@given(several, budgets)
def test_no_pack_passes_the_budget_unless_it_is_one_sequence(asked: Sequences, budget: int) -> None:
    for one in pack(asked, budget):
        assert len(one) <= budget or len(owned(one, asked)) == 1


@given(several, budgets)
def test_equal_sequences_share_one_last_node(asked: Sequences, budget: int) -> None:
    places: dict[tuple[int, ...], set[tuple[int, int]]] = {}
    for number, one in enumerate(pack(asked, budget)):
        for node, owner in zip(one.last.tolist(), one.owner.tolist(), strict=True):
            places.setdefault(tuple(asked[owner]), set()).add((number, node))
    assert {len(found) for found in places.values()} <= {1}


@given(several, budgets, st.randoms())
def test_the_order_of_the_input_changes_nothing_but_owners(
    asked: Sequences, budget: int, generator: random.Random
) -> None:
    turned = generator.sample(asked, len(asked))
    for cut in (pack, rows):
        assert told(cut(asked, budget), asked) == told(cut(turned, budget), turned)


@given(several)
def test_under_a_wide_budget_there_is_one_pack_with_each_prefix_once(asked: Sequences) -> None:
    prefixes = {tuple(row[:stop]) for row in asked for stop in range(1, len(row) + 1)}
    packs = pack(asked, 10_000)
    assert [len(one) for one in packs] == ([len(prefixes)] if asked else [])


def test_a_cut_repeats_the_prefix_once_in_the_next_pack() -> None:
    asked = [[1, 2, 3, tail] for tail in range(5)]
    assert [len(one) for one in pack(asked, 5)] == [5, 5, 4]
    assert [len(one) for one in pack(asked, 8)] == [8]


@given(several, budgets)
def test_the_dense_mask_shows_the_ancestors(asked: Sequences, budget: int) -> None:
    for one in pack(asked, budget):
        seen = visible(one)
        assert seen.shape == (len(one), len(one))
        for node in range(len(one)):
            assert np.flatnonzero(seen[node]).tolist() == ancestors(one, node)


@given(several, budgets, st.integers(1, 9))
def test_a_block_s_ancestors_are_all_that_its_nodes_see_before_it(
    asked: Sequences, budget: int, size: int
) -> None:
    for one in [*pack(asked, budget), *rows(asked, budget)]:
        seen, found = visible(one), blocks(one, size)
        bounds = [*range(0, len(one), size), len(one)]
        assert [(block.start, block.stop) for block in found] == list(itertools.pairwise(bounds))
        for block in found:
            before = seen[block.start : block.stop, : block.start].any(axis=0)
            assert block.ancestors.tolist() == np.flatnonzero(before).tolist()
            assert block.ancestors.dtype == np.int64


def test_what_packing_saved_worked_out_by_hand() -> None:
    asked = [[1, 2, 3, tail] for tail in range(5)] + [[1, 2, 3, 0], [9]]
    found = counts(pack(asked, 5), asked, batch=3)
    # [1 2 3 0 1] [1 2 3 2 3] [1 2 3 4 9], padded to 3 · 4 + 3 · 4 + 1
    assert (found.sequences, found.flat, found.packed, found.packs) == (7, 25, 15, 3)
    assert (found.padded, found.repeated, found.sharing) == (25, 6, 25 / 15)
    assert counts([], []).sharing == 1


@given(several, budgets)
def test_what_is_packed_is_every_prefix_once_and_what_cuts_repeat(
    asked: Sequences, budget: int
) -> None:
    found = counts(pack(asked, budget), asked)
    prefixes = {tuple(row[:stop]) for row in asked for stop in range(1, len(row) + 1)}
    assert found.packed - found.repeated == len(prefixes)


@given(several, budgets)
def test_nodes_are_int32_and_places_int64(asked: Sequences, budget: int) -> None:
    for one in [*pack(asked, budget), *rows(asked, budget)]:
        assert {column.dtype for column in (one.ids, one.depth, one.end)} == {np.dtype(np.int32)}
        assert {one.last.dtype, one.owner.dtype} == {np.dtype(np.int64)}


def test_arrays_are_sequences_too() -> None:
    asked = [np.array([3, 1]), np.array([3])]
    assert unpack(pack(asked, 9)) == {0: [3, 1], 1: [3]}  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("cut", [pack, rows])
def test_an_empty_sequence_is_refused_by_number(cut: object) -> None:
    assert callable(cut)
    with pytest.raises(BadData, match="sequence 1 has no tokens"):
        cut([[1], []], 9)


@pytest.mark.parametrize("cut", [pack, rows])
def test_nothing_makes_no_packs(cut: object) -> None:
    assert callable(cut)
    assert cut([], 9) == []


@given(several, budgets)
def test_rows_give_back_what_was_put_in(asked: Sequences, budget: int) -> None:
    assert unpack(rows(asked, budget)) == dict(enumerate(asked))


@given(several, budgets)
def test_rows_are_whole_distinct_sequences_of_one_length(asked: Sequences, budget: int) -> None:
    seen: list[tuple[int, ...]] = []
    for one in rows(asked, budget):
        width = int(one.depth[-1]) + 1
        kept = [tuple(row) for row in one.ids.reshape(-1, width).tolist()]
        assert owned(one, asked) == set(kept)
        assert len(one) <= budget or len(kept) == 1
        assert one.depth.tolist() == list(range(width)) * len(kept)
        seen += kept
    assert sorted(seen) == sorted({tuple(row) for row in asked})


@given(several)
def test_rows_of_one_length_fill_the_budget(asked: Sequences) -> None:
    lengths = {len(row) for row in asked}
    assert len(rows(asked, 10_000)) == len(lengths)
