"""An epoch's batches: every row once, no false negative, the same again from the same seed."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.query import Corpus, MisconceptionId, Qrels, Query, QueryId
from parity.run.config.run_file import TrainingConfig
from parity.run.errors import BadConfig, BadData, Mismatch
from parity.training.batch_stats import batch_stats
from parity.training.batches import Batch, TrainingData, plan
from parity.training.mining_strategies import sentence_keys
from parity.training.negatives import Negatives, QueryNegatives


def config(**keys: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"batch_size": 4, "train_group_size": 4, **keys})


def changed(given_: TrainingConfig, **keys: object) -> TrainingConfig:
    return given_.model_copy(update=keys)


def world(
    seed: int, *, questions: int = 15, size: int = 25, listed: int = 6
) -> tuple[list[Query], Qrels, Corpus, Negatives]:
    """Misconceptions recur, some share a sentence, some queries have several, some no label."""
    draws = random.Random(seed)
    corpus = {MisconceptionId(3 * key): f"Rule {key % (size - 3)}" for key in range(size)}
    keys, ids = sentence_keys(corpus), sorted(corpus)
    queries = [
        replace(
            tiny.queries()[0],
            query_id=QueryId(f"{number}_{answer}"),
            question_id=number,
            answer=answer,
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
        said = {keys[key] for key in right}
        wrong = [key for key in ids if keys[key] not in said]
        found = tuple(draws.sample(wrong, draws.randint(1, listed)))
        rows.append(QueryNegatives(query_id, found, (0,) * len(found), (None,) * len(found)))
    return queries, qrels, corpus, Negatives(tuple(rows), "m", "random")


def asked(batches: list[Batch]) -> list[QueryId]:
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
OURS = [layout for layout in LAYOUTS if layout.loss == "infonce"]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), layout=st.sampled_from(OURS), batch=st.integers(1, 9))
def test_every_labeled_row_comes_exactly_once_in_an_epoch(
    seed: int, layout: TrainingConfig, batch: int
) -> None:
    queries, qrels, corpus, negatives = world(seed)
    sized = changed(layout, batch_size=batch)
    batches = plan(TrainingData(queries, qrels, corpus, negatives), sized, epoch=1)
    assert sorted(asked(batches)) == sorted(qrels)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), layout=st.sampled_from(OURS), batch=st.integers(1, 9))
def test_each_passage_comes_once_and_just_the_false_negatives_are_masked(
    seed: int, layout: TrainingConfig, batch: int
) -> None:
    queries, qrels, corpus, negatives = world(seed)
    listed = {row.query_id: set(row.ids) for row in negatives.rows}
    sized = changed(layout, batch_size=batch)
    for one in plan(TrainingData(queries, qrels, corpus, negatives), sized, epoch=1):
        assert len(set(one.passages)) == len(one.passages)
        may = {key for row in one.query_ids for key in listed[row] | qrels[row]}
        assert may >= set(one.passages)
        for query_id, target, masked in zip(one.query_ids, one.target, one.masked, strict=True):
            said = {corpus[key] for key in qrels[query_id]}
            assert one.passages[target] in qrels[query_id]
            false = {place for place, key in enumerate(one.passages) if corpus[key] in said}
            assert set(masked) == false - {target}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), group_by=st.sampled_from(["row", "question"]))
def test_distinct_batches_hold_no_positive_twice(seed: int, group_by: str) -> None:
    queries, qrels, corpus, negatives = world(seed)
    apart = config(passages="distinct", group_by=group_by)
    batches = plan(TrainingData(queries, qrels, corpus, negatives), apart, epoch=1)
    for batch in batches:
        said = [text for row in batch.query_ids for text in {corpus[key] for key in qrels[row]}]
        assert len(set(said)) == len(said)
    assert batch_stats(batches).meetings == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), group=st.integers(2, 12))
def test_flagembeddings_grid_repeats_ids_and_masks_nothing(seed: int, group: int) -> None:
    queries, qrels, corpus, negatives = world(seed)
    listed = {row.query_id: row.ids for row in negatives.rows}
    grid = config(loss="flagembedding", train_group_size=group)
    batches = plan(TrainingData(queries, qrels, corpus, negatives), grid, epoch=1)
    assert len(batches) == len(qrels) // 4  # a ragged last batch is dropped
    assert len(set(asked(batches))) == len(asked(batches)) == 4 * len(batches)
    for batch in batches:
        assert batch.target == tuple(range(0, 4 * group, group))
        assert batch.masked == ((),) * 4
        assert len(batch.passages) == 4 * group
        for place, query_id in enumerate(batch.query_ids):
            mine = batch.passages[place * group : (place + 1) * group]
            assert mine[0] in qrels[query_id]
            often = Counter(mine[1:])
            times = max(1, -(-(group - 1) // len(listed[query_id])))
            assert set(often) <= set(listed[query_id])
            assert max(often.values()) <= times


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_epoch_planned_again_is_the_same_whatever_the_order_of_queries(
    layout: TrainingConfig,
) -> None:
    queries, qrels, corpus, negatives = world(7)
    first = plan(TrainingData(queries, qrels, corpus, negatives), layout, epoch=2)
    turned = Negatives(negatives.rows[::-1], "m", "random")
    again = plan(
        TrainingData(
            queries[::-1],
            dict(reversed(qrels.items())),
            dict(reversed(corpus.items())),
            turned,
        ),
        layout,
        epoch=2,
    )
    assert again == first


@pytest.mark.parametrize("layout", LAYOUTS)
def test_epochs_and_seeds_differ_in_order_and_in_draws(layout: TrainingConfig) -> None:
    queries, qrels, corpus, negatives = world(7)
    other = changed(layout, seed=1)
    plans = [
        plan(TrainingData(queries, qrels, corpus, negatives), layout, epoch=1),
        plan(TrainingData(queries, qrels, corpus, negatives), layout, epoch=2),
        plan(TrainingData(queries, qrels, corpus, negatives), other, epoch=1),
    ]
    assert len({tuple(asked(one)) for one in plans}) == 3
    alone = changed(layout, batch_size=1, group_by="row")
    drawn = [
        {one.query_ids: one.passages for one in plan(TrainingData(*given_), alone, epoch=epoch)}
        for given_ in [(queries, qrels, corpus, negatives)]
        for epoch in (1, 2)
    ]
    assert drawn[0].keys() == drawn[1].keys()
    assert drawn[0] != drawn[1]


def test_every_positive_of_a_query_gets_its_turn() -> None:
    queries, qrels, corpus, negatives = world(1)
    several = {row: right for row, right in qrels.items() if len(right) > 1}
    drawn: dict[QueryId, set[MisconceptionId]] = {row: set() for row in qrels}
    for epoch in range(1, 15):
        for one in plan(TrainingData(queries, qrels, corpus, negatives), config(), epoch=epoch):
            for query_id, target in zip(one.query_ids, one.target, strict=True):
                drawn[query_id].add(one.passages[target])
    assert several
    assert drawn == qrels


def test_questions_stay_whole_with_all_their_labeled_wrong_answers() -> None:
    queries, qrels, corpus, negatives = world(3)
    whole = config(group_by="question")
    batches = plan(TrainingData(queries, qrels, corpus, negatives), whole, epoch=1)
    places: dict[str, set[int]] = {}
    for number, one in enumerate(batches):
        for query_id in one.query_ids:
            places.setdefault(query_id.split("_")[0], set()).add(number)
    assert all(len(where) == 1 for where in places.values())
    sizes = [len({row.split("_")[0] for row in batch.query_ids}) for batch in batches]
    assert sizes[:-1] == [4] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= 4


def test_a_ragged_last_batch_is_kept_by_us_and_dropped_by_flagembedding() -> None:
    queries, qrels, corpus, negatives = world(3)
    assert len(qrels) % 4
    ours = plan(TrainingData(queries, qrels, corpus, negatives), config(), epoch=1)
    theirs = plan(
        TrainingData(queries, qrels, corpus, negatives), config(loss="flagembedding"), epoch=1
    )
    assert len(ours) == len(theirs) + 1
    assert [len(our.query_ids) for our in ours] == [4] * len(theirs) + [len(qrels) % 4]
    assert asked(theirs) == asked(ours[:-1])


def test_a_question_that_repeats_a_misconception_meets_itself_unless_kept_apart() -> None:
    queries, qrels = tiny.queries(), tiny.qrels()  # both labels of question 21 are 3
    rows = tuple(QueryNegatives(row, (MisconceptionId(7),), (0,), (None,)) for row in qrels)
    given_ = (queries, qrels, tiny.corpus(), Negatives(rows, "m", "random"))
    together = plan(TrainingData(*given_), config(group_by="question", batch_size=1), epoch=1)
    assert batch_stats(together).meetings == 2  # question 21, and 30 with its 1 and 9
    apart = plan(
        TrainingData(*given_),
        config(group_by="question", batch_size=1, passages="distinct"),
        epoch=1,
    )
    assert sorted(asked(apart)) == sorted(qrels)
    assert batch_stats(apart).meetings == batch_stats(apart).masked == 0
    assert len(apart) == len(together) + 2


# Entry 32 of the pitfalls: two rows of a batch share a misconception.


def shared(batches: list[Batch], qrels: Qrels) -> int:
    """Count batches in which two rows share a misconception, pair by pair."""
    return sum(
        any(
            qrels[first] & qrels[second]
            for place, first in enumerate(batch.query_ids)
            for second in batch.query_ids[:place]
        )
        for batch in batches
    )


def rows_of_one_label(seed: int) -> tuple[list[Query], Qrels, Corpus, Negatives]:
    """One positive a row, common ones and rare ones, no sentence twice."""
    draws = random.Random(seed)
    corpus = {MisconceptionId(key): f"Rule {key}" for key in range(120)}
    queries, _, _, _ = world(seed, questions=100)
    qrels = {
        query.query_id: frozenset({MisconceptionId(min(119, int(draws.expovariate(0.03))))})
        for query in queries
    }
    rows = []
    for query in queries:
        wrong = [key for key in corpus if key not in qrels[query.query_id]]
        found = tuple(draws.sample(wrong, 15))
        rows.append(QueryNegatives(query.query_id, found, (0,) * 15, (None,) * 15))
    return queries, qrels, corpus, Negatives(tuple(rows), "m", "random")


@pytest.mark.parametrize("batch", [8, 16, 32])
def test_batches_that_share_a_misconception_are_counted(batch: int) -> None:
    queries, qrels, corpus, negatives = rows_of_one_label(1)
    given_ = (queries, qrels, corpus, negatives)
    ours = plan(TrainingData(*given_), config(batch_size=batch, train_group_size=8), epoch=1)
    compat = config(batch_size=batch, train_group_size=8, loss="flagembedding")
    theirs = plan(TrainingData(*given_), compat, epoch=1)
    apart = plan(
        TrainingData(*given_),
        config(batch_size=batch, train_group_size=8, passages="distinct"),
        epoch=1,
    )
    assert batch_stats(ours).meetings == shared(ours, qrels) > 0
    assert batch_stats(theirs).meetings == shared(theirs, qrels) > 0
    assert batch_stats(apart).meetings == shared(apart, qrels) == 0
    assert batch_stats(ours).unmasked == batch_stats(apart).unmasked == 0


def test_false_negatives_are_counted_pair_by_pair() -> None:
    queries, qrels, corpus, negatives = rows_of_one_label(2)
    given_ = (queries, qrels, corpus, negatives)
    for layout in (
        config(batch_size=16, train_group_size=8),
        config(batch_size=16, train_group_size=8, loss="flagembedding"),
    ):
        batches = plan(TrainingData(*given_), layout, epoch=1)
        false = sum(
            key in qrels[query_id] and place != target and place not in masked
            for batch in batches
            for query_id, target, masked in zip(
                batch.query_ids, batch.target, batch.masked, strict=True
            )
            for place, key in enumerate(batch.passages)
        )
        told = batch_stats(batches)
        assert told.unmasked == false
        assert (false > 0) == (layout.loss == "flagembedding")
        assert told.steps == len(batches)
        assert told.queries == len(asked(batches))
        assert told.passages == sum(len(batch.passages) for batch in batches)
        assert f"{false} left in" in told.text


def test_masked_pairs_are_counted_where_sentences_or_labels_repeat() -> None:
    queries, qrels, corpus, negatives = world(3)
    batches = plan(TrainingData(queries, qrels, corpus, negatives), config(batch_size=16), epoch=1)
    assert (
        batch_stats(batches).masked
        == sum(len(row) for batch in batches for row in batch.masked)
        > 0
    )


def test_what_cannot_be_planned_is_refused() -> None:
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
    with pytest.raises(BadData, match=r"make no batch of 500; lower training.batch_size"):
        plan(
            TrainingData(queries, qrels, corpus, negatives), changed(grid, batch_size=500), epoch=1
        )
    with pytest.raises(BadData, match="0 labeled rows make no batch"):
        plan(TrainingData(queries, {}, corpus, negatives), config(), epoch=1)
    with pytest.raises(Mismatch, match=f"query {first} has no row of negatives"):
        plan(TrainingData(queries, qrels, corpus, partial), config(), epoch=1)
    with pytest.raises(Mismatch, match=f"query {first}: negative .* is right"):
        plan(TrainingData(queries, qrels, corpus, bad), config(), epoch=1)
    with pytest.raises(BadData, match=f"query {first} has no negative to fill its group"):
        plan(TrainingData(queries, qrels, corpus, none), grid, epoch=1)


def test_a_query_without_negatives_still_has_those_of_its_batch() -> None:
    queries, qrels, corpus, negatives = world(3)
    bare = tuple(QueryNegatives(row.query_id, (), (), ()) for row in negatives.rows)
    batches = plan(
        TrainingData(queries, qrels, corpus, Negatives(bare, "m", "random")), config(), epoch=1
    )
    assert sorted(asked(batches)) == sorted(qrels)
    assert all(len(batch.passages) <= len(batch.query_ids) for batch in batches)
