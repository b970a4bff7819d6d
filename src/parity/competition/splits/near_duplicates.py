"""Near duplicates: pairs of units whose texts differ in a few characters, such as one number.

Units of equal text are joined by `grouping`. Near ones stay apart, since a changed number may be
another question; they are counted, because a model that has seen one may know the other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sklearn.feature_extraction.text import TfidfVectorizer

from parity.competition.lineage import normalize
from parity.competition.query import UnitId

THRESHOLD = 0.95
"""Cosine of TF-IDF vectors of character n-grams above which two texts are near duplicates."""
_ROWS = 512  # texts compared at once; the result does not depend on it
_DECIMALS = 9  # beyond them two machines may differ


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two units with nearly equal texts.

    Attributes:
        first: the unit of the first side.
        second: the unit of the second side.
        cosine: similarity of their texts, above `THRESHOLD`.
    """

    first: UnitId
    second: UnitId
    cosine: float


def near_pairs(first: Mapping[UnitId, str], second: Mapping[UnitId, str]) -> list[NearPair]:
    """Return the near duplicates between two sides, the most similar first.

    Pairs whose normalized texts are equal are left out.

    Args:
        first: text of each unit of one side.
        second: text of each unit of the other side.

    Source: scikit-learn's `TfidfVectorizer` with `analyzer="char_wb"`.
    """
    sides = [
        [(unit, folded) for unit, text in side.items() if (folded := normalize(text))]
        for side in (first, second)
    ]
    if not all(sides):
        return []
    pairs = _similar(*sides)
    return sorted(pairs, key=lambda pair: (-pair.cosine, pair.first, pair.second))


def equal_units(first: Mapping[UnitId, str], second: Mapping[UnitId, str]) -> list[UnitId]:
    """Return the units of the first side with the normalized text of one of the second."""
    texts = {normalize(text) for text in second.values()} - {""}
    return [unit for unit, text in first.items() if normalize(text) in texts]


def _similar(
    first: list[tuple[UnitId, str]], second: list[tuple[UnitId, str]]
) -> Iterator[NearPair]:
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    vectorizer.fit([text for _, text in (*first, *second)])
    columns = vectorizer.transform([text for _, text in second]).T.tocsr()  # (n-grams, m)
    for start in range(0, len(first), _ROWS):
        block = first[start : start + _ROWS]
        cosines = (vectorizer.transform([text for _, text in block]) @ columns).tocoo()
        for row, column, value in zip(cosines.row, cosines.col, cosines.data, strict=True):
            (unit, text), (other, other_text) = block[row], second[column]
            cosine = round(float(value), _DECIMALS)
            if cosine > THRESHOLD and text != other_text:
                yield NearPair(unit, other, cosine)
