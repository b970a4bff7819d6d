"""Pages as HTML and as Markdown: equal content, escaped text, and no requests."""

import re
from html.parser import HTMLParser

from parity.analysis.report.html import Fold, Page, Picture, ReportSection, Table, html, markdown

TABLE = Table(
    "What <was> measured", ("layer", "value"), (("a|b", "0.5"), ("<i>", "-")), ("first", "")
)
SECRET = Table("What <was> measured", ("layer", "value", "text"), (("a", "1", "a secret & more"),))
SVG = '<svg role="img"><title>drawn</title></svg>'
PAGE = Page(
    "run <one>",
    ("of a | competition",),
    (
        ReportSection("first", "First & best", ("a line",), (Picture("drawn", SVG), TABLE)),
        ReportSection("second", "Second", (), (Fold("row 1", ("a private line",), TABLE, SECRET),)),
    ),
    with_text=True,
)
MARKDOWN = """\
# run &lt;one>

of a \\| competition

## First &amp; best

a line

What &lt;was> measured:

| layer | value |
| --- | --: |
| a\\|b | 0.5 |
| &lt;i> | - |

## Second

<details><summary>row 1</summary>

What &lt;was> measured:

| layer | value |
| --- | --: |
| a\\|b | 0.5 |
| &lt;i> | - |

</details>
"""
VOID = {"meta", "link", "br"}


class Outline(HTMLParser):
    """Elements of a page, checked to be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_markdown_has_tables_without_pictures_and_private_text() -> None:
    assert markdown(PAGE) == MARKDOWN


def test_html_has_landmarks_a_skip_link_and_headings_in_order() -> None:
    outline = Outline(html(PAGE))
    assert [len(outline.of(tag)) for tag in ("header", "nav", "main", "footer")] == [1] * 4
    headings = [tag for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert headings == ["h1", "h2", "h2"]
    links = [link["href"] for link in outline.of("a")]
    assert links == ["#main", "#first", "#second", "#main"]
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)
    assert outline.of("html")[0]["lang"] == "en"


def test_html_tables_have_captions_scopes_and_focusable_boxes() -> None:
    outline = Outline(html(PAGE))
    tables = len(outline.of("table"))
    assert tables == len(outline.of("caption")) == 2
    assert all(cell["scope"] in ("row", "col") for cell in outline.of("th"))
    boxes = [box for box in outline.of("div") if box.get("class") == "box"]
    assert len(boxes) == tables
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


def test_html_escapes_text() -> None:
    text = html(PAGE)
    assert "What &lt;was&gt; measured" in text
    assert "<i>" not in text
    assert SVG in text


def test_html_shows_private_text_under_a_warning_and_only_there() -> None:
    text = html(PAGE)
    assert "a secret &amp; more" in text
    assert "a private line" in text
    assert "do not share" in text
    plain = Page(PAGE.title, PAGE.lines, PAGE.sections[:1])
    assert "do not share" not in html(plain)


def test_html_makes_no_request_and_runs_no_script() -> None:
    outline = Outline(html(PAGE))
    assert outline.of("script") == []
    links = [item.get("src", item.get("href", "#")) for _, item in outline.elements]
    assert {link for link in links if not link.startswith("#")} == {"data:,"}
    assert not [key for _, item in outline.elements for key in item if key.startswith("on")]
    assert re.search(r"@import|url\(|http:|https:", html(PAGE)) is None


def luminance(color: str) -> float:
    digits = color * 2 if len(color) == 3 else color
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_color_has_enough_contrast() -> None:
    """WCAG 2.1, 1.4.3: contrast of at least 4.5, in the light, the dark and the printed palette."""
    palettes = re.findall(r":root \{(.*?)\}", html(PAGE), re.DOTALL)
    assert len(palettes) == 3
    for palette in palettes:
        colors = dict(re.findall(r"--(\w+): #([0-9a-f]+);", palette))
        assert set(colors) >= {"ink", "link", "equal", "near", "differs", "unknown"}
        for paper in ("paper", "soft"):
            for ink in ("ink", "link", "equal", "near", "differs", "unknown"):
                light, dark = sorted(map(luminance, (colors[paper], colors[ink])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (paper, ink)
