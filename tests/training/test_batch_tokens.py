"""Batches within a budget of tokens, and what a teacher says of the passages of a batch."""

import random
from dataclasses import replace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.query import MisconceptionId, QueryId
from parity.run.config.run_file import TrainingConfig
from parity.run.errors import Mismatch
from parity.training.batches import Batch, TrainingData, plan
from parity.training.negatives import Negatives, QueryNegatives


def config(**keys: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"batch_size": 8, "train_group_size": 4, **keys})


def lessons(seed: int = 0, *, taught: bool = False) -> TrainingData:
    """Return 40 rows of 14 questions; they have three to eight negatives of 30 misconceptions."""
    draws = random.Random(seed)
    corpus = {MisconceptionId(key): f"Rule {key}" for key in range(30)}
    queries = [
        replace(
            tiny.queries()[0],
            query_id=QueryId(f"{number // 3}_{'ABC'[number % 3]}"),
            question_id=number // 3,
            answer="ABC"[number % 3],
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
        known = tuple((key, 2 + draws.random()) for key in sorted(right))
        rows.append(replace(blank, teacher=scores, positives=known) if taught else blank)
    return TrainingData(queries, qrels, corpus, Negatives(tuple(rows), "m", "random"))


def size(text: str) -> int:
    """Return the tokens of a made-up text, 1 to 40."""
    return 1 + random.Random(text).randrange(40)


def cost(batch: Batch) -> int:
    """Return the tokens of a batch, each text counted once."""
    return sum(map(size, {*batch.query_ids, *map(str, batch.passages)}))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    most=st.integers(1, 1500),
    batch=st.integers(1, 20),
    group_by=st.sampled_from(["row", "question"]),
    passages=st.sampled_from(["unique", "distinct"]),
)
def test_each_row_comes_once_in_batches_that_stay_within_the_tokens(
    seed: int, most: int, batch: int, group_by: str, passages: str
) -> None:
    given_ = lessons(seed)
    asked = config(batch_size=batch, batch_tokens=most, group_by=group_by, passages=passages)
    batches = plan(given_, asked, epoch=1, cost=cost)
    assert sorted(id_ for part in batches for id_ in part.query_ids) == sorted(given_.qrels)
    for part in batches:
        questions = {id_.split("_")[0] for id_ in part.query_ids}
        units = len(part.query_ids) if group_by == "row" else len(questions)
        assert cost(part) <= most or units == 1
        if group_by == "row":
            assert units <= batch
    assert batches == plan(given_, asked, epoch=1, cost=cost)


def test_a_batch_closes_no_sooner_than_it_must() -> None:
    """One row more, taken from the next batch, would pass the tokens: against a plain walk."""
    given_, asked = lessons(3), config(batch_size=12, batch_tokens=500)
    order = [
        one.query_ids[0] for one in plan(given_, config(batch_size=1), epoch=1)
    ]  # the shuffled rows
    singles = {
        one.query_ids[0]: one.passages for one in plan(given_, config(batch_size=1), epoch=1)
    }
    expected: list[list[QueryId]] = [[]]
    for row in order:
        wider = [*expected[-1], row]
        texts = {*wider, *(str(key) for one in wider for key in singles[one])}
        if expected[-1] and (len(wider) > 12 or sum(map(size, texts)) > 500):
            wider = [row]
            expected.append(wider)
        expected[-1] = wider
    batches = plan(given_, asked, epoch=1, cost=cost)
    assert [list(batch.query_ids) for batch in batches] == expected
    assert len({len(batch.query_ids) for batch in batches}) > 2, "a case that tells nothing"


@pytest.mark.parametrize("passages", ["unique", "distinct"])
def test_without_a_limit_or_with_a_wide_one_batches_are_what_they_were(passages: str) -> None:
    given_, plain = lessons(5), config(passages=passages)
    expected = plan(given_, plain, epoch=2)
    assert plan(given_, plain, epoch=2, cost=cost) == expected
    wide = plain.model_copy(update={"batch_tokens": 10**6})
    assert plan(given_, wide, epoch=2, cost=cost) == expected


def test_few_batches_are_weighed() -> None:
    weighed: list[int] = []

    def counted(batch: Batch) -> int:
        weighed.append(len(batch.query_ids))
        return cost(batch)

    batches = plan(lessons(), config(batch_size=16, batch_tokens=600), epoch=1, cost=counted)
    assert len(weighed) <= 5 * len(batches)  # a binary search among 16


@pytest.mark.parametrize("loss", ["infonce", "flagembedding"])
@pytest.mark.parametrize("kind", ["kl_div", "m3_kd_loss"])
def test_a_batch_carries_the_teacher_s_scores_of_each_query_s_own_passages(
    kind: str, loss: str
) -> None:
    given_ = lessons(taught=True)
    scores = {row.query_id: row.scored() for row in given_.negatives.rows}
    asked = config(distillation=kind, loss=loss, train_group_size=7)
    widths = set()
    for batch in plan(given_, asked, epoch=1):
        assert len(batch.own) == len(batch.teacher) == len(batch.query_ids)
        rows = zip(batch.query_ids, batch.target, batch.own, batch.teacher, strict=True)
        for query_id, target, own, teacher in rows:
            assert own[0] == target
            ids = [batch.passages[place] for place in own]
            assert teacher == tuple(scores[query_id][key] for key in ids)
            assert ids[0] in given_.qrels[query_id]
            assert not given_.qrels[query_id] & set(ids[1:])
            widths.add(len(own))
    assert widths == ({4, 5, 6, 7} if loss == "infonce" else {7})  # ours are ragged


def test_a_teacher_changes_no_batch_and_is_not_heard_unasked() -> None:
    taught = lessons(taught=True)
    heard = plan(taught, config(distillation="kl_div"), epoch=1)
    bare = [replace(one, own=(), teacher=()) for one in heard]
    assert plan(taught, config(), epoch=1) == plan(lessons(), config(), epoch=1)
    assert bare == plan(taught, config(), epoch=1)


@pytest.mark.parametrize("part", ["teacher", "positives"])
def test_distillation_without_scores_is_refused_in_one_line(part: str) -> None:
    given_ = lessons(taught=True)
    first, *others = given_.negatives.rows
    rows = (replace(first, **{part: ()}), *others)  # type: ignore[arg-type]
    told = (
        f"query {first.query_id} has no teacher's scores for training.distillation; run: "
        "invoke mine --import FILE with pos_scores and neg_scores"
    )
    lacking = replace(given_, negatives=Negatives(rows, "m", "imported"))
    with pytest.raises(Mismatch) as caught:
        plan(lacking, config(distillation="kl_div"), epoch=1)
    assert str(caught.value) == told
