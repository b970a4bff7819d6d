"""Queries, qrels and the corpus survive their files, with any texts."""

import json
from pathlib import Path

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity.competition.corpus import (
    Corpus,
    read_corpus,
    read_qrels,
    write_corpus,
    write_qrels,
)
from parity.competition.query import (
    PassageId,
    Position,
    Query,
    QueryId,
    QueryLayout,
    UnitId,
    read_queries,
    unit_of,
    write_queries,
)
from parity.run.errors import BadData

texts = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
positions = st.integers(0, 4).map(Position)
query_ids = st.builds("{}_{}".format, st.integers(0, 9999), st.sampled_from("ABCD")).map(QueryId)
layouts = st.builds(QueryLayout, *(st.lists(names, max_size=3).map(tuple) for _ in range(3)))
queries = st.builds(
    Query,
    query_id=query_ids,
    unit=names.map(UnitId),
    order=st.integers(0, 9999),
    row=names,
    unit_size=st.integers(1, 4),
    fields=st.dictionaries(names, texts, max_size=4),
    groups=st.dictionaries(names, names, max_size=2),
    layout=layouts,
)
few_examples = settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@few_examples
@given(st.lists(queries, max_size=4))
def test_queries_come_back_in_their_order(tmp_path: Path, rows: list[Query]) -> None:
    write_queries(tmp_path / "queries.jsonl", rows)
    assert read_queries(tmp_path / "queries.jsonl") == rows


@few_examples
@given(st.dictionaries(query_ids, st.frozensets(positions, max_size=4), max_size=4))
def test_labels_come_back_in_their_order(
    tmp_path: Path, qrels: dict[QueryId, frozenset[Position]]
) -> None:
    write_qrels(tmp_path / "qrels.jsonl", qrels, tiny.corpus())
    result = read_qrels(tmp_path / "qrels.jsonl", tiny.corpus())
    assert list(result.items()) == list(qrels.items())


@few_examples
@given(st.dictionaries(names.map(PassageId), texts, max_size=6))
def test_a_corpus_comes_back_in_its_order(tmp_path: Path, passages: dict[PassageId, str]) -> None:
    write_corpus(tmp_path / "corpus.jsonl", Corpus(passages))
    result = read_corpus(tmp_path / "corpus.jsonl")
    assert result.ids == tuple(passages)
    assert list(result.values()) == list(passages.values())


def test_the_order_of_a_corpus_is_in_its_digest() -> None:
    ids, texts = map(PassageId, "ab"), ("x", "x")
    passages = dict(zip(ids, texts, strict=True))
    turned = Corpus(dict(reversed(passages.items())))
    assert Corpus(passages).digest() != turned.digest()


def test_a_position_outside_the_corpus_is_not_in_it() -> None:
    corpus = tiny.corpus()
    assert [corpus.at(passage_id) for passage_id in corpus.ids] == list(corpus)
    assert Position(-1) not in corpus
    assert Position(len(corpus)) not in corpus
    assert corpus.find("2") is None


def test_the_unit_of_a_query_is_the_part_before_the_last_underscore() -> None:
    ids = ["12_A", "doc_3_q-17", "q17"]
    assert [unit_of(QueryId(query_id)) for query_id in ids] == ["12", "doc_3", "q17"]


def test_two_ids_keep_the_sentence_they_share(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", tiny.corpus())
    assert read_corpus(tmp_path / "corpus.jsonl") == tiny.corpus()


def test_a_line_is_one_query_and_right_ids_are_in_the_order_of_the_corpus(tmp_path: Path) -> None:
    write_queries(tmp_path / "queries.jsonl", tiny.queries())
    assert (tmp_path / "queries.jsonl").read_bytes().count(b"\n") == len(tiny.queries())
    right = frozenset(map(tiny.at, (9, 3, 4)))
    write_qrels(tmp_path / "qrels.jsonl", {QueryId("10_B"): right}, tiny.corpus())
    line = json.loads((tmp_path / "qrels.jsonl").read_text(encoding="utf-8"))
    assert line == {"query_id": "10_B", "passage_ids": ["3", "4", "9"]}


@pytest.mark.parametrize("read", [read_queries, read_corpus])
def test_a_line_that_is_not_json_is_named(tmp_path: Path, read: object) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("{\n", encoding="utf-8")
    assert callable(read)
    with pytest.raises(BadData, match=r"lines\.jsonl, line 1: not JSON"):
        read(path)
