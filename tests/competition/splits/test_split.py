"""Splits of each kind, checked against code that compares every pair."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import random_competition
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity.competition.lineage import normalize
from parity.competition.query import Position, Qrels, Query, QueryId, UnitId
from parity.competition.splits.split import Split, describe, make
from parity.run.config.split import SplitConfig
from parity.run.errors import BadConfig, BadData, Mismatch

Kind = Literal["random", "random-full", "construct", "subject", "label", "unseen"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WORLD, LABELS = random_competition.labeled(7, 400)

few_examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
seeds = st.integers(0, 99)
configs = st.builds(
    lambda kind, seed, valid, unseen, fold: SplitConfig(
        kind=kind, seed=seed, valid=valid, unseen=unseen, folds=fold[0], fold=fold[1]
    ),
    st.sampled_from(KINDS),
    seeds,
    st.sampled_from((0.1, 0.2, 0.35)),
    st.sampled_from((0.0, 0.4, 0.75, 1.0)),
    st.sampled_from(((0, 0), (3, 0), (3, 2))),
)


def units(*numbers: int) -> tuple[UnitId, ...]:
    """Return the units of these numbers."""
    return tuple(UnitId(str(number)) for number in numbers)


def rows_of(queries: list[Query], ids: tuple[UnitId, ...]) -> list[Query]:
    return [query for query in queries if query.unit in ids]


def share(split: Split, queries: list[Query]) -> float:
    return len(split.unseen) / len(rows_of(queries, split.valid))


def folds(kind: Kind, count: int = 5, **keys: Any) -> list[Split]:
    return [
        make(WORLD, LABELS, SplitConfig(kind=kind, folds=count, fold=fold, **keys))
        for fold in range(count)
    ]


@few_examples
@given(seeds, configs)
def test_no_question_and_no_text_is_on_both_sides(seed: int, config: SplitConfig) -> None:
    queries, qrels = random_competition.labeled(seed, 60)
    split = make(queries, qrels, config)
    train, valid = rows_of(queries, split.train), rows_of(queries, split.valid)
    assert split.train
    assert split.valid
    assert not {query.unit for query in train} & {query.unit for query in valid}
    texts = [{normalize(query.identity) for query in rows} for rows in (train, valid)]
    assert not texts[0] & texts[1]


@few_examples
@given(seeds, configs)
def test_every_question_is_on_a_side_except_for_held_out_misconceptions(
    seed: int, config: SplitConfig
) -> None:
    queries, qrels = random_competition.labeled(seed, 60)
    split = make(queries, qrels, config)
    out = {query.unit for query in queries} - {*split.train, *split.valid}
    valid_labels = set(
        chain.from_iterable(qrels[row.query_id] for row in rows_of(queries, split.valid))
    )
    for question in out:
        labels = [qrels[row.query_id] for row in queries if row.unit == question]
        assert config.kind == "label"
        assert valid_labels & set(chain.from_iterable(labels))


@few_examples
@given(seeds, configs)
def test_a_row_is_unseen_when_no_train_row_shares_a_misconception(
    seed: int, config: SplitConfig
) -> None:
    queries, qrels = random_competition.labeled(seed, 60)
    split = make(queries, qrels, config)
    train = rows_of(queries, split.train)
    unseen = {
        row.query_id
        for row in rows_of(queries, split.valid)
        if not any(qrels[row.query_id] & qrels[other.query_id] for other in train)
    }
    assert split.unseen == unseen


@few_examples
@given(seeds, configs, st.randoms())
def test_rows_in_another_order_give_the_same_split(
    seed: int, config: SplitConfig, generator: random.Random
) -> None:
    queries, qrels = random_competition.labeled(seed, 60)
    rows = generator.sample(list(qrels.items()), len(qrels))
    other = make(generator.sample(queries, len(queries)), dict(rows), config)
    assert other == make(queries, qrels, config)


@few_examples
@given(seeds, seeds)
def test_a_misconception_held_out_is_in_no_row_of_train(world: int, seed: int) -> None:
    queries, qrels = random_competition.labeled(world, 60)
    for config in (
        SplitConfig(kind="label", seed=seed),
        SplitConfig(kind="label", seed=seed, folds=3, fold=1),
    ):
        split = make(queries, qrels, config)
        assert len(split.unseen) == len(rows_of(queries, split.valid))


def test_the_same_run_under_another_hash_seed_cuts_the_same_bytes(root: Path) -> None:
    program = (
        "import sys, random_competition\n"
        "from parity.competition.splits.split import make\n"
        "from parity.run.config.split import SplitConfig\n"
        "for kind in sys.argv[1:]:\n"
        "    for folds in (0, 3):\n"
        "        config = SplitConfig(kind=kind, folds=folds)\n"
        "        print(make(*random_competition.labeled(7, 120), config).digest())\n"
    )
    path = os.pathsep.join((str(root / "src"), str(root / "tests")))
    digests = {
        subprocess.run(
            [sys.executable, "-c", program, *KINDS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }
    assert len(digests) == 1


def test_another_seed_gives_another_split() -> None:
    for kind in KINDS:
        sides = {make(WORLD, LABELS, SplitConfig(kind=kind, seed=seed)).valid for seed in range(4)}
        assert len(sides) == 4, kind


@pytest.mark.parametrize(
    ("config", "valid"),
    [
        (SplitConfig(kind="random", valid=0.4), units(10, 11, 12)),
        (SplitConfig(kind="construct", valid=0.4), units(10, 11, 12, 30)),
        (SplitConfig(kind="unseen", valid=0.4), units(12, 20)),
    ],
)
def test_a_split_equals_its_recorded_units(config: SplitConfig, valid: tuple[UnitId, ...]) -> None:
    # Pinned: scores compare only while a split's name means the same questions everywhere.
    assert make(tiny.queries(), tiny.qrels(), config).valid == valid


@pytest.mark.parametrize("kind", ["random", "random-full", "construct", "label", "unseen"])
@pytest.mark.parametrize("valid", [0.1, 0.2, 0.3])
def test_valid_holds_the_configured_share_of_rows(kind: Kind, valid: float) -> None:
    split = make(WORLD, LABELS, SplitConfig(kind=kind, valid=valid))
    assert len(rows_of(WORLD, split.valid)) / len(WORLD) == pytest.approx(valid, abs=0.01)


@pytest.mark.parametrize("kind", ["random", "construct", "subject", "label", "unseen"])
def test_each_question_is_valid_in_exactly_one_fold(kind: Kind) -> None:
    valid = Counter(chain.from_iterable(split.valid for split in folds(kind)))
    assert valid == Counter({query.unit: 1 for query in WORLD})


def test_folds_hold_about_as_many_rows_each() -> None:
    for kind in ("random", "construct", "label", "unseen"):
        sizes = [len(rows_of(WORLD, split.valid)) for split in folds(kind)]
        assert max(sizes) - min(sizes) <= 3, kind


@pytest.mark.parametrize("kind", ["construct", "subject"])
def test_a_construct_or_subject_is_on_one_side(kind: Kind) -> None:
    for split in (make(WORLD, LABELS, SplitConfig(kind=kind)), *folds(kind)):
        sides = [
            {row.groups[kind] for row in rows_of(WORLD, ids)} for ids in (split.train, split.valid)
        ]
        assert not sides[0] & sides[1]


def test_a3_only_questions_with_all_wrong_answers_labeled_are_valid_in_random_full() -> None:
    labels = Counter(query.unit for query in WORLD)
    for split in (make(WORLD, LABELS, SplitConfig(kind="random-full")), *folds("random-full")):
        assert {labels[question] for question in split.valid} == {3}


def test_a3_each_full_question_is_valid_in_one_fold_unless_its_text_has_a_poorer_twin() -> None:
    labels = Counter(query.unit for query in WORLD)
    poor = {normalize(row.identity) for row in WORLD if labels[row.unit] < 3}
    full = {row.unit for row in WORLD if normalize(row.identity) not in poor}
    valid = Counter(chain.from_iterable(split.valid for split in folds("random-full")))
    assert valid == Counter(dict.fromkeys(full, 1))


def test_a5_questions_of_one_text_stay_together_in_every_kind() -> None:
    for kind in KINDS:
        if kind == "random-full":
            continue  # only one question of `tiny` is labeled in full
        for seed in range(6):
            config = SplitConfig(kind=kind, seed=seed, valid=0.4)
            split = make(tiny.queries(), tiny.qrels(), config)
            assert ("10" in split.valid) == ("11" in split.valid), (kind, seed)


@pytest.mark.parametrize("unseen_share", [0.0, 0.3, 0.5, 0.75, 0.83, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a1_the_unseen_share_is_the_configured_one(unseen_share: float, seed: int) -> None:
    split = make(WORLD, LABELS, SplitConfig(kind="unseen", unseen=unseen_share, seed=seed))
    assert share(split, WORLD) == pytest.approx(unseen_share, abs=0.02)


def test_every_fold_has_the_configured_unseen_share() -> None:
    for split in folds("unseen", unseen=0.6):
        assert share(split, WORLD) == pytest.approx(0.6, abs=0.02)


def test_the_full_split_trains_on_every_question_and_scores_none() -> None:
    split = make(WORLD, LABELS, SplitConfig(kind="full"))
    assert split.train == tuple(dict.fromkeys(query.unit for query in WORLD))
    assert (split.valid, split.unseen) == ((), frozenset())


def test_rows_without_a_label_take_no_part() -> None:
    queries = [*tiny.queries(), *tiny.hidden_queries()]
    config = SplitConfig(kind="random", valid=0.4)
    assert make(queries, tiny.qrels(), config) == make(tiny.queries(), tiny.qrels(), config)


@pytest.mark.parametrize(
    "config",
    [
        SplitConfig(kind="random", folds=6, fold=5),  # five texts alone
        SplitConfig(kind="subject", folds=4, fold=3),  # three subjects
    ],
)
def test_a_cut_that_leaves_a_side_empty_is_refused(config: SplitConfig) -> None:
    with pytest.raises(BadConfig, match=f"leaves no unit in valid of {config.name}"):
        make(tiny.queries(), tiny.qrels(), config)


@pytest.mark.parametrize("kind", KINDS)
def test_more_folds_than_questions_are_refused_in_every_kind(kind: Kind) -> None:
    with pytest.raises(BadConfig, match="leaves no unit in valid"):
        make(tiny.queries(), tiny.qrels(), SplitConfig(kind=kind, folds=9, fold=8))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_any_label_cannot_be_split(kind: Kind) -> None:
    for count in (0, 3):
        with pytest.raises(BadConfig, match="leaves no unit in valid"):
            make(tiny.hidden_queries(), tiny.qrels(), SplitConfig(kind=kind, folds=count))


def test_a_world_of_one_question_cannot_be_split() -> None:
    queries = [query for query in tiny.queries() if query.unit == "20"]
    for kind in KINDS:
        with pytest.raises(BadConfig, match="leaves no unit in train"):
            make(queries, tiny.qrels(), SplitConfig(kind=kind))


@few_examples
@given(seeds, configs)
def test_a_split_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int, config: SplitConfig
) -> None:
    split = make(*random_competition.labeled(seed, 60), config)
    path = tmp_path_factory.mktemp("splits") / f"{split.name}.json"
    split.write(path)
    assert Split.read(path) == split
    assert json.loads(path.read_text(encoding="utf-8"))["digest"] == split.digest()


def test_a_split_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    make(WORLD, LABELS, SplitConfig()).write(path)
    record = json.loads(path.read_text(encoding="utf-8"))
    record["train"].append("1000000")
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(Mismatch, match=r"split\.json has changed since it was written"):
        Split.read(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(BadData, match=r"split\.json: not a split"):
        Split.read(path)


def test_a_question_on_both_sides_cannot_be_written_down() -> None:
    with pytest.raises(BadData, match="unit 2 is in train and in valid"):
        Split("s", "random", 0, units(1, 2), units(2, 3), frozenset())
    with pytest.raises(BadData, match="a unit comes twice in train"):
        Split("s", "random", 0, units(2, 2), units(3), frozenset())


def test_every_field_counts_in_the_digest() -> None:
    split = make(WORLD, LABELS, SplitConfig())
    variants = (
        replace(split, name="other"),
        replace(split, kind="random"),
        replace(split, seed=1),
        replace(split, train=split.train[1:]),
        replace(split, valid=split.valid[1:]),
        replace(split, unseen=frozenset(sorted(split.unseen)[1:])),
    )
    assert len({split.digest(), *(other.digest() for other in variants)}) == 7


def description(queries: list[Query], qrels: Qrels, config: SplitConfig) -> list[str]:
    return describe(make(queries, qrels, config), queries, qrels).split("\n")


def test_a3_the_description_compares_both_sides() -> None:
    queries, qrels = tiny.queries(), tiny.qrels()
    unseen = frozenset(map(QueryId, ("20_A", "21_B")))
    split = Split("by-hand", "random", 0, units(10, 11, 12, 30), units(20, 21), unseen)
    lines = [" ".join(line.split()) for line in describe(split, queries, qrels).split("\n")]
    assert lines[1:7] == [
        "train valid",
        "rows 6 5",
        "units 4 2",
        "labels per unit 1.50 2.50",
        "unseen rows 40.0 %",
        "subjects 2 1",
    ]
    assert lines[7:] == [
        "subject mix in common 0.0 %",
        "Adding Fractions 83.3 % 0.0 %",
        "Squares, Cubes, etc 0.0 % 100.0 %",
        "Mental Addition and Subtraction 16.7 % 0.0 %",
    ]


def test_the_description_fits_78_columns() -> None:
    long = [query.with_field("subject", "Words " * 40) for query in WORLD]
    cuts = [SplitConfig(kind=kind, folds=3) for kind in KINDS]
    for config in (*cuts, SplitConfig(kind="full")):
        assert max(map(len, description(long, LABELS, config))) <= 78


def chain_of(questions: int) -> tuple[list[Query], Qrels]:
    """Return questions each of which shares a misconception with the next."""
    pattern = tiny.queries()[0]
    queries: list[Query] = []
    qrels: Qrels = {}
    for number in range(questions):
        for answer, right in (("A", number), ("B", number + 1)):
            query_id = QueryId(f"{number}_{answer}")
            qrels[query_id] = frozenset({Position(right)})
            order = 2 * number + (answer == "B")
            row = replace(pattern, query_id=query_id, unit=UnitId(str(number)), order=order)
            queries.append(row.with_field("question", f"What is {number}?"))
    return queries, qrels


def test_questions_with_a_held_out_misconception_are_dropped_and_described() -> None:
    queries, qrels = chain_of(24)
    config = SplitConfig(kind="label", folds=3)
    split = make(queries, qrels, config)
    valid, train = ({*map(int, units_)} for units_ in (split.valid, split.train))
    neighbors = {number + step for number in valid for step in (-1, 1)} - valid
    out = set(range(24)) - train - valid
    assert out
    assert out == neighbors & set(range(24))
    line = f"on neither side, because of a label in valid: {len(out)} units"
    assert description(queries, qrels, config)[-1] == line


def test_without_folds_nothing_is_left_out_where_loose_questions_fill_valid() -> None:
    queries, qrels = random_competition.labeled(7, 400)
    split = make(queries, qrels, SplitConfig(kind="label"))
    assert {*split.train, *split.valid} == {query.unit for query in queries}
