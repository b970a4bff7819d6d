"""Few-shot examples: they never leak, and never depend on the other queries."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import random_competition
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from parity.competition.corpus import Corpus
from parity.competition.few_shot import (
    Example,
    Mode,
    choose,
    for_batch,
    guard,
    leaks,
    pool,
    read,
    text_digest,
    write,
)
from parity.competition.lineage import normalize
from parity.competition.query import PassageId, Query, QueryId, UnitId
from parity.competition.splits.split import Split, make
from parity.run import files
from parity.run.config.split import SplitConfig
from parity.run.errors import BadData, Contaminated, Mismatch

MODES: tuple[Mode, ...] = get_args(Mode)
SHOWING: tuple[Mode, ...] = tuple(mode for mode in MODES if mode != "none")

WORLD, LABELS = random_competition.labeled(3, 120)
SPLIT = make(WORLD, LABELS, SplitConfig(kind="random"))
POOL = pool(WORLD, LABELS, random_competition.corpus(LABELS), SPLIT)
BY_HAND = Split(
    "by-hand",
    "random",
    0,
    tuple(map(UnitId, ("10", "12", "20", "30"))),
    tuple(map(UnitId, ("11", "21"))),
    frozenset(),
)

few_examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
modes = st.sampled_from(SHOWING)


def tiny_pool(split: Split = BY_HAND) -> tuple[Example, ...]:
    return pool(tiny.queries(), tiny.qrels(), tiny.corpus(), split)


def ids(examples: Sequence[Example]) -> list[str]:
    return [example.query.query_id for example in examples]


def test_the_pool_is_the_labeled_rows_of_train_in_order() -> None:
    queries = [*tiny.hidden_queries(), *reversed(tiny.queries())]
    examples = pool(queries, tiny.qrels(), tiny.corpus(), BY_HAND)
    assert ids(examples) == ["10_B", "10_C", "12_A", "20_A", "20_C", "20_D", "30_A", "30_B"]
    assert examples[0].position == tiny.at(1)
    assert examples[0].passage == "Adds the denominators when adding fractions"


def test_a_row_with_two_right_misconceptions_shows_the_smaller_id() -> None:
    qrels = {QueryId("10_B"): frozenset(map(tiny.at, (9, 4)))}
    examples = pool(tiny.queries(), qrels, tiny.corpus(), BY_HAND)
    assert [example.position for example in examples] == [tiny.at(4)]


@few_examples
@given(modes, st.integers(1, 5), st.integers(0, 99))
def test_b9_no_query_is_shown_its_own_question_or_an_equal_text(
    mode: Mode, count: int, seed: int
) -> None:
    chosen = choose(WORLD, POOL, mode=mode, count=count, seed=seed)
    for query in WORLD:
        for shown in chosen[query.query_id]:
            assert shown.query.unit != query.unit
            assert normalize(shown.query.identity) != normalize(query.identity)
    assert leaks(WORLD, chosen) == ()


@pytest.mark.parametrize("mode", SHOWING)
def test_b9_no_valid_row_lends_its_answer(mode: Mode) -> None:
    chosen = choose(WORLD, POOL, mode=mode, count=4)
    shown = {example.query.unit for row in chosen.values() for example in row}
    assert shown
    assert not shown & set(SPLIT.valid)


def test_b9_a_prompt_that_shows_its_own_answer_is_found() -> None:
    queries = tiny.queries()
    example, twin, other = tiny_pool()[0], tiny_pool()[1], tiny_pool()[2]
    shown = {
        QueryId("10_B"): (example,),
        QueryId("11_B"): (other, twin),
        QueryId("12_A"): (example,),
    }
    assert leaks(queries, shown) == ("10_B", "11_B")


def test_b10_examples_picked_by_hand_from_valid_are_refused(tmp_path: Path) -> None:
    queries, path = tiny.queries(), tmp_path / "examples.jsonl"
    write(path, tiny_pool(), tiny.corpus())
    guard(read(path, queries, tiny.corpus()), BY_HAND)
    with path.open("a", encoding="utf-8") as handle:
        handle.write('{"query_id":"21_B","passage_id":"3"}\n')
    with pytest.raises(Contaminated, match=r"train side of split by-hand: 1 \(first: 21_B\)"):
        guard(read(path, queries, tiny.corpus()), BY_HAND)


@pytest.mark.parametrize("mode", SHOWING)
def test_c13_every_query_has_the_configured_number_of_examples(mode: Mode) -> None:
    chosen = choose(WORLD, POOL, mode=mode, count=3)
    assert {len(row) for row in chosen.values()} == {3}


def test_none_shows_nothing() -> None:
    for chosen in (
        choose(WORLD, POOL, mode="none", count=0),
        choose(WORLD, POOL, mode="random", count=0),
        choose(WORLD, (), mode="question", count=2),
    ):
        assert chosen == {query.query_id: () for query in WORLD}


@few_examples
@given(modes, st.integers(1, 3), st.randoms())
def test_c16_c17_other_queries_never_change_a_query_s_examples(
    mode: Mode, count: int, generator: random.Random
) -> None:
    chosen = choose(WORLD, POOL, mode=mode, count=count)
    stranger = replace(
        WORLD[0],
        query_id=QueryId("99999_A"),
        unit=UnitId("99999"),
        fields={
            **WORLD[0].fields,
            "subject": "A subject of no train question",
            "question": "What is the color of seven?",
        },
    )
    queries = [*generator.sample(WORLD, 9), stranger, *generator.sample(WORLD, 9)]
    result = choose(queries, generator.sample(POOL, len(POOL)), mode=mode, count=count)
    assert len(result[stranger.query_id]) == count
    single = choose([stranger], POOL, mode=mode, count=count)
    assert result[stranger.query_id] == single[stranger.query_id]
    for query in queries:
        if query is not stranger:
            assert result[query.query_id] == chosen[query.query_id]


def test_c16_the_same_run_under_another_hash_seed_shows_the_same(root: Path) -> None:
    program = (
        "import sys, random_competition\n"
        "from parity.competition import few_shot as examples\n"
        "from parity.competition.splits import split as splits\n"
        "from parity.run.config.split import SplitConfig\n"
        "queries, qrels = random_competition.labeled(3, 60)\n"
        "split = splits.make(queries, qrels, SplitConfig(kind='random'))\n"
        "pool = examples.pool(queries, qrels, random_competition.corpus(qrels), split)\n"
        "for mode in sys.argv[1:]:\n"
        "    chosen = examples.choose(queries, pool, mode=mode, count=2)\n"
        "    print([[one.query.query_id for one in row] for row in chosen.values()])\n"
    )
    path = os.pathsep.join((str(root / "src"), str(root / "tests")))
    printed = {
        subprocess.run(
            [sys.executable, "-c", program, *SHOWING],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "4242")
    }
    assert len(printed) == 1


@few_examples
@given(modes, st.integers(2, 6), st.integers(0, 9))
def test_no_prompt_shows_one_text_twice(mode: Mode, count: int, seed: int) -> None:
    for row in choose(WORLD, POOL, mode=mode, count=count, seed=seed).values():
        assert len({normalize(example.query.identity) for example in row}) == len(row)
        assert len({example.query.unit for example in row}) == len(row)


@pytest.mark.parametrize("mode", SHOWING)
def test_a_small_pool_shows_every_example_that_does_not_leak(mode: Mode) -> None:
    queries = tiny.queries()
    chosen = choose(queries, tiny_pool(), mode=mode, count=9)
    questions = {key: {example.query.unit for example in row} for key, row in chosen.items()}
    assert questions[QueryId("11_B")] == {"12", "20", "30"}  # 10 has its text
    assert questions[QueryId("20_A")] == {"10", "12", "30"}
    assert questions[QueryId("21_B")] == {"10", "12", "20", "30"}


def test_fixed_shows_one_list_and_skips_leaks() -> None:
    chosen = choose(WORLD, POOL, mode="fixed", count=3)
    longer = choose(WORLD, POOL, mode="fixed", count=4)
    usual = choose(
        [replace(WORLD[0].with_field("question", "?"), unit=UnitId("0"))],
        POOL,
        mode="fixed",
        count=4,
    )
    order = usual[WORLD[0].query_id]
    taken = {normalize(example.query.identity) for example in order[:3]}
    replaced = 0
    for query in WORLD:
        if normalize(query.identity) not in taken:
            assert chosen[query.query_id] == order[:3]
            continue
        replaced += 1
        allowed = [
            example
            for example in order
            if normalize(example.query.identity) != normalize(query.identity)
        ]
        assert chosen[query.query_id] == tuple(allowed)[:3]
        assert longer[query.query_id][:3] == chosen[query.query_id]
    assert replaced


def test_another_seed_shows_others() -> None:
    for mode in ("fixed", "random", "batch"):
        shown = {str(choose(WORLD[:1], POOL, mode=mode, count=3, seed=seed)) for seed in range(5)}
        assert len(shown) == 5, mode


def test_batch_is_fixed_outside_of_training() -> None:
    assert choose(WORLD, POOL, mode="batch", count=3, seed=4) == choose(
        WORLD, POOL, mode="fixed", count=3, seed=4
    )


def test_random_shows_each_wrong_answer_others_and_uses_most_of_the_pool() -> None:
    chosen = choose(WORLD, POOL, mode="random", count=2)
    assert len(set(chosen.values())) > 0.95 * len(WORLD)
    shown = {example.query.query_id for row in chosen.values() for example in row}
    assert len(shown) > 0.7 * len(POOL)


def test_question_shows_all_wrong_answers_of_a_question_the_same() -> None:
    chosen = choose(WORLD, POOL, mode="question", count=2)
    by_question: dict[UnitId, set[tuple[Example, ...]]] = {}
    for query in WORLD:
        by_question.setdefault(query.unit, set()).add(chosen[query.query_id])
    assert {len(rows) for rows in by_question.values()} == {1}


def test_question_shows_the_nearest_train_questions_and_ties_go_to_the_smaller_id() -> None:
    first = {int(example.query.unit): example for example in reversed(POOL)}  # smallest answer wins
    texts = {
        key: " ".join(example.query.fields[name] for name in ("subject", "construct", "question"))
        for key, example in first.items()
    }
    vectorizer = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    vectorizer.fit([texts[key] for key in sorted(texts)])
    vectors = {key: vectorizer.transform([text]) for key, text in texts.items()}
    chosen = choose(WORLD, POOL, mode="question", count=3)
    for query in WORLD[::7]:
        fields = (query.fields[name] for name in ("subject", "construct", "question"))
        vector = vectorizer.transform([" ".join(fields)])
        cosines = {key: round(float((vector @ vectors[key].T).sum()), 9) for key in texts}
        expected: list[str] = []
        seen = {normalize(query.identity)}
        for key in sorted(texts, key=lambda item: (-cosines[item], item)):
            text = normalize(first[key].query.identity)
            if text not in seen and len(expected) < 3:
                seen.add(text)
                expected.append(first[key].query.query_id)
        assert ids(chosen[query.query_id]) == expected


def test_question_finds_the_question_on_the_same_subject() -> None:
    chosen = choose(tiny.queries(), tiny_pool(), mode="question", count=1)
    assert ids(chosen[QueryId("10_B")]) == ["30_A"]  # fractions, and not its twin 11
    assert ids(chosen[QueryId("11_B")]) == ["30_A"]
    assert ids(chosen[QueryId("21_C")]) == ["20_A"]  # squares


@few_examples
@given(st.data(), st.integers(1, 4), st.integers(0, 99))
def test_a_batch_shares_examples_that_leak_to_no_query_of_it(
    data: st.DataObject, count: int, seed: int
) -> None:
    batch = data.draw(st.lists(st.sampled_from(WORLD), min_size=1, max_size=12, unique=True))
    shown = for_batch(batch, POOL, count=count, seed=seed)
    assert len({normalize(example.query.identity) for example in shown}) == count
    assert leaks(batch, {query.query_id: shown for query in batch}) == ()
    turned = for_batch(batch[::-1], POOL[::-1], count=count, seed=seed)
    assert turned == shown


def test_other_batches_and_seeds_share_others() -> None:
    batches = [WORLD[start : start + 8] for start in range(0, 80, 8)]
    shown = {for_batch(batch, POOL, count=3, seed=seed) for batch in batches for seed in (0, 1)}
    assert len(shown) == 20


def test_a_batch_of_all_train_questions_has_nothing_to_share() -> None:
    assert for_batch(WORLD, POOL, count=3, seed=0) == ()


def test_the_file_holds_ids_alone_and_brings_the_pool_back(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    write(path, tiny_pool(), tiny.corpus())
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[0] == '{"passage_id":"1","query_id":"10_B"}'
    assert read(path, tiny.queries(), tiny.corpus()) == tiny_pool()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"passage_id":"1","query_id":"99_B"}', "no labeled row '99_B'"),
        ('{"passage_id":"2","query_id":"10_B"}', "no passage '2'"),
        ('{"passage_id":"1"}', "want query_id and passage_id"),
        ('{"query_id":"10_B","sha256":""}', "want query_id and passage_id"),
        (
            '{"passage_id":"1","query_id":"10_B","text":"x"}',
            "want query_id and passage_id",
        ),
        ("[]", "want query_id and passage_id"),
    ],
)
def test_a_line_that_fits_no_file_is_refused_by_number(
    tmp_path: Path, line: str, problem: str
) -> None:
    path = tmp_path / "examples.jsonl"
    write(path, tiny_pool()[:1], tiny.corpus())
    with path.open("a", encoding="utf-8") as handle:
        handle.write(line + "\n")
    with pytest.raises(BadData, match=f"line 2: {problem}"):
        read(path, tiny.queries(), tiny.corpus())


def packed(path: Path, *digests: object) -> Path:
    """Write the pool as a bundle has it; None is a line without a digest."""
    rows = []
    for example, sha256 in zip(tiny_pool(), digests, strict=False):
        row = {
            "query_id": example.query.query_id,
            "passage_id": tiny.corpus().ids[example.position],
        }
        rows.append(row if sha256 is None else {**row, "sha256": sha256})
    files.write_jsonl(path, rows)
    return path


def test_a_line_may_carry_the_digest_of_its_text(tmp_path: Path) -> None:
    digests_of_pool = [text_digest(example) for example in tiny_pool()]
    assert len({*digests_of_pool}) == len(digests_of_pool) > 4
    for digests in (
        digests_of_pool,
        [None if index % 2 else example for index, example in enumerate(digests_of_pool)],
    ):
        path = packed(tmp_path / "examples.jsonl", *digests)
        assert read(path, tiny.queries(), tiny.corpus()) == tiny_pool()


@pytest.mark.parametrize("sha256", ["f" * 64, "", None, 7], ids=str)
def test_a_digest_of_another_text_is_refused(tmp_path: Path, sha256: object) -> None:
    path = packed(tmp_path / "examples.jsonl", None, text_digest(tiny_pool()[1]))
    row = {"passage_id": "1", "query_id": "30_A", "sha256": sha256}
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(row) + "\n")
    with pytest.raises(Mismatch) as error:
        read(path, tiny.queries(), tiny.corpus())
    expected = "example 30_A: its text here is not the one it was packed with"
    assert str(error.value) == expected


@pytest.mark.parametrize("name", tiny.queries()[0].fields)
def test_a_text_that_changed_in_the_competition_is_refused(tmp_path: Path, name: str) -> None:
    first = tiny_pool()[0]
    path = packed(tmp_path / "examples.jsonl", text_digest(first))
    changed = [
        query.with_field(name, f"{query.fields[name]} ") if query == first.query else query
        for query in tiny.queries()
    ]
    with pytest.raises(Mismatch, match=r"^example 10_B: its text here is not"):
        read(path, changed, tiny.corpus())
    assert read(packed(path, None), changed, tiny.corpus())  # nothing says what it was


def test_a_sentence_that_changed_in_the_corpus_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "examples.jsonl", text_digest(tiny_pool()[0]))
    texts = dict(zip(tiny.corpus().ids, tiny.corpus().values(), strict=True))
    corpus = Corpus({**texts, PassageId("1"): "Adds the numerators"})
    with pytest.raises(Mismatch, match=r"^example 10_B: its text here is not"):
        read(path, tiny.queries(), corpus)


def test_a_pool_of_texts_without_words_is_searched_too() -> None:
    queries: list[Query] = [
        replace(
            query,
            fields={
                **query.fields,
                "question": "+" * int(query.unit),
                "subject": "%",
                "construct": "?",
            },
        )
        for query in WORLD[:30]
    ]
    examples = pool(queries, LABELS, random_competition.corpus(LABELS), SPLIT)
    assert {len(row) for row in choose(queries, examples, mode="question", count=1).values()} == {1}
