"""`docs/pitfalls.md`: each fault that made CV and LB disagree, planted, and the verdict.

`python tests/fault_table.py` prints it in 80 columns, with `--write` it writes the page anew;
test_pitfalls.py proves every row.
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
# What made CV and LB disagree, planted

Made by `python tests/fault_table.py --write`; every row is a test. The faults are those of the
first log of this competition, by their numbers in the list of pitfalls. *Here* says what the tool
does: it **refuses** (the command stops and says why), it **cannot happen** (there is no way to do
it), it is **told** where it matters, and, where the fault can be planted in a run that is compared
with an honest one, which **layer** `inv reconcile` names first: from the evidence alone, and
nothing else beside it.

"""
MIDDLE = """
## Planted → verdict

*evidence*: planted where it arises in a measurement of a toy encoder, judged by the code that
judges runs; *run*: planted in stages that really ran, by a tiny model. A difference in a later
layer is called a consequence, never a fault of its own.

| planted | in | first layer named | in its own words |
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
"""Fault of pipeline/test_planted_prompts.py → its entry."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A fault that was planted, and what came of it.

    Attributes:
        name: with the number of its entry, if it has one.
        where: evidence or run.
        layer: named first.
        words: that the layer's lines hold.
    """

    name: str
    where: str
    layer: str
    words: str

    @property
    def entries(self) -> list[str]:
        """Numbers of the list, or the name of a further fault."""
        return re.findall(r"\b[A-H][0-9]+\b", self.name) or [ENTRY.get(self.name, self.name)]


def plants() -> list[Plant]:
    """Return every planted fault with the layer that the code names now.

    What was planted in runs is told from the test that proves it: each takes a run.
    """
    found = []
    for name, (change, _, words) in evidence.FAULTS.items():
        b = measure(replace(evidence.HONEST, **change))
        judged = conclusion.conclude(evidence.A, b, evidence.EPOCHS)
        found.append(Plant(name, "evidence", judged.layer or judged.said, words))
    ran = [(name, layer, words) for name, (_, _, layer, words) in planted.NAMED.items()]
    ran += [(name, layer, words) for name, (_, layer, words) in prompts.PLANTED.items()]
    return found + [Plant(name, "run", layer, words) for name, layer, words in ran]


def layers_of(entry: str, all_: list[Plant]) -> list[str]:
    """Return the layers that are named for an entry, each once."""
    return list(dict.fromkeys(one.layer for one in all_ if entry in one.entries))


def rows(all_: list[Plant]) -> Iterator[tuple[str, Pitfall, str]]:
    """Yield number, entry and what the tool does about it."""
    for number, entry in (*ENTRIES.items(), *FURTHER.items()):
        layers = layers_of(number, all_)
        named = f"layer {', '.join(layers)}" if layers else ""
        yield number, entry, "; ".join(filter(None, (entry.answer, named)))


def page() -> str:
    """Return the page."""
    all_ = plants()
    lines = ["| entry | what went wrong | here | shown by |", "| --- | --- | --- | --- |"]
    for number, entry, here in rows(all_):
        number = number if number in ENTRIES else "further"
        shown = ", ".join(f"`{test}`" for test in entry.tests) or "-"
        lines.append(f"| {number} | {entry.says} | {here} | {shown} |")
    table = [f"| {one.name} | {one.where} | {one.layer} | {one.words} |" for one in all_]
    real, simulated = len(honest.PAIRS) + len(honest.SEEDED) + 1, len(evidence.HONEST_PAIRS)
    end = (
        f"\n## Honest pairs\n\n{real} pairs of one adapter that really ran "
        "(`pipeline/test_honest.py`: bootstrap seeds,\nhash seeds, token budgets, threads, one and "
        "two processes, fp32 and bf16, dense and blockwise\nattention) and "
        f"{simulated} simulated ones, with GPUs and other libraries among them: no layer is named, "
        "each is\n*same* or *same within numeric noise*.\n"
    )
    return HEAD + "\n".join(lines) + "\n" + MIDDLE + "\n".join(table) + "\n" + end


def text() -> str:
    """Return planted → verdict for a terminal of 80 columns."""
    all_ = plants()
    lines = [f"{'planted':<38}{'in':<10}first layer named"]
    lines += [f"{one.name[:37]:<38}{one.where:<10}{one.layer}" for one in all_]
    lines += ["", f"{'entry':<8}{'what went wrong':<52}here"]
    for number, entry, _ in rows(all_):
        number = number if number in ENTRIES else ""
        says = textwrap.shorten(entry.says, 50, placeholder=" ...")
        lines.append(f"{number:<8}{says:<52}{entry.answer}")
    return "\n".join(lines)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        files.write_text(PAGE, page())
    sys.stdout.write(f"{text()}\n")
