"""Equal values have equal digests, and different lists of texts never collide."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.run import digest

texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers
values = st.recursive(
    scalars | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=12
)


def turned(value: Any) -> Any:
    """Return an equal value with its keys in reverse order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(list(value))}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_canonical_json_is_read_back_and_stable(value: Any) -> None:
    text = digest.canonical(value)
    assert json.loads(text) == value
    assert digest.canonical(json.loads(text)) == text
    assert "\n" not in text


@given(values)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert digest.canonical(turned(value)) == digest.canonical(value)
    assert digest.of_value(turned(value)) == digest.of_value(value)


@given(values, values)
def test_digests_are_equal_exactly_if_values_are(a: Any, b: Any) -> None:
    is_equal = digest.canonical(a) == digest.canonical(b)
    assert (digest.of_value(a) == digest.of_value(b)) == is_equal


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x"])
def test_a_value_outside_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        digest.canonical(value)


def test_characters_beyond_ascii_are_not_escaped() -> None:
    assert digest.canonical({"é": "×\u2028"}) == '{"é":"×\u2028"}'


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["abc"], ["a", "b", "c"]),
        ([], [""]),
        ([""], ["", ""]),
        (["a\nb"], ["a", "b"]),
        (["a", ""], ["", "a"]),
        (["\0"], ["", ""]),
    ],
)
def test_moving_a_text_between_lists_changes_the_digest(a: list[str], b: list[str]) -> None:
    assert digest.of_lines(a) != digest.of_lines(b)


@given(st.lists(texts), st.lists(texts))
def test_different_lists_have_different_digests(a: list[str], b: list[str]) -> None:
    assert (digest.of_lines(a) == digest.of_lines(b)) == (a == b)
    assert digest.of_lines(iter(a)) == digest.of_lines(a)


@given(texts, st.integers(0, 9))
def test_a_text_cut_in_two_has_another_digest(text: str, index: int) -> None:
    assert digest.of_lines([text[:index], text[index:]]) != digest.of_lines([text])


def test_a_file_longer_than_one_chunk_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # 2.2 MiB
    (tmp_path / "x").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert digest.of_file(tmp_path / "x") == digest.of_bytes(data) == expected


def test_a_folder_has_a_digest_for_each_relative_path(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a.txt").write_text("é", encoding="utf-8")
    (tmp_path / "b" / "c" / "d.txt").write_text("", encoding="utf-8")
    digests = digest.of_tree(tmp_path)
    assert digests == {"a.txt": digest.of_text("é"), "b/c/d.txt": digest.of_text("")}
    assert list(digest.of_tree(tmp_path, ["b/c/d.txt"])) == ["b/c/d.txt"]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest.of_tree(tmp_path, ["a.txt"])
