"""Tests of batches with a token budget, and of teacher scores in a batch."""

import random
from dataclasses import replace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.query import Position, QueryId, UnitId
from parity.run.config.training import TrainingConfig
from parity.run.errors import Mismatch
from parity.training.batches import Batch, TrainingData, plan
from parity.training.negatives import Negatives, QueryNegatives


def config(**keys: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"batch_size": 8, "train_group_size": 4, **keys})


def training_data(seed: int = 0, *, with_teacher: bool = False) -> TrainingData:
    """Return 40 rows of 14 questions with 3 to 8 negatives each, out of 30 misconceptions."""
    draws = random.Random(seed)
    corpus = {Position(key): f"Rule {key}" for key in range(30)}
    queries = [
        replace(
            tiny.queries()[0],
            query_id=QueryId(f"{number // 3}_{'ABC'[number % 3]}"),
            unit=UnitId(str(number // 3)),
            order=number,
        )
        for number in range(40)
    ]
    qrels = {
        query.query_id: frozenset(draws.sample(sorted(corpus), draws.choice((1, 1, 2))))
        for query in queries
    }
    rows = []
    for query_id, right in qrels.items():
        wrong = tuple(draws.sample(sorted(corpus.keys() - right), draws.randint(3, 8)))
        blank = QueryNegatives(query_id, wrong, (0,) * len(wrong), (None,) * len(wrong))
        scores = tuple(draws.random() for _ in wrong)
        positives = tuple((key, 2 + draws.random()) for key in sorted(right))
        rows.append(replace(blank, teacher=scores, positives=positives) if with_teacher else blank)
    return TrainingData(queries, qrels, corpus, Negatives(tuple(rows), "m", "random"))


def size(text: str) -> int:
    """Return the number of tokens of a text: a random number from 1 to 40."""
    return 1 + random.Random(text).randrange(40)


def cost(batch: Batch) -> int:
    """Return the number of tokens of a batch; each text counts once."""
    return sum(map(size, {*batch.query_ids, *map(str, batch.passages)}))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    limit=st.integers(1, 1500),
    batch=st.integers(1, 20),
    group_by=st.sampled_from(["row", "question"]),
    passages=st.sampled_from(["unique", "distinct"]),
)
def test_each_row_is_in_exactly_one_batch_within_the_token_budget(
    seed: int, limit: int, batch: int, group_by: str, passages: str
) -> None:
    data = training_data(seed)
    training = config(batch_size=batch, batch_tokens=limit, group_by=group_by, passages=passages)
    batches = plan(data, training, epoch=1, cost=cost)
    assert sorted(id_ for part in batches for id_ in part.query_ids) == sorted(data.qrels)
    for part in batches:
        questions = {id_.split("_")[0] for id_ in part.query_ids}
        units = len(part.query_ids) if group_by == "row" else len(questions)
        assert cost(part) <= limit or units == 1
        if group_by == "row":
            assert units <= batch
    assert batches == plan(data, training, epoch=1, cost=cost)


def test_a_batch_is_as_large_as_the_budget_allows() -> None:
    """Adding the next row would exceed the budget: checked against a plain loop."""
    data, training = training_data(3), config(batch_size=12, batch_tokens=500)
    shuffled = plan(data, config(batch_size=1), epoch=1)
    order = [batch.query_ids[0] for batch in shuffled]
    singles = {batch.query_ids[0]: batch.passages for batch in shuffled}
    expected: list[list[QueryId]] = [[]]
    for row in order:
        wider = [*expected[-1], row]
        texts = {*wider, *(str(key) for id_ in wider for key in singles[id_])}
        if expected[-1] and (len(wider) > 12 or sum(map(size, texts)) > 500):
            wider = [row]
            expected.append(wider)
        expected[-1] = wider
    batches = plan(data, training, epoch=1, cost=cost)
    assert [list(batch.query_ids) for batch in batches] == expected
    assert len({len(batch.query_ids) for batch in batches}) > 2, (
        "the case has batches of too few sizes"
    )


@pytest.mark.parametrize("passages", ["unique", "distinct"])
def test_no_limit_and_a_large_limit_give_the_same_batches(passages: str) -> None:
    data, plain = training_data(5), config(passages=passages)
    expected = plan(data, plain, epoch=2)
    assert plan(data, plain, epoch=2, cost=cost) == expected
    wide = plain.model_copy(update={"batch_tokens": 10**6})
    assert plan(data, wide, epoch=2, cost=cost) == expected


def test_the_cost_is_computed_for_few_batches() -> None:
    sizes: list[int] = []

    def counted(batch: Batch) -> int:
        sizes.append(len(batch.query_ids))
        return cost(batch)

    batches = plan(training_data(), config(batch_size=16, batch_tokens=600), epoch=1, cost=counted)
    assert len(sizes) <= 5 * len(batches)  # a binary search among 16


@pytest.mark.parametrize("loss", ["infonce", "flagembedding"])
@pytest.mark.parametrize("kind", ["kl_div", "m3_kd_loss"])
def test_a_batch_has_the_teacher_scores_of_each_query_s_passages(kind: str, loss: str) -> None:
    data = training_data(with_teacher=True)
    scores = {row.query_id: row.scored() for row in data.negatives.rows}
    training = config(distillation=kind, loss=loss, train_group_size=7)
    widths = set()
    for batch in plan(data, training, epoch=1):
        assert len(batch.groups) == len(batch.teacher) == len(batch.query_ids)
        rows = zip(batch.query_ids, batch.target, batch.groups, batch.teacher, strict=True)
        for query_id, target, group, teacher in rows:
            assert group[0] == target
            ids = [batch.passages[index] for index in group]
            assert teacher == tuple(scores[query_id][key] for key in ids)
            assert ids[0] in data.qrels[query_id]
            assert not data.qrels[query_id] & set(ids[1:])
            widths.add(len(group))
    assert widths == (
        {4, 5, 6, 7} if loss == "infonce" else {7}
    )  # InfoNCE groups have different sizes


def test_a_teacher_changes_no_batch_and_is_used_only_for_distillation() -> None:
    data = training_data(with_teacher=True)
    distilled = plan(data, config(distillation="kl_div"), epoch=1)
    without_teacher = [replace(item, groups=(), teacher=()) for item in distilled]
    assert plan(data, config(), epoch=1) == plan(training_data(), config(), epoch=1)
    assert without_teacher == plan(data, config(), epoch=1)


@pytest.mark.parametrize("part", ["teacher", "positives"])
def test_distillation_without_scores_is_refused_in_one_line(part: str) -> None:
    data = training_data(with_teacher=True)
    first, *later_rows = data.negatives.rows
    rows = (replace(first, **{part: ()}), *later_rows)  # type: ignore[arg-type]
    message = (
        f"query {first.query_id} has no teacher's scores for training.distillation; import "
        "a file with pos_scores and neg_scores"
    )
    incomplete = replace(data, negatives=Negatives(rows, "m", "imported"))
    with pytest.raises(Mismatch) as error:
        plan(incomplete, config(distillation="kl_div"), epoch=1)
    assert str(error.value) == message
