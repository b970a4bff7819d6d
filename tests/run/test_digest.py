"""Equal values have equal bytes, and no two lists of texts meet in one digest."""

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
    """Return an equal value whose keys come in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(list(value))}
    return [turned(one) for one in value] if isinstance(value, list) else value


@given(values)
def test_canonical_json_comes_back_and_stays(value: Any) -> None:
    text = digest.canonical(value)
    assert json.loads(text) == value
    assert digest.canonical(json.loads(text)) == text
    assert "\n" not in text


@given(values)
def test_the_order_of_keys_changes_nothing(value: Any) -> None:
    assert digest.canonical(turned(value)) == digest.canonical(value)
    assert digest.of_value(turned(value)) == digest.of_value(value)


@given(values, values)
def test_other_values_have_other_digests(one: Any, other: Any) -> None:
    same = digest.canonical(one) == digest.canonical(other)
    assert (digest.of_value(one) == digest.of_value(other)) == same


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x"])
def test_what_json_does_not_have_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        digest.canonical(value)


def test_signs_beyond_ascii_stay_as_they_are() -> None:
    assert digest.canonical({"é": "×\u2028"}) == '{"é":"×\u2028"}'


@pytest.mark.parametrize(
    ("one", "other"),
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
def test_where_a_list_is_cut_shows_in_its_digest(one: list[str], other: list[str]) -> None:
    assert digest.of_lines(one) != digest.of_lines(other)


@given(st.lists(texts), st.lists(texts))
def test_lists_that_differ_have_other_digests(one: list[str], other: list[str]) -> None:
    assert (digest.of_lines(one) == digest.of_lines(other)) == (one == other)
    assert digest.of_lines(iter(one)) == digest.of_lines(one)


@given(texts, st.integers(0, 9))
def test_a_text_cut_in_two_has_another_digest(text: str, place: int) -> None:
    assert digest.of_lines([text[:place], text[place:]]) != digest.of_lines([text])


def test_a_file_longer_than_one_chunk_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # 2.2 MiB
    (tmp_path / "x").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert digest.of_file(tmp_path / "x") == digest.of_bytes(data) == expected


def test_a_folder_is_its_files_by_relative_name(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a.txt").write_text("é", encoding="utf-8")
    (tmp_path / "b" / "c" / "d.txt").write_text("", encoding="utf-8")
    found = digest.of_tree(tmp_path)
    assert found == {"a.txt": digest.of_text("é"), "b/c/d.txt": digest.of_text("")}
    assert list(digest.of_tree(tmp_path, ["b/c/d.txt"])) == ["b/c/d.txt"]


def test_a_named_file_that_is_missing_is_no_digest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest.of_tree(tmp_path, ["a.txt"])
