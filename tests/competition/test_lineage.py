"""Lineage: the units trained on, and whether a score on others is clean."""

import random
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from parity.competition.lineage import Lineage, groups, guard, normalize, overlap
from parity.competition.query import UnitId
from parity.run.errors import BadData, Contaminated

GROUPS = groups(tiny.queries())
IDS = st.frozensets(st.integers(0, 30).map(lambda number: UnitId(str(number))), max_size=8)
LINEAGES = st.builds(Lineage, st.none() | IDS)


def units(*numbers: int) -> frozenset[UnitId]:
    """Return the units of these numbers."""
    return frozenset(UnitId(str(number)) for number in numbers)


def twin(
    lineage: Lineage, scored: frozenset[UnitId], group_of: dict[UnitId, UnitId]
) -> tuple[UnitId, ...]:
    """Compare every scored question with every question trained on."""
    contaminated = []
    for unit in sorted(scored):
        trained = lineage.trained_on
        is_equal = trained is None or any(
            unit == other or group_of.get(unit, unit) == group_of.get(other, other)
            for other in trained
        )
        if is_equal:
            contaminated.append(unit)
    return tuple(contaminated)


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


def test_a_group_is_named_after_its_first_unit() -> None:
    assert GROUPS == {"10": "10", "11": "10", "12": "12", "20": "20", "21": "21", "30": "30"}


def test_groups_do_not_depend_on_the_order_of_rows() -> None:
    queries = tiny.queries()
    random.Random(3).shuffle(queries)
    assert list(groups(queries).items()) == list(GROUPS.items())


def test_one_question_with_two_texts_is_refused() -> None:
    queries = tiny.queries()
    with pytest.raises(BadData, match="unit 10 comes with two texts"):
        groups([*queries, queries[0].with_field("question", "Work out something else")])


@given(LINEAGES, IDS)
def test_the_overlap_is_that_of_comparing_every_pair(
    lineage: Lineage, scored: frozenset[UnitId]
) -> None:
    assert overlap(lineage, scored, groups=GROUPS) == twin(lineage, scored, GROUPS)


def test_a_question_with_a_trained_text_is_known_though_its_id_is_not() -> None:
    assert overlap(Lineage(units(11, 12)), units(10, 20), groups=GROUPS) == ("10",)


def test_a_question_missing_from_the_groups_is_compared_by_its_id() -> None:
    assert overlap(Lineage(units(90, 91)), units(91, 92), groups=GROUPS) == ("91",)


def test_untrained_weights_are_clean_on_every_question() -> None:
    assert guard(Lineage(frozenset()), GROUPS, groups=GROUPS) == "clean"


def test_b7_a_score_on_trained_questions_is_refused_with_their_number_and_names() -> None:
    with pytest.raises(Contaminated, match=r"2 of 4 units .* text: 10, 20\)"):
        guard(Lineage(units(11, 20)), units(30, 20, 10, 12), groups=GROUPS)


def test_a_refusal_names_no_more_than_five_questions() -> None:
    lineage = Lineage(units(*range(50)))
    with pytest.raises(Contaminated, match=r"50 of 60 .* text: 0, 1, 10, 11, 12, …\)"):
        guard(lineage, units(*range(60)), groups={})


def test_b6_training_on_one_split_and_scoring_another_is_refused() -> None:
    first, second = (
        units(10, 11, 12, 20),
        units(20, 21, 30),
    )  # valid of another split, partly trained on
    with pytest.raises(Contaminated, match="1 of 3"):
        guard(Lineage(first), second, groups=GROUPS)


@pytest.mark.parametrize("scored", [units(10, 20), units()])
def test_b8_an_unknown_lineage_is_contaminated_for_any_units(scored: frozenset[UnitId]) -> None:
    with pytest.raises(Contaminated, match="lineage unknown"):
        guard(Lineage(None), scored, groups=GROUPS)
    assert guard(Lineage(None), scored, groups=GROUPS, accept_contaminated=True) == "contaminated"


def test_an_accepted_score_is_marked_contaminated_only_where_it_is() -> None:
    lineage = Lineage(units(10))
    assert guard(lineage, units(11), groups=GROUPS, accept_contaminated=True) == "contaminated"
    assert guard(lineage, units(20), groups=GROUPS, accept_contaminated=True) == "clean"


@given(LINEAGES, LINEAGES, IDS)
def test_a_child_knows_what_either_parent_knew(
    first: Lineage, second: Lineage, scored: frozenset[UnitId]
) -> None:
    child = overlap(first.union(second), scored, groups=GROUPS)
    parents = (overlap(first, scored, groups=GROUPS), overlap(second, scored, groups=GROUPS))
    assert set(child) == set(parents[0]) | set(parents[1])


def test_a_lineage_keeps_the_unknown_of_a_parent() -> None:
    assert Lineage(units(1)).union(Lineage(None)) == Lineage(None)
    assert Lineage(None).union(Lineage(units(1))) == Lineage(None)


@given(LINEAGES)
def test_a_lineage_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, lineage: Lineage
) -> None:
    path = tmp_path_factory.mktemp("lineage") / "lineage.json"
    lineage.write(path)
    assert Lineage.read(path) == lineage
    assert Lineage.read(path).digest() == lineage.digest()


def test_the_file_lists_ids_in_the_order_of_text(tmp_path: Path) -> None:
    Lineage(units(30, 4, 1000)).write(tmp_path / "lineage.json")
    lines = (tmp_path / "lineage.json").read_text(encoding="utf-8").split()
    assert lines == ["{", '"trained_on":', "[", '"1000",', '"30",', '"4"', "]", "}"]


def test_unknown_none_and_some_have_digests_of_their_own() -> None:
    lineages = (Lineage(None), Lineage(frozenset()), Lineage(units(1)))
    assert len({lineage.digest() for lineage in lineages}) == 3


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"trained_on": [1]}', '{"trained_on": true}', '{"trained_on": [true]}']
)
def test_a_file_that_is_not_a_lineage_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lineage.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadData, match=r"lineage\.json"):
        Lineage.read(path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Work out 3 + 4", "Work out 3 + 4."),
        ("Work out 3 + 4", "work out 3+4 ?"),
        (r"Solve \( 2 x=3 \)", r"Solve \(2x=3\)"),
        (r"Solve $ 2 x $", "Solve $2x$"),
        (r"Find \(\frac{1}{2}\)", r"Find \( \frac12 \)"),
        (r"Find \(\frac{1}{2}\)", r"Find \( \dfrac{1}{2} \)"),
        (r"Find \(\left(3\,x\right)\)", r"Find \((3x)\)"),
        ("Solve 2x", "Solve\u200b 2x\ufeff"),
        ("Solve the equation", "Solve the equa\u00adtion"),
        ("3-4", "3\u22124"),
        ("3-4", "3\u20134"),
        ("3-4", "3 \u2014 4"),
        ("Tom's cake", "Tom\u2019s cake"),
        ('a "whole" number', "a \u201cwhole\u201d number"),
        ("a b", "a\u00a0b"),
        ("Straße", "STRASSE"),
    ],
)
def test_trivially_different_texts_are_equal(first: str, second: str) -> None:
    assert normalize(first) == normalize(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Tom has 3", "Sam has 3"),
        ("3 - 4", "3 + 4"),
        ("1.5", "15"),
        (r"\(\frac{1}{2}\)", r"\(\frac{2}{1}\)"),
        ("a < b", "a > b"),
        ("2 3", "23"),
    ],
)
def test_other_questions_stay_different(first: str, second: str) -> None:
    assert normalize(first) != normalize(second)
