"""A difference is shown where it is, and the competition's text only on request."""

from dataclasses import replace

import pytest
from analysis.records import ARTIFACTS, PACKAGES, PROMPT, Setup, measure
from hypothesis import given
from hypothesis import strategies as st

from parity.analysis.compare import diff
from parity.analysis.compare.evidence_record import EvidenceRecord

A = measure(Setup())


@given(st.text(), st.text())
def test_the_first_mismatch_is_the_first(a: str, b: str) -> None:
    position = diff.first_mismatch(a, b)
    assert a[:position] == b[:position]
    assert a == b or a[position : position + 1] != b[position : position + 1]


@given(st.text())
def test_a_marked_text_has_only_visible_characters(text: str) -> None:
    assert diff.marked(text).isprintable()
    assert not set("\n\t\r\\") & set(diff.marked(text))


@given(st.characters(categories=["L", "N"]))
def test_a_letter_or_a_digit_is_not_shown(char: str) -> None:
    assert char not in diff.character(char, 0).replace("a letter", "").replace("a digit", "")


def test_an_invisible_character_is_shown_by_its_code() -> None:
    assert diff.character("a\nb", 1) == "<newline> (U+000A)"
    assert diff.character("a\\nb", 1) == "<backslash> (U+005C)"
    assert diff.character("a b", 1) == "<space> (U+0020)"
    assert diff.character("ab", 2) == "the end"


@pytest.mark.parametrize("layer", ["texts", "tokens", "examples", "template"])
def test_texts_are_shown_only_on_request(layer: str) -> None:
    prompt = PROMPT.model_copy(update={"query": "{wrong}\n{question}", "example_count": 2})
    b = measure(Setup(prompt=prompt))
    assert A.texts is not None
    words = {word for row in A.texts for word in row["text"].split() if len(word) > 5}
    words -= {"<instruct>Name", "mistake."}
    lines = " ".join(diff.describe(layer, A, b, ARTIFACTS))
    assert lines
    assert not [word for word in words if word in lines]


def test_a_template_is_shown_by_its_characters_if_both_run_files_are_known() -> None:
    b = measure(Setup(prompt=PROMPT.model_copy(update={"query": "{question} {wrong}"})))
    lines = diff.describe("template", A, b, ARTIFACTS)
    assert lines == [
        "prompt.query differs",
        "character 10: A has <newline> (U+000A), B <space> (U+0020)",
        "A: {question}>><newline>{wrong}",
        "B: {question}>> {wrong}",
    ]
    records = EvidenceRecord(A.evidence), EvidenceRecord(b.evidence)
    lines = diff.describe("template", *records, ARTIFACTS)
    assert lines[0] == "prompt.query differs"
    assert lines[1].startswith("digests A ")


def test_a_package_is_shown_with_its_effect() -> None:
    b = measure(Setup(packages={**PACKAGES, "torch": "2.10.0", "pandas": "2.2.0"}))
    assert diff.describe("packages", A, b, ARTIFACTS) == [
        "torch: A 2.9.0, B 2.10.0 (its kernels can round differently)",
        "pandas: A 2.3.3, B 2.2.0 (does not affect embeddings)",
    ]


def test_the_source_of_this_project_is_a_package_too() -> None:
    """A shadowed wheel has the same version and other source."""
    environment = {**A.evidence.facts["environment"], "code": "f" * 64}
    facts = {**A.evidence.facts, "environment": environment}
    b = replace(A, evidence=replace(A.evidence, facts=facts))
    (line,) = diff.describe("packages", A, b, ARTIFACTS)
    assert line.startswith("this project's source: A ")
    assert line.endswith("B ffffffffffff (writes prompts, packs and ranks)")


def test_a_piece_of_the_vocabulary_is_hidden_if_it_is_text() -> None:
    b = measure(Setup(slow=True))
    artifacts = replace(ARTIFACTS, pieces={60: "word", 300: "▁<"})
    hidden = "its token 0: A 60 (a piece of text), B 300 '▁<'"
    assert hidden in diff.describe("tokens", A, b, artifacts)
    shown = "its token 0: A 60 'word', B 300 '▁<'"
    assert shown in diff.describe("tokens", A, b, replace(artifacts, with_text=True))
