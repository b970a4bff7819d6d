"""The probe: the same rows in every environment."""

import random

import tiny
from hypothesis import given
from hypothesis import strategies as st

from parity.competition import probe
from parity.competition.eedi.kaggle_files import build_query
from parity.competition.query import Query


def asked(question_id: int, answer: str = "A") -> Query:
    return build_query(
        question_id,
        answer,
        construct=(1, "Add"),
        subject=(1, "Sums"),
        question=f"What is {question_id}?",
        answers=("1", "2"),
    )


def test_each_question_gives_its_smallest_labeled_answer() -> None:
    chosen = [query.query_id for query in probe.choose(tiny.queries())]
    assert chosen == ["10_B", "11_B", "12_A", "20_A", "21_B", "30_A"]


def test_the_probe_is_these_questions_and_no_others() -> None:
    # Pinned: another machine, or another version, must pick the same.
    queries = [asked(question_id) for question_id in range(1000)]
    assert [int(query.unit) for query in probe.choose(queries, 5)] == [245, 286, 374, 671, 886]


def test_the_probe_holds_64_questions_by_question_id() -> None:
    chosen = [int(query.unit) for query in probe.choose([asked(number) for number in range(500)])]
    assert len(chosen) == 64
    assert chosen == sorted(set(chosen))


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(0, 50), st.randoms())
def test_rows_in_another_order_give_the_same_probe(
    ids: set[int], size: int, generator: random.Random
) -> None:
    queries = [asked(id_, answer) for id_ in sorted(ids) for answer in "ABD"]
    shuffled = generator.sample(queries, len(queries))
    assert probe.choose(shuffled, size) == probe.choose(queries, size)
    assert len(probe.choose(queries, size)) == min(size, len(ids))


@given(st.sets(st.integers(0, 10**6), min_size=3, max_size=40))
def test_a_question_stays_in_the_probe_when_others_leave(ids: set[int]) -> None:
    queries = [asked(id_) for id_ in sorted(ids)]
    chosen = probe.choose(queries, 2)
    assert (
        probe.choose([query for query in queries[1:] if query not in chosen] + chosen, 2) == chosen
    )
