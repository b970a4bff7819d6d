"""Render a page of sections as one self-contained HTML file, or as Markdown for a pull request.

Both have the same content: the numbers of each picture are also in a table, and Markdown has the
table. Markdown never contains text of the competition.
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
        caption: caption of the table.
        head: title of each column.
        rows: cells of each row, as many as in `head`.
        marks: CSS class of each row (`equal`, `near`, `differs`, `unknown`, `first`, `right`),
            empty for none; the cells say the same in words.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing whose numbers are in the table that follows.

    Attributes:
        title: caption under the drawing.
        svg: an `<svg>` element with a title and a description.
    """

    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Fold:
    """A collapsible block.

    Attributes:
        summary: line that is always visible.
        lines: paragraphs; HTML only where there is a private table.
        table: table below them.
        private: table with text of the competition, which HTML shows in place of `table`; None
            where there is no such text.
    """

    summary: str
    lines: tuple[str, ...]
    table: Table
    private: Table | None = None


Block = Table | Picture | Fold


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A heading with paragraphs and blocks.

    Attributes:
        name: anchor, unique in a page.
        title: heading.
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
        title: name of the run.
        lines: paragraphs below the title.
        sections: sections, in order.
        with_text: True where it contains text of the competition; the page then says so.
    """

    title: str
    lines: tuple[str, ...]
    sections: tuple[ReportSection, ...]
    with_text: bool = False


def html(page: Page) -> str:
    """Return the page as one HTML file without scripts or requests, for screen, phone and print."""
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
    columns = range(1, len(table.head))
    alignment = ["---", *("--:" if _numeric(table, column) else "---" for column in columns)]
    rows = [table.head, *table.rows]
    head, *body = [f"| {' | '.join(map(_plain, row))} |" for row in rows]
    return [f"{_plain(table.caption)}:", "", head, f"| {' | '.join(alignment)} |", *body, ""]


def _numeric(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column]]
    return bool(cells) and all(_NUMBER.fullmatch(cell) or cell == "-" for cell in cells)


def _paragraphs(lines: tuple[str, ...]) -> list[str]:
    return [part for line in lines for part in (_plain(line), "")]


def _plain(text: str) -> str:
    """Return text as one line with markup escaped."""
    line = " ".join(text.split())
    return line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
