"""Build `docs/pitfalls.md`: each fault behind a gap between CV and LB, planted, with its result.

`python tests/fault_table.py` prints the table in 80 columns, with `--write` it writes the page.
test_pitfalls.py checks each row.
"""

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from analysis.compare import test_conclusion as evidence
from analysis.records import measure
from pipeline import test_honest as honest
from pipeline import test_planted as planted
from pipeline import test_planted_prompts as prompts
from pitfalls import ENTRIES, FURTHER, Pitfall

from parity.analysis.compare import conclusion
from parity.run import files

PAGE = Path(__file__).parents[1] / "docs" / "pitfalls.md"
HEAD = """\
# Faults behind a gap between CV and LB

Made by `python tests/fault_table.py --write`; each row is a test. The faults come from the first
log of this competition, numbered as in the list of pitfalls. The column *result* has what the tool
does. **refused**: the command stops with an error. **cannot happen**: the tool does not offer a way
to do it. **reported**: it is not a fault of one run, and it is printed where it matters. **layer**:
the first layer that `inv reconcile` names, from the evidence alone, when the fault is planted in
one of two otherwise equal runs.

"""
MIDDLE = """
## Planted fault → first layer

*evidence*: planted in the measurements of a toy encoder, then compared by the code that compares
runs. *run*: planted in real stages with a tiny model. A difference in a later layer is reported as
a consequence, not as a second fault.

| planted | in | first layer named | part of the message |
| --- | --- | --- | --- |
"""


ENTRY = {
    "answers shown": "B9",
    "another k as 25": "B12",
    "backslash-n in the text": "C14",
    "examples re-drawn": "C16",
    "a stale list of few-shot examples": "C17",
    "first token by another library": "C19",
    "names for ids": "F34",
    "another torch that drifts": "image package drift",
    "a shadowed wheel": "wheel shadowing",
}
"""Fault of pipeline/test_planted_prompts.py → number or name of its entry."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A planted fault and its result.

    Attributes:
        name: fault, with the number of its entry if there is one.
        setting: evidence or run.
        layer: first layer that is named.
        words: part of the layer's message.
    """

    name: str
    setting: str
    layer: str
    words: str

    @property
    def entries(self) -> list[str]:
        """Return numbers of the list, or the name of a further fault."""
        return re.findall(r"\b[A-H][0-9]+\b", self.name) or [ENTRY.get(self.name, self.name)]


def plants() -> list[Plant]:
    """Return each planted fault with the layer that the code names.

    Faults planted in runs come from the table of their tests, since each needs a run.
    """
    planted_faults = []
    for name, (change, _, words) in evidence.FAULTS.items():
        b = measure(replace(evidence.HONEST, **change))
        result = conclusion.conclude(evidence.A, b, evidence.EPOCHS)
        planted_faults.append(Plant(name, "evidence", result.layer or result.result, words))
    run_faults = [(name, layer, words) for name, (_, _, layer, words) in planted.FAULTS.items()]
    run_faults += [(name, layer, words) for name, (_, layer, words) in prompts.PLANTED.items()]
    return planted_faults + [Plant(name, "run", layer, words) for name, layer, words in run_faults]


def layers_of(entry: str, planted_faults: list[Plant]) -> list[str]:
    """Return the layers named for an entry, without repetition."""
    return list(dict.fromkeys(item.layer for item in planted_faults if entry in item.entries))


def rows(planted_faults: list[Plant]) -> Iterator[tuple[str, Pitfall, str]]:
    """Yield number, entry and the tool's result."""
    for number, entry in (*ENTRIES.items(), *FURTHER.items()):
        layers = layers_of(number, planted_faults)
        layer = f"layer {', '.join(layers)}" if layers else ""
        yield number, entry, "; ".join(filter(None, (entry.answer, layer)))


def build_page() -> str:
    """Return the page."""
    planted_faults = plants()
    lines = ["| entry | what went wrong | result | test |", "| --- | --- | --- | --- |"]
    for number, entry, result in rows(planted_faults):
        number = number if number in ENTRIES else "further"
        tests = ", ".join(f"`{test}`" for test in entry.tests) or "-"
        lines.append(f"| {number} | {entry.summary} | {result} | {tests} |")
    table = [
        f"| {item.name} | {item.setting} | {item.layer} | {item.words} |" for item in planted_faults
    ]
    real, simulated = len(honest.PAIRS) + len(honest.HASH_SEEDS) + 1, len(evidence.HONEST_PAIRS)
    end = (
        f"\n## Pairs without a fault\n\n{real} real pairs of one adapter "
        "(`pipeline/test_honest.py`: bootstrap seeds, hash seeds, token budgets,\nthreads, one and "
        "two processes, fp32 and bf16, dense and blockwise attention) and "
        f"{simulated} simulated\npairs, with GPUs and other libraries: no layer is named, and the "
        "result is *same* or *same within\nnumeric noise*.\n"
    )
    return HEAD + "\n".join(lines) + "\n" + MIDDLE + "\n".join(table) + "\n" + end


def build_text() -> str:
    """Return both tables for a terminal of 80 columns."""
    planted_faults = plants()
    lines = [f"{'planted':<38}{'in':<10}first layer named"]
    lines += [f"{item.name[:37]:<38}{item.setting:<10}{item.layer}" for item in planted_faults]
    lines += ["", f"{'entry':<8}{'what went wrong':<52}result"]
    for number, entry, _ in rows(planted_faults):
        number = number if number in ENTRIES else ""
        summary = textwrap.shorten(entry.summary, 50, placeholder=" ...")
        lines.append(f"{number:<8}{summary:<52}{entry.answer}")
    return "\n".join(lines)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        files.write_text(PAGE, build_page())
    sys.stdout.write(f"{build_text()}\n")
