"""A difference is shown where it is, and no text of the competition unless it is asked for."""

from dataclasses import replace

import pytest
from analysis.records import KNOWN, PACKAGES, PROMPT, Setup, measure
from hypothesis import given
from hypothesis import strategies as st

from parity.analysis.compare import diff
from parity.analysis.compare.evidence_record import EvidenceRecord

A = measure(Setup())


@given(st.text(), st.text())
def test_the_first_place_that_differs_is_the_first(one: str, other: str) -> None:
    place = diff.first(one, other)
    assert one[:place] == other[:place]
    assert one == other or one[place : place + 1] != other[place : place + 1]


@given(st.text())
def test_a_marked_text_hides_nothing(text: str) -> None:
    assert diff.marked(text).isprintable()
    assert not set("\n\t\r\\") & set(diff.marked(text))


@given(st.characters(categories=["L", "N"]))
def test_a_letter_or_a_digit_is_not_told(one: str) -> None:
    assert one not in diff.character(one, 0).replace("a letter", "").replace("a digit", "")


def test_what_can_be_seen_is_told_by_its_code() -> None:
    assert diff.character("a\nb", 1) == "<newline> (U+000A)"
    assert diff.character("a\\nb", 1) == "<backslash> (U+005C)"
    assert diff.character("a b", 1) == "<space> (U+0020)"
    assert diff.character("ab", 2) == "the end"


@pytest.mark.parametrize("layer", ["texts", "tokens", "examples", "template"])
def test_texts_stay_out_unless_they_are_asked_for(layer: str) -> None:
    prompt = PROMPT.model_copy(update={"query": "{wrong}\n{question}", "example_count": 2})
    b = measure(Setup(prompt=prompt))
    assert A.texts is not None
    words = {word for row in A.texts for word in row["text"].split() if len(word) > 5}
    words -= {"<instruct>Name", "mistake."}
    told = " ".join(diff.told(layer, A, b, KNOWN))
    assert told
    assert not [word for word in words if word in told]


def test_a_template_is_told_by_its_characters_where_both_run_files_are_at_hand() -> None:
    b = measure(Setup(prompt=PROMPT.model_copy(update={"query": "{question} {wrong}"})))
    told = diff.told("template", A, b, KNOWN)
    assert told[:2] == [
        "prompt.query differs",
        "character 10: A has <newline> (U+000A), B <space> (U+0020)",
    ]
    assert told[2:] == ["A: {question}>><newline>{wrong}", "B: {question}>> {wrong}"]
    bare = diff.told("template", EvidenceRecord(A.evidence), EvidenceRecord(b.evidence), KNOWN)
    assert bare[0] == "prompt.query differs"
    assert bare[1].startswith("digests A ")


def test_packages_are_told_with_what_they_can_move() -> None:
    b = measure(Setup(packages={**PACKAGES, "torch": "2.10.0", "pandas": "2.2.0"}))
    assert diff.told("packages", A, b, KNOWN) == [
        "torch: A 2.9.0, B 2.10.0 (its kernels round otherwise)",
        "pandas: A 2.3.3, B 2.2.0 (moves no embedding)",
    ]


def test_the_projects_own_source_is_a_package_too() -> None:
    """A wheel that another shadows has the same version and other source."""
    there = {**A.evidence.facts["environment"], "code": "f" * 64}
    b = replace(A, evidence=replace(A.evidence, facts={**A.evidence.facts, "environment": there}))
    (line,) = diff.told("packages", A, b, KNOWN)
    assert line.startswith("this project's source: A ")
    assert line.endswith("B ffffffffffff (writes prompts, packs and ranks)")


def test_a_piece_of_the_vocabulary_is_shown_unless_it_is_text() -> None:
    b = measure(Setup(slow=True))
    known = replace(KNOWN, pieces={60: "word", 300: "▁<"})
    assert "token 0 of it: A 60 (a piece of text), B 300 '▁<'" in diff.told("tokens", A, b, known)
    shown = replace(known, with_text=True)
    assert "token 0 of it: A 60 'word', B 300 '▁<'" in diff.told("tokens", A, b, shown)
