"""The fault table says what the tests show: every entry, every test by its name, every verdict."""

import ast
from pathlib import Path

import fault_table
import pytest
from pitfalls import ENTRIES, FURTHER, Pitfall

TESTS = Path(__file__).parent
NUMBERS = (
    *(f"A{n}" for n in range(1, 6)),
    *(f"B{n}" for n in range(6, 13)),
    *(f"C{n}" for n in range(13, 21)),
    *(f"D{n}" for n in range(21, 28)),
    *(f"E{n}" for n in range(28, 32)),
    *(f"F{n}" for n in range(32, 38)),
    *(f"G{n}" for n in range(38, 40)),
)
OUT = {"F37"}
"""Of rerankers, which this project has none of."""
STOPS = {"breakpoint", "set_trace", "pdb", "ipdb", "pudb"}


def test_every_entry_of_the_list_has_its_row_and_no_other_has() -> None:
    assert tuple(ENTRIES) == NUMBERS
    assert {name for name, one in ENTRIES.items() if one.answer == "out of scope"} == OUT


@pytest.mark.parametrize("name", [*ENTRIES, *FURTHER])
def test_the_tests_that_an_entry_names_are_there(name: str) -> None:
    entry: Pitfall = {**ENTRIES, **FURTHER}[name]
    assert bool(entry.tests) == (name not in OUT)
    for one in entry.tests:
        file, _, test = one.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert test in {it.name for it in tree.body if isinstance(it, ast.FunctionDef)}, one


def test_every_planted_fault_is_of_an_entry_and_its_layer_is_named() -> None:
    found = fault_table.plants()
    for one in found:
        assert set(one.entries) <= {*ENTRIES, *FURTHER}, one.name
        assert one.layer not in ("same", "same within numeric noise"), one.name
    assert len(found) >= 50
    assert {one.where for one in found} == {"evidence", "run"}


def test_the_page_is_the_one_that_the_table_makes() -> None:
    written = fault_table.PAGE.read_text(encoding="utf-8")
    assert written == fault_table.page(), "run: python tests/fault_table.py --write"


def test_a_terminal_has_80_columns() -> None:
    assert max(map(len, fault_table.text().splitlines())) <= 80


def test_e31_no_breakpoint_is_left_in_the_code() -> None:
    for path in sorted((TESTS.parent / "src").rglob("*.py")):
        names = {
            getattr(node, "id", getattr(node, "attr", getattr(node, "module", None)))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        }
        assert not names & STOPS, path
