"""Lexical baselines: BM25 and TF-IDF rankings of the corpus."""

import re
from collections.abc import Callable
from typing import Literal

import bm25s
import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from parity.competition.query import Passages, Query
from parity.competition.ranking import Ranking
from parity.run.errors import BadData

Method = Literal["bm25", "tfidf"]
METHODS: tuple[Method, ...] = ("bm25", "tfidf")

_WORD = re.compile(r"\w\w+")
_ROWS = 256  # queries scored at once; the result does not depend on it

Score = Callable[[list[str]], NDArray[np.float32]]
"""Texts of b queries → (b, corpus) float32."""


def query_text(query: Query) -> str:
    """Return the words a baseline sees of a query: every field that a prompt can show the model.

    Fewer fields would make the model's lead look larger than it is.
    """
    return query.text


def rank(method: Method, queries: list[Query], corpus: Passages, *, k: int) -> Ranking:
    """Rank the corpus for each query by a lexical score; ties go to the smaller position.

    Only the corpus is fitted, so a row's ranking does not depend on the other queries.

    Args:
        method: `bm25`, over lower-case words of two characters or more; `tfidf`, cosine over
            character 3- to 5-grams within words with logarithmic term counts, the best of ten
            analyzers tried on labeled rows (it matches "adding" with "added").
        queries: n queries to rank for.
        corpus: at least one passage.
        k: number of passages per query; the entire corpus if it is smaller.

    Raises:
        BadData: the corpus holds no word.

    Source: Lù 2024, "BM25S" (Lucene's variant, k1 = 1.5, b = 0.75); scikit-learn's TF-IDF.
    """
    ascending = np.array(sorted(corpus), dtype=np.int64)
    texts = [corpus[key] for key in sorted(corpus)]
    if not any(_words(text) for text in texts):
        raise BadData(f"a corpus of {len(texts)} passages without a word cannot be ranked")
    score = {"bm25": _bm25, "tfidf": _tfidf}[method](texts)
    k = min(k, len(texts))
    ids = np.empty((len(queries), k), dtype=np.int64)
    scores = np.empty((len(queries), k), dtype=np.float32)
    for start in range(0, len(queries), _ROWS):
        block = score([query_text(query) for query in queries[start : start + _ROWS]])
        # A stable sort over ascending ids is what sends ties to the smaller id.
        best = np.argsort(-block, axis=1, kind="stable")[:, :k]  # (b, k)
        ids[start : start + _ROWS] = ascending[best]
        scores[start : start + _ROWS] = np.take_along_axis(block, best, axis=1)
    return Ranking(tuple(query.query_id for query in queries), ids, scores)


def _bm25(corpus: list[str]) -> Score:
    documents = [_words(text) for text in corpus]
    # Numbered by first appearance: bm25s would number the words by iterating a set.
    vocabulary = {
        word: number
        for number, word in enumerate(dict.fromkeys(word for words in documents for word in words))
    }
    numbered = [[vocabulary[word] for word in words] for words in documents]
    index = bm25s.BM25(backend="numpy")
    index.index((numbered, vocabulary), show_progress=False)

    def score(texts: list[str]) -> NDArray[np.float32]:
        numbers = [
            [vocabulary[word] for word in _words(text) if word in vocabulary] for text in texts
        ]
        block = np.zeros((len(texts), len(corpus)), dtype=np.float32)
        for row, words in enumerate(numbers):
            if words:  # bm25s refuses a query without one
                block[row] = index.get_scores(words)
        return block

    return score


def _tfidf(corpus: list[str]) -> Score:
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    passages = vectorizer.fit_transform(corpus).T.tocsr()  # (n-grams, corpus)

    def score(texts: list[str]) -> NDArray[np.float32]:
        block: NDArray[np.float64] = (vectorizer.transform(texts) @ passages).toarray()
        return block.astype(np.float32)

    return score


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
