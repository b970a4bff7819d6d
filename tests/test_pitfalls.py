"""The fault table matches the tests: every entry, every test name, every result."""

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
OUT_OF_SCOPE = {"F37"}
"""Entries on rerankers, which this project does not have."""
DEBUGGERS = {"breakpoint", "set_trace", "pdb", "ipdb", "pudb"}


def test_the_table_has_exactly_the_entries_of_the_list() -> None:
    assert tuple(ENTRIES) == NUMBERS
    assert {name for name, item in ENTRIES.items() if item.answer == "out of scope"} == OUT_OF_SCOPE


@pytest.mark.parametrize("name", [*ENTRIES, *FURTHER])
def test_the_tests_of_an_entry_exist(name: str) -> None:
    entry: Pitfall = {**ENTRIES, **FURTHER}[name]
    assert bool(entry.tests) == (name not in OUT_OF_SCOPE)
    for test_id in entry.tests:
        file, _, test = test_id.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
            test_id
        )


def test_each_planted_fault_has_an_entry_and_a_named_layer() -> None:
    faults = fault_table.plants()
    for fault in faults:
        assert set(fault.entries) <= {*ENTRIES, *FURTHER}, fault.name
        assert fault.layer not in ("same", "same within numeric noise"), fault.name
    assert len(faults) >= 50
    assert {fault.setting for fault in faults} == {"evidence", "run"}


def test_the_page_is_up_to_date() -> None:
    written = fault_table.PAGE.read_text(encoding="utf-8")
    assert written == fault_table.build_page(), "run: python tests/fault_table.py --write"


def test_the_printed_table_has_at_most_80_columns() -> None:
    assert max(map(len, fault_table.build_text().splitlines())) <= 80


def test_e31_the_code_has_no_breakpoint() -> None:
    for path in sorted((TESTS.parent / "src").rglob("*.py")):
        names = {
            getattr(node, "id", getattr(node, "attr", getattr(node, "module", None)))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        }
        assert not names & DEBUGGERS, path
