"""Queries, qrels and the corpus come back from their files as they were, whatever their texts."""

import json
from pathlib import Path

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity.competition.corpus import read_corpus, write_corpus
from parity.competition.query import (
    ANSWERS,
    Corpus,
    MisconceptionId,
    Qrels,
    Query,
    QueryId,
    read_qrels,
    read_queries,
    write_qrels,
    write_queries,
)
from parity.run.errors import BadData

texts = st.text(st.characters(exclude_categories=["Cs"]))
ids = st.integers(0, 9999).map(MisconceptionId)
query_ids = st.builds("{}_{}".format, st.integers(0, 9999), st.sampled_from(ANSWERS)).map(QueryId)
queries = st.builds(
    Query,
    query_id=query_ids,
    question_id=st.integers(0, 9999),
    answer=st.sampled_from(ANSWERS),
    construct_id=st.integers(0, 9999),
    construct=texts,
    subject_id=st.integers(0, 9999),
    subject=texts,
    question=texts,
    correct=texts,
    wrong=texts,
)
some = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@some
@given(st.lists(queries, max_size=4))
def test_queries_come_back_in_their_order(tmp_path: Path, asked: list[Query]) -> None:
    write_queries(tmp_path / "queries.jsonl", asked)
    assert read_queries(tmp_path / "queries.jsonl") == asked


@some
@given(st.dictionaries(query_ids, st.frozensets(ids, max_size=4), max_size=4))
def test_qrels_come_back_in_their_order(tmp_path: Path, qrels: Qrels) -> None:
    write_qrels(tmp_path / "qrels.jsonl", qrels)
    assert list(read_qrels(tmp_path / "qrels.jsonl").items()) == list(qrels.items())


@some
@given(st.dictionaries(ids, texts, max_size=6))
def test_a_corpus_comes_back_in_the_order_of_its_ids(tmp_path: Path, corpus: Corpus) -> None:
    write_corpus(tmp_path / "corpus.jsonl", corpus)
    assert list(read_corpus(tmp_path / "corpus.jsonl").items()) == sorted(corpus.items())


def test_the_order_in_which_a_corpus_was_filled_changes_no_byte(tmp_path: Path) -> None:
    corpus = tiny.corpus()
    write_corpus(tmp_path / "one.jsonl", corpus)
    write_corpus(tmp_path / "two.jsonl", dict(reversed(corpus.items())))
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_two_ids_keep_the_sentence_they_share(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", tiny.corpus())
    assert read_corpus(tmp_path / "corpus.jsonl") == tiny.corpus()


def test_a_line_is_one_query_and_the_right_ids_ascend(tmp_path: Path) -> None:
    write_queries(tmp_path / "queries.jsonl", tiny.queries())
    assert (tmp_path / "queries.jsonl").read_bytes().count(b"\n") == len(tiny.queries())
    right = frozenset(map(MisconceptionId, (11, 2, 100)))
    write_qrels(tmp_path / "qrels.jsonl", {QueryId("10_B"): right})
    line = json.loads((tmp_path / "qrels.jsonl").read_text(encoding="utf-8"))
    assert line == {"query_id": "10_B", "misconception_ids": [2, 11, 100]}


@pytest.mark.parametrize("read", [read_queries, read_qrels, read_corpus])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, read: object) -> None:
    path = tmp_path / "nouns.jsonl"
    path.write_text("{\n", encoding="utf-8")
    assert callable(read)
    with pytest.raises(BadData, match=r"nouns\.jsonl, line 1: not JSON"):
        read(path)
