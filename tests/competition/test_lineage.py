"""Lineage: what was trained on, and what a score on it is worth."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from parity.competition.lineage import Lineage, groups, guard, normalize, overlap
from parity.run.errors import BadData, Contaminated

GROUPS = groups(tiny.queries())
IDS = st.frozensets(st.integers(0, 30), max_size=8)
LINEAGES = st.builds(Lineage, st.none() | IDS)


def twin(lineage: Lineage, asked: frozenset[int], group_of: dict[int, int]) -> tuple[int, ...]:
    """Compare every question asked with every question trained on."""
    known = []
    for one in sorted(asked):
        trained = lineage.trained_on
        same = trained is None or any(
            one == other or group_of.get(one, one) == group_of.get(other, other)
            for other in trained
        )
        if same:
            known.append(one)
    return tuple(known)


@pytest.mark.parametrize(
    "other",
    [
        "work out 1/2 + 1/3",
        "  Work out\t1/2\n+\r\n1/3 ",
        "Work out\u00a01/2 + 1/3",
        "Work out \uff11/\uff12 \uff0b 1/3",
        "WORK OUT 1/2 + 1/3",
    ],
)
def test_texts_that_differ_in_space_case_or_width_are_equal(other: str) -> None:
    assert normalize(other) == normalize("Work out 1/2 + 1/3")


@pytest.mark.parametrize("other", ["Work out 1/2 - 1/3", "Work out 1/2 + 1/4", "Work out 12 + 13"])
def test_texts_that_differ_in_a_sign_are_not_equal(other: str) -> None:
    assert normalize(other) != normalize("Work out 1/2 + 1/3")


@given(st.text())
def test_normalizing_twice_is_normalizing_once(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


def test_a_group_is_named_after_its_smallest_question() -> None:
    assert GROUPS == {10: 10, 11: 10, 12: 12, 20: 20, 21: 21, 30: 30}


def test_groups_do_not_depend_on_the_order_of_rows() -> None:
    queries = tiny.queries()
    random.Random(3).shuffle(queries)
    assert list(groups(queries).items()) == list(GROUPS.items())


def test_one_question_with_two_texts_is_refused() -> None:
    queries = tiny.queries()
    with pytest.raises(BadData, match="question 10 comes with two texts"):
        groups([*queries, replace(queries[0], question="Work out something else")])


@given(LINEAGES, IDS)
def test_the_overlap_is_that_of_comparing_every_pair(
    lineage: Lineage, asked: frozenset[int]
) -> None:
    assert overlap(lineage, asked, groups=GROUPS) == twin(lineage, asked, GROUPS)


def test_a_question_with_a_trained_text_is_known_though_its_id_is_not() -> None:
    assert overlap(Lineage(frozenset({11, 12})), [10, 20], groups=GROUPS) == (10,)


def test_a_question_that_the_groups_lack_is_compared_by_its_id() -> None:
    assert overlap(Lineage(frozenset({90, 91})), [91, 92], groups=GROUPS) == (91,)


def test_untrained_weights_are_clean_on_every_question() -> None:
    assert guard(Lineage(frozenset()), GROUPS, groups=GROUPS) == "clean"


def test_b7_a_score_on_trained_questions_is_refused_with_their_number_and_names() -> None:
    with pytest.raises(Contaminated, match=r"2 of 4 questions .* text: 10, 20\)"):
        guard(Lineage(frozenset({11, 20})), [30, 20, 10, 12], groups=GROUPS)


def test_a_refusal_names_no_more_than_five_questions() -> None:
    lineage = Lineage(frozenset(range(50)))
    with pytest.raises(Contaminated, match=r"50 of 60 .* text: 0, 1, 2, 3, 4, …\)"):
        guard(lineage, range(60), groups={})


def test_b6_training_on_one_split_and_scoring_another_is_refused() -> None:
    first, second = (10, 11, 12, 20), (20, 21, 30)  # valid of another split, partly trained on
    with pytest.raises(Contaminated, match="1 of 3"):
        guard(Lineage(frozenset(first)), second, groups=GROUPS)


@pytest.mark.parametrize("asked", [[10, 20], []])
def test_b8_an_unknown_lineage_is_contaminated_whatever_is_asked(asked: list[int]) -> None:
    with pytest.raises(Contaminated, match="lineage unknown"):
        guard(Lineage(None), asked, groups=GROUPS)
    assert guard(Lineage(None), asked, groups=GROUPS, accept_contaminated=True) == "contaminated"


def test_an_accepted_score_is_marked_contaminated_only_where_it_is() -> None:
    lineage = Lineage(frozenset({10}))
    assert guard(lineage, [11], groups=GROUPS, accept_contaminated=True) == "contaminated"
    assert guard(lineage, [20], groups=GROUPS, accept_contaminated=True) == "clean"


@given(LINEAGES, LINEAGES, IDS)
def test_a_child_knows_what_either_parent_knew(
    one: Lineage, other: Lineage, asked: frozenset[int]
) -> None:
    child = overlap(one.union(other), asked, groups=GROUPS)
    parents = (overlap(one, asked, groups=GROUPS), overlap(other, asked, groups=GROUPS))
    assert set(child) == set(parents[0]) | set(parents[1])


def test_a_lineage_keeps_the_unknown_of_a_parent() -> None:
    assert Lineage(frozenset({1})).union(Lineage(None)) == Lineage(None)
    assert Lineage(None).union(Lineage(frozenset({1}))) == Lineage(None)


@given(LINEAGES)
def test_a_lineage_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, lineage: Lineage
) -> None:
    path = tmp_path_factory.mktemp("lineage") / "lineage.json"
    lineage.write(path)
    assert Lineage.read(path) == lineage
    assert Lineage.read(path).digest() == lineage.digest()


def test_the_file_lists_ids_in_ascending_order(tmp_path: Path) -> None:
    Lineage(frozenset({30, 4, 1000})).write(tmp_path / "lineage.json")
    lines = (tmp_path / "lineage.json").read_text(encoding="utf-8").split()
    assert lines == ["{", '"trained_on":', "[", "4,", "30,", "1000", "]", "}"]


def test_unknown_none_and_some_have_digests_of_their_own() -> None:
    lineages = (Lineage(None), Lineage(frozenset()), Lineage(frozenset({1})))
    assert len({lineage.digest() for lineage in lineages}) == 3


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"trained_on": ["1"]}', '{"trained_on": true}', '{"trained_on": [true]}']
)
def test_a_file_that_is_no_lineage_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lineage.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadData, match=r"lineage\.json"):
        Lineage.read(path)
