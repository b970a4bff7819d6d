"""Lexical rankings against twins that score one pair at a time."""

import math
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.eedi.kaggle_files import build_query
from parity.competition.query import Passages, Position, Query
from parity.competition.scoring.baselines import METHODS, Method, query_text, rank
from parity.run.errors import BadData

WORDS = ["adds", "adding", "takes", "denominator", "numerator", "first", "the", "of", "x", "7"]


def asked(number: int, question: str, wrong: str = "12", subject: str = "fractions") -> Query:
    return build_query(
        number,
        "A",
        construct=(1, "Adding fractions"),
        subject=(1, subject),
        question=question,
        answers=("3", wrong),
    )


def corpus_of(*texts: str) -> Passages:
    return {Position(index): text for index, text in enumerate(texts)}


def random_corpus(generator: random.Random, size: int) -> Passages:
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(2, 6))) for _ in range(size)]
    texts[-1] = texts[0] = "adds the denominator"
    return corpus_of(*texts)


def words(text: str) -> list[str]:
    """Return the words of two or more letters or digits."""
    letters = "".join(sign if sign.isalnum() else " " for sign in text.lower())
    return [word for word in letters.split() if len(word) > 1]


def bm25_twin(query: str, corpus: list[str]) -> list[float]:
    documents = [words(text) for text in corpus]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        total = 0.0
        for word in words(query):
            holding = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            count = document.count(word)
            total += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean))
        scores.append(total)
    return scores


def grams(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word in text.lower().split():
        padded = f" {word} "
        for size in (3, 4, 5):
            if size >= len(padded):  # a short word counts once, whole
                counts[padded] += 1
                break
            counts.update(padded[at : at + size] for at in range(len(padded) - size + 1))
    return counts


def tfidf_twin(query: str, corpus: list[str]) -> list[float]:
    documents = [grams(text) for text in corpus]
    holding = Counter(gram for document in documents for gram in document)

    def vector(counts: Counter[str]) -> dict[str, float]:
        weights = {
            gram: (1 + math.log(count)) * (1 + math.log((1 + len(corpus)) / (1 + holding[gram])))
            for gram, count in counts.items()
            if gram in holding
        }
        norm = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        return {gram: weight / norm for gram, weight in weights.items()}

    asked_for = vector(grams(query))
    return [
        sum(weight * asked_for.get(gram, 0.0) for gram, weight in vector(document).items())
        for document in documents
    ]


TWINS = {"bm25": bm25_twin, "tfidf": tfidf_twin}


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_scores_and_order_are_those_of_the_brute_force_twin(method: Method, seed: int) -> None:
    generator = random.Random(seed)
    corpus = random_corpus(generator, 12)
    queries = [asked(n, " ".join(generator.choices(WORDS, k=5))) for n in range(3)]
    ranking = rank(method, queries, corpus, k=12)
    for query, ids, scores in zip(queries, ranking.positions, ranking.scores, strict=True):
        expected = dict(
            zip(corpus, TWINS[method](query_text(query), list(corpus.values())), strict=True)
        )
        assert scores == pytest.approx([expected[key] for key in ids.tolist()], abs=2e-6)
        assert sorted(ids.tolist()) == list(corpus)
        pairs = list(zip((-scores).tolist(), ids.tolist(), strict=True))
        assert pairs == sorted(pairs)  # best first, ties to the smaller id


@pytest.mark.parametrize("method", METHODS)
def test_equal_sentences_tie_and_go_to_the_smaller_id(method: Method) -> None:
    corpus = corpus_of("Adds the denominators", "Rounds down", "Adds the denominators")
    ranking = rank(method, [asked(1, "denominators")], corpus, k=3)
    assert ranking.positions.tolist() == [[0, 2, 1]]
    assert ranking.scores[0, 0] == ranking.scores[0, 1]


@pytest.mark.parametrize("method", METHODS)
def test_a_query_that_shares_no_word_gets_the_smallest_ids(method: Method) -> None:
    query = asked(1, "???", subject="")
    corpus = corpus_of("zzzz", "qqqq", "kkkk")
    ranking = rank(method, [query], corpus, k=2)
    assert ranking.positions.tolist() == [[0, 1]]
    assert not ranking.scores.any()


@pytest.mark.parametrize("method", METHODS)
def test_k_beyond_the_corpus_is_the_whole_corpus(method: Method) -> None:
    ranking = rank(method, [asked(1, "adds")], corpus_of("adds", "takes"), k=25)
    assert ranking.positions.shape == ranking.scores.shape == (1, 2)
    assert ranking.positions.dtype == np.int64
    assert ranking.scores.dtype == np.float32
    assert rank(method, [], corpus_of("adds", "takes"), k=1).positions.shape == (0, 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_does_not_depend_on_the_other_rows(method: Method) -> None:
    generator = random.Random(4)
    corpus = random_corpus(generator, 40)
    queries = [asked(n, " ".join(generator.choices(WORDS, k=6))) for n in range(300)]
    together = rank(method, queries, corpus, k=10)
    for index in (0, 255, 256, 299):
        single = rank(method, [queries[index]], corpus, k=10)
        assert np.array_equal(single.positions[0], together.positions[index])
        assert np.array_equal(single.scores[0], together.scores[index])


@pytest.mark.parametrize("field", ["subject", "construct", "question", "correct", "wrong"])
@pytest.mark.parametrize("method", METHODS)
def test_every_field_of_the_query_counts(method: Method, field: str) -> None:
    query = asked(1, "")
    query = replace(query, fields={**dict.fromkeys(query.fields, ""), field: "hypotenuse"})
    corpus = corpus_of("Rounds down", "Mistakes the hypotenuse")
    assert rank(method, [query], corpus, k=1).positions.tolist() == [[1]]


@pytest.mark.parametrize("method", METHODS)
def test_a_corpus_without_a_word_is_refused(method: Method) -> None:
    with pytest.raises(BadData, match="without a word"):
        rank(method, [asked(1, "adds")], corpus_of("+", "-"), k=1)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for method in METHODS:
        rank(method, [asked(1, "adds")], corpus_of(*["adds the first"] * 50), k=5)
    assert capfd.readouterr() == ("", "")


def digests() -> list[str]:
    generator = random.Random(1)
    corpus = random_corpus(generator, 30)
    queries = [asked(n, " ".join(generator.choices(WORDS, k=6))) for n in range(20)]
    rankings = [rank(method, queries, corpus, k=30) for method in METHODS]
    return [f"{ranking.digest()} {ranking.scores.tobytes().hex()}" for ranking in rankings]


def test_rankings_do_not_depend_on_the_hash_seed() -> None:
    other = subprocess.run(
        [sys.executable, "-c", "from test_baselines import digests; print(*digests(), sep='|')"],
        env={
            **os.environ,
            "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    assert other.stdout.strip().split("|") == digests()
