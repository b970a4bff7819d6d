"""Near duplicates across two sides are found, equal texts are joined elsewhere."""

import math
import random
from collections import Counter

import pytest

from parity.competition.lineage import normalize
from parity.competition.query import UnitId
from parity.competition.splits import near_duplicates
from parity.competition.splits.near_duplicates import equal_units, near_pairs

LONG = (
    "A train leaves the old station in the morning, stops twice on its way along the coast, and "
    "arrives at the next large town at 11:{}. A passenger who boarded at the first stop reads a "
    "timetable on the platform and wonders how many minutes the whole journey of the train takes, "
    "and which of the four answers below could be right for a train without any delay at all."
)


def side(prefix: str, *texts: str) -> dict[UnitId, str]:
    return {UnitId(f"{prefix}{number}"): text for number, text in enumerate(texts)}


def test_a_changed_number_is_a_near_pair_and_another_question_is_not() -> None:
    valid = side("v", LONG.format(20), "Which shape has four equal sides and four right angles?")
    train = side("t", "Name the largest of these fractions.", LONG.format(25), LONG.format(20))
    (pair,) = near_pairs(valid, train)
    assert (pair.first, pair.second) == ("v0", "t1")
    assert near_duplicates.THRESHOLD < pair.cosine < 1


def test_equal_texts_are_no_near_pair() -> None:
    assert near_pairs(side("v", LONG), side("t", f"{LONG.upper()}  ")) == []


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_the_block_size_and_the_order_do_not_change_the_pairs(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices(LONG.split(), k=60)) for _ in range(9)]
    valid = side("v", *(f"{text} 12" for text in texts))
    train = side("t", *(f"{text} 17" for text in texts))
    expected = near_pairs(valid, train)
    assert {(pair.first, pair.second) for pair in expected} >= {
        (f"v{n}", f"t{n}") for n in range(9)
    }
    monkeypatch.setattr(near_duplicates, "_ROWS", rows)
    shuffled = dict(draw.sample(sorted(valid.items()), len(valid)))
    assert near_pairs(shuffled, train) == expected


def test_the_cosine_is_that_of_the_formula() -> None:
    """A slow twin: sublinear term frequency, smoothed idf, n-grams of 2 to 4 within words."""
    texts = [LONG.format(20), LONG.format(25), "Name the largest of these fractions."]
    grams = [Counter(_grams(normalize(text))) for text in texts]
    weights = []
    for counts in grams:
        row = {
            gram: (1 + math.log(count))
            * (1 + math.log((1 + len(texts)) / (1 + sum(gram in other for other in grams))))
            for gram, count in counts.items()
        }
        norm = math.sqrt(sum(value**2 for value in row.values()))
        weights.append({gram: value / norm for gram, value in row.items()})
    cosine = sum(value * weights[1].get(gram, 0) for gram, value in weights[0].items())
    (pair,) = near_pairs(side("v", texts[0]), side("t", *texts[1:]))
    assert pair.cosine == pytest.approx(cosine, abs=1e-8)


def _grams(text: str) -> list[str]:
    """Return the n-grams of each word with its spaces; a short word once, as a whole."""
    words = [f" {word} " for word in text.split()]
    return [
        word[start : start + size]
        for word in words
        for size in (2, 3, 4)
        if size <= max(len(word), 2)
        for start in range(len(word) - size + 1)
    ]


def test_an_empty_side_or_text_has_no_pair() -> None:
    assert near_pairs({}, side("t", LONG)) == near_pairs(side("v", ""), side("t", "", LONG)) == []


def test_test_units_with_the_text_of_a_labeled_one_are_listed() -> None:
    labeled = side("t", r"Work out \( \frac{1}{2} - 3 \).", "Simplify 2x + 3x")
    test = side("x", r"work out \(\dfrac12−3\)", "Simplify 2x + 4x", "", "Simplify 2x+3x!")
    assert equal_units(test, labeled) == ["x0", "x3"]
