"""A page of sections → one self-contained HTML file, or the same as Markdown for a pull request.

The two say the same: whatever a picture shows stands in a table beside it, and Markdown has the
table. Markdown never holds text of the competition.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import jinja2

_TEMPLATE = "report.html.j2"
_NUMBER = re.compile(r"[-+]?[\d.,]+( %| GiB| s)?([ -][-+\d.]+)?")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the first cell of a row names it.

    Attributes:
        caption: what the table shows.
        head: title of each column.
        rows: cells, as many as `head` in each row.
        marks: for each row a class of the style sheet (`equal`, `near`, `differs`, `unknown`,
            `first`, `right`), empty for none; the cells say the same in words.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing whose numbers stand in a table beside it.

    Attributes:
        title: what it shows, under it.
        svg: an `<svg>` element with a title and a description of its own.
    """

    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Fold:
    """Something opened by whoever wants it.

    Attributes:
        summary: the line that stays.
        lines: paragraphs; of the HTML alone where they are private.
        table: what is shown under them.
        private: whether lines and table hold text of the competition, which Markdown leaves out.
    """

    summary: str
    lines: tuple[str, ...]
    table: Table
    private: Table | None = None


Block = Table | Picture | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it.

    Attributes:
        name: the anchor, unique in a page.
        title: the heading.
        lines: paragraphs.
        blocks: tables, pictures and folds, in order.
    """

    name: str
    title: str
    lines: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A report.

    Attributes:
        title: the run's name.
        lines: paragraphs under it.
        sections: in order.
        with_text: whether it holds text of the competition; the page then says so.
    """

    title: str
    lines: tuple[str, ...]
    sections: tuple[Section, ...]
    with_text: bool = False


def html(page: Page) -> str:
    """Return the page as one file: no script, no request, readable on paper and on a phone."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["numeric"] = _numeric
    source = (
        resources.files("parity.analysis.report").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    )
    return environment.from_string(source).render(page=page)


def markdown(page: Page) -> str:
    """Return the page as Markdown: tables instead of pictures, no text of the competition."""
    lines = [f"# {_plain(page.title)}", ""]
    lines += _paragraphs(page.lines)
    for section in page.sections:
        lines += [f"## {_plain(section.title)}", "", *_paragraphs(section.lines)]
        for block in section.blocks:
            lines += _block(block)
    return "\n".join(lines).rstrip("\n") + "\n"


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Fold):
        yield from (f"<details><summary>{_plain(block.summary)}</summary>", "")
        yield from (*_paragraphs(() if block.private else block.lines), *_table(block.table))
        yield from ("</details>", "")


def _table(table: Table) -> list[str]:
    sides = ["---", *("--:" if _numeric(table, n) else "---" for n in range(1, len(table.head)))]
    rows = [table.head, *table.rows]
    told = [f"| {' | '.join(map(_plain, row))} |" for row in rows]
    return [f"{_plain(table.caption)}:", "", told[0], f"| {' | '.join(sides)} |", *told[1:], ""]


def _numeric(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column]]
    return bool(cells) and all(_NUMBER.fullmatch(cell) or cell == "-" for cell in cells)


def _paragraphs(lines: tuple[str, ...]) -> list[str]:
    return [part for line in lines for part in (_plain(line), "")]


def _plain(text: str) -> str:
    """Return text that is one line and no markup."""
    one = " ".join(text.split())
    return one.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
