"""Tests of an epoch's batches: every row once, no false negative, reproducible from a seed."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.query import Passages, Position, Qrels, Query, QueryId, UnitId
from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig, BadData, Mismatch
from parity.training.batch_stats import batch_stats
from parity.training.batches import Batch, TrainingData, plan
from parity.training.mining_strategies import sentence_keys
from parity.training.negatives import Negatives, QueryNegatives


def config(**keys: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"batch_size": 4, "train_group_size": 4, **keys})


def changed(training: TrainingConfig, **keys: object) -> TrainingConfig:
    return training.model_copy(update=keys)


def world(
    seed: int, *, questions: int = 15, size: int = 25, listed: int = 6
) -> tuple[list[Query], Qrels, Passages, Negatives]:
    """Return data with repeated positives, shared texts, several positives and missing labels."""
    draws = random.Random(seed)
    corpus = {Position(3 * key): f"Rule {key % (size - 3)}" for key in range(size)}
    keys, ids = sentence_keys(corpus), sorted(corpus)
    queries = [
        replace(
            tiny.queries()[0],
            query_id=QueryId(f"{number}_{answer}"),
            unit=UnitId(str(number)),
            order=3 * number + "ABC".index(answer),
        )
        for number in range(questions)
        for answer in "ABC"
    ]
    labeled = [query for query in queries if draws.random() < 0.8] or queries[:1]
    qrels = {
        query.query_id: frozenset(draws.sample(ids, draws.choice((1, 1, 2)))) for query in labeled
    }
    rows = []
    for query_id, right in qrels.items():
        right_keys = {keys[key] for key in right}
        wrong = [key for key in ids if keys[key] not in right_keys]
        positions = tuple(draws.sample(wrong, draws.randint(1, listed)))
        rows.append(
            QueryNegatives(query_id, positions, (0,) * len(positions), (None,) * len(positions))
        )
    return queries, qrels, corpus, Negatives(tuple(rows), "m", "random")


def query_ids_of(batches: list[Batch]) -> list[QueryId]:
    return [query_id for batch in batches for query_id in batch.query_ids]


LAYOUTS = [
    config(group_by=group_by, passages=passages, loss=loss)
    for group_by in ("row", "question")
    for passages, loss in (
        ("unique", "infonce"),
        ("distinct", "infonce"),
        ("unique", "flagembedding"),
    )
]
INFONCE_LAYOUTS = [layout for layout in LAYOUTS if layout.loss == "infonce"]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    layout=st.sampled_from(INFONCE_LAYOUTS),
    batch_size=st.integers(1, 9),
)
def test_every_labeled_row_is_in_exactly_one_batch(
    seed: int, layout: TrainingConfig, batch_size: int
) -> None:
    queries, qrels, corpus, negatives = world(seed)
    sized = changed(layout, batch_size=batch_size)
    batches = plan(TrainingData(queries, qrels, corpus, negatives), sized, epoch=1)
    assert sorted(query_ids_of(batches)) == sorted(qrels)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    layout=st.sampled_from(INFONCE_LAYOUTS),
    batch_size=st.integers(1, 9),
)
def test_each_passage_occurs_once_and_only_false_negatives_are_masked(
    seed: int, layout: TrainingConfig, batch_size: int
) -> None:
    queries, qrels, corpus, negatives = world(seed)
    listed = {row.query_id: set(row.positions) for row in negatives.rows}
    sized = changed(layout, batch_size=batch_size)
    for batch in plan(TrainingData(queries, qrels, corpus, negatives), sized, epoch=1):
        assert len(set(batch.passages)) == len(batch.passages)
        allowed = {key for row in batch.query_ids for key in listed[row] | qrels[row]}
        assert allowed >= set(batch.passages)
        for query_id, target, masked in zip(
            batch.query_ids, batch.target, batch.masked, strict=True
        ):
            right_texts = {corpus[key] for key in qrels[query_id]}
            assert batch.passages[target] in qrels[query_id]
            false_negatives = {
                index for index, key in enumerate(batch.passages) if corpus[key] in right_texts
            }
            assert set(masked) == false_negatives - {target}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), group_by=st.sampled_from(["row", "question"]))
def test_distinct_batches_hold_no_positive_twice(seed: int, group_by: str) -> None:
    queries, qrels, corpus, negatives = world(seed)
    distinct = config(passages="distinct", group_by=group_by)
    batches = plan(TrainingData(queries, qrels, corpus, negatives), distinct, epoch=1)
    for batch in batches:
        texts = [text for row in batch.query_ids for text in {corpus[key] for key in qrels[row]}]
        assert len(set(texts)) == len(texts)
    assert batch_stats(batches).meetings == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), group=st.integers(2, 12))
def test_flagembeddings_grid_repeats_ids_and_masks_nothing(seed: int, group: int) -> None:
    queries, qrels, corpus, negatives = world(seed)
    listed = {row.query_id: row.positions for row in negatives.rows}
    grid = config(loss="flagembedding", train_group_size=group)
    batches = plan(TrainingData(queries, qrels, corpus, negatives), grid, epoch=1)
    assert len(batches) == len(qrels) // 4  # a ragged last batch is dropped
    assert len(set(query_ids_of(batches))) == len(query_ids_of(batches)) == 4 * len(batches)
    for batch in batches:
        assert batch.target == tuple(range(0, 4 * group, group))
        assert batch.masked == ((),) * 4
        assert len(batch.passages) == 4 * group
        for row, query_id in enumerate(batch.query_ids):
            passages = batch.passages[row * group : (row + 1) * group]
            assert passages[0] in qrels[query_id]
            counts = Counter(passages[1:])
            times = max(1, -(-(group - 1) // len(listed[query_id])))
            assert set(counts) <= set(listed[query_id])
            assert max(counts.values()) <= times


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planning_an_epoch_twice_gives_the_same_batches_in_any_order_of_queries(
    layout: TrainingConfig,
) -> None:
    queries, qrels, corpus, negatives = world(7)
    first = plan(TrainingData(queries, qrels, corpus, negatives), layout, epoch=2)
    reversed_negatives = Negatives(negatives.rows[::-1], "m", "random")
    second = plan(
        TrainingData(
            queries[::-1],
            dict(reversed(qrels.items())),
            dict(reversed(list(corpus.items()))),
            reversed_negatives,
        ),
        layout,
        epoch=2,
    )
    assert second == first


@pytest.mark.parametrize("layout", LAYOUTS)
def test_epochs_and_seeds_differ_in_order_and_in_draws(layout: TrainingConfig) -> None:
    queries, qrels, corpus, negatives = world(7)
    other = changed(layout, seed=1)
    plans = [
        plan(TrainingData(queries, qrels, corpus, negatives), layout, epoch=1),
        plan(TrainingData(queries, qrels, corpus, negatives), layout, epoch=2),
        plan(TrainingData(queries, qrels, corpus, negatives), other, epoch=1),
    ]
    assert len({tuple(query_ids_of(item)) for item in plans}) == 3
    single = changed(layout, batch_size=1, group_by="row")
    drawn = [
        {
            batch.query_ids: batch.passages
            for batch in plan(TrainingData(queries, qrels, corpus, negatives), single, epoch=epoch)
        }
        for epoch in (1, 2)
    ]
    assert drawn[0].keys() == drawn[1].keys()
    assert drawn[0] != drawn[1]


def test_every_positive_of_a_query_is_drawn_in_some_epoch() -> None:
    queries, qrels, corpus, negatives = world(1)
    several = {row: right for row, right in qrels.items() if len(right) > 1}
    drawn: dict[QueryId, set[Position]] = {row: set() for row in qrels}
    for epoch in range(1, 15):
        for batch in plan(TrainingData(queries, qrels, corpus, negatives), config(), epoch=epoch):
            for query_id, target in zip(batch.query_ids, batch.target, strict=True):
                drawn[query_id].add(batch.passages[target])
    assert several
    assert drawn == qrels


def test_a_question_stays_in_one_batch_with_all_its_labeled_wrong_answers() -> None:
    queries, qrels, corpus, negatives = world(3)
    by_question = config(group_by="question")
    batches = plan(TrainingData(queries, qrels, corpus, negatives), by_question, epoch=1)
    batches_of: dict[str, set[int]] = {}
    for number, batch in enumerate(batches):
        for query_id in batch.query_ids:
            batches_of.setdefault(query_id.split("_")[0], set()).add(number)
    assert all(len(numbers) == 1 for numbers in batches_of.values())
    sizes = [len({row.split("_")[0] for row in batch.query_ids}) for batch in batches]
    assert sizes[:-1] == [4] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= 4


def test_a_smaller_last_batch_is_kept_by_infonce_and_dropped_by_flagembedding() -> None:
    queries, qrels, corpus, negatives = world(3)
    assert len(qrels) % 4
    infonce = plan(TrainingData(queries, qrels, corpus, negatives), config(), epoch=1)
    flagembedding = plan(
        TrainingData(queries, qrels, corpus, negatives), config(loss="flagembedding"), epoch=1
    )
    assert len(infonce) == len(flagembedding) + 1
    assert [len(batch.query_ids) for batch in infonce] == [4] * len(flagembedding) + [
        len(qrels) % 4
    ]
    assert query_ids_of(flagembedding) == query_ids_of(infonce[:-1])


def test_a_question_that_repeats_a_misconception_is_split_only_with_distinct_passages() -> None:
    queries, qrels = tiny.queries(), tiny.qrels()  # both labels of question 21 are 3
    rows = tuple(QueryNegatives(row, (tiny.at(7),), (0,), (None,)) for row in qrels)
    data = (queries, qrels, tiny.corpus(), Negatives(rows, "m", "random"))
    together = plan(TrainingData(*data), config(group_by="question", batch_size=1), epoch=1)
    assert batch_stats(together).meetings == 2  # question 21, and 30 with its 1 and 9
    distinct = plan(
        TrainingData(*data),
        config(group_by="question", batch_size=1, passages="distinct"),
        epoch=1,
    )
    assert sorted(query_ids_of(distinct)) == sorted(qrels)
    assert batch_stats(distinct).meetings == batch_stats(distinct).masked == 0
    assert len(distinct) == len(together) + 2


# Entry 32 of the pitfalls: two rows of a batch share a misconception.


def shared(batches: list[Batch], qrels: Qrels) -> int:
    """Count batches in which two rows share a misconception, pair by pair."""
    return sum(
        any(
            qrels[first] & qrels[second]
            for index, first in enumerate(batch.query_ids)
            for second in batch.query_ids[:index]
        )
        for batch in batches
    )


def rows_of_one_label(seed: int) -> tuple[list[Query], Qrels, Passages, Negatives]:
    """Return rows with one positive each, common or rare, and texts that do not repeat."""
    draws = random.Random(seed)
    corpus = {Position(key): f"Rule {key}" for key in range(120)}
    queries, _, _, _ = world(seed, questions=100)
    qrels = {
        query.query_id: frozenset({Position(min(119, int(draws.expovariate(0.03))))})
        for query in queries
    }
    rows = []
    for query in queries:
        wrong = [key for key in corpus if key not in qrels[query.query_id]]
        positions = tuple(draws.sample(wrong, 15))
        rows.append(QueryNegatives(query.query_id, positions, (0,) * 15, (None,) * 15))
    return queries, qrels, corpus, Negatives(tuple(rows), "m", "random")


@pytest.mark.parametrize("batch", [8, 16, 32])
def test_batches_that_share_a_misconception_are_counted(batch: int) -> None:
    queries, qrels, corpus, negatives = rows_of_one_label(1)
    data = (queries, qrels, corpus, negatives)
    infonce = plan(TrainingData(*data), config(batch_size=batch, train_group_size=8), epoch=1)
    compat = config(batch_size=batch, train_group_size=8, loss="flagembedding")
    flagembedding = plan(TrainingData(*data), compat, epoch=1)
    distinct = plan(
        TrainingData(*data),
        config(batch_size=batch, train_group_size=8, passages="distinct"),
        epoch=1,
    )
    assert batch_stats(infonce).meetings == shared(infonce, qrels) > 0
    assert batch_stats(flagembedding).meetings == shared(flagembedding, qrels) > 0
    assert batch_stats(distinct).meetings == shared(distinct, qrels) == 0
    assert batch_stats(infonce).unmasked == batch_stats(distinct).unmasked == 0


def test_false_negatives_are_counted_pair_by_pair() -> None:
    queries, qrels, corpus, negatives = rows_of_one_label(2)
    data = (queries, qrels, corpus, negatives)
    for layout in (
        config(batch_size=16, train_group_size=8),
        config(batch_size=16, train_group_size=8, loss="flagembedding"),
    ):
        batches = plan(TrainingData(*data), layout, epoch=1)
        false_negatives = sum(
            key in qrels[query_id] and index != target and index not in masked
            for batch in batches
            for query_id, target, masked in zip(
                batch.query_ids, batch.target, batch.masked, strict=True
            )
            for index, key in enumerate(batch.passages)
        )
        stats = batch_stats(batches)
        assert stats.unmasked == false_negatives
        assert (false_negatives > 0) == (layout.loss == "flagembedding")
        assert stats.steps == len(batches)
        assert stats.queries == len(query_ids_of(batches))
        assert stats.passages == sum(len(batch.passages) for batch in batches)
        assert f"{false_negatives} left in" in stats.text


def test_masked_pairs_are_counted_if_texts_or_labels_repeat() -> None:
    queries, qrels, corpus, negatives = world(3)
    batches = plan(TrainingData(queries, qrels, corpus, negatives), config(batch_size=16), epoch=1)
    assert (
        batch_stats(batches).masked
        == sum(len(row) for batch in batches for row in batch.masked)
        > 0
    )


def test_data_that_cannot_be_planned_is_refused() -> None:
    queries, qrels, corpus, negatives = world(3)
    first = min(qrels)
    fewer = tuple(row for row in negatives.rows if row.query_id != first)
    wrong = QueryNegatives(
        first, tuple(qrels[first]), (0,) * len(qrels[first]), (None,) * len(qrels[first])
    )
    partial = Negatives(fewer, "m", "random")
    bad = Negatives((*fewer, wrong), "m", "random")
    none = Negatives((*fewer, QueryNegatives(first, (), (), ())), "m", "random")
    grid = config(loss="flagembedding")
    with pytest.raises(BadConfig, match=r"training.passages = 'distinct'"):
        plan(
            TrainingData(queries, qrels, corpus, negatives),
            changed(grid, passages="distinct"),
            epoch=1,
        )
    with pytest.raises(BadConfig, match=r"training.batch_tokens = 9: .* leave it at 0"):
        plan(
            TrainingData(queries, qrels, corpus, negatives), changed(grid, batch_tokens=9), epoch=1
        )
    with pytest.raises(BadData, match=r"do not fill a batch of 500; lower training.batch_size"):
        plan(
            TrainingData(queries, qrels, corpus, negatives), changed(grid, batch_size=500), epoch=1
        )
    with pytest.raises(BadData, match="0 labeled rows do not fill a batch"):
        plan(TrainingData(queries, {}, corpus, negatives), config(), epoch=1)
    with pytest.raises(Mismatch, match=f"query {first} has no row of negatives"):
        plan(TrainingData(queries, qrels, corpus, partial), config(), epoch=1)
    with pytest.raises(Mismatch, match=f"query {first}: negative .* is a positive"):
        plan(TrainingData(queries, qrels, corpus, bad), config(), epoch=1)
    with pytest.raises(BadData, match=f"query {first} has no negatives to fill its group"):
        plan(TrainingData(queries, qrels, corpus, none), grid, epoch=1)


def test_a_query_without_negatives_still_uses_those_of_its_batch() -> None:
    queries, qrels, corpus, negatives = world(3)
    empty_rows = tuple(QueryNegatives(row.query_id, (), (), ()) for row in negatives.rows)
    batches = plan(
        TrainingData(queries, qrels, corpus, Negatives(empty_rows, "m", "random")),
        config(),
        epoch=1,
    )
    assert sorted(query_ids_of(batches)) == sorted(qrels)
    assert all(len(batch.passages) <= len(batch.query_ids) for batch in batches)
