"""Small pieces of HTML that escape everything they are given."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: One style sheet, inside the page: nothing is fetched. Widths follow the window, prints well.
STYLE_SHEET = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #111; background: #fff; margin: 0 auto;
  max-width: 76rem; padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 1rem 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem;
  border-bottom: 2px solid #0072b2; padding-bottom: .2rem; }
p.lead { color: #444; margin: .2rem 0 1rem; } p.note, figcaption { color: #444; font-size: .87rem; }
table { border-collapse: collapse; font-size: .87rem; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; }
td.words, th.words { text-align: left; } td.long { white-space: normal; text-align: left; }
div.wide { overflow-x: auto; }
ul.flags li { margin: .2rem 0; } .bad { color: #a33b00; font-weight: 600; } .ok { color: #00664a; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; } dt { color: #555; }
dd { margin: 0; }
@media print { body { max-width: none; font-size: 11px; } h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; } div.wide { overflow: visible; } }
"""

#: No script, no remote picture or style sheet may load, whatever a name in the data may contain.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, body: Iterable[str]) -> str:
    """Return a self-contained HTML document: a title in plain text over pieces of HTML."""
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE_SHEET}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def tag(name: str, text: object, css: str = "") -> str:
    """Return an element around plain text.

    >>> tag("p", "<script>alert(1)</script>")
    '<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>'
    """
    attribute = f' class="{escape(css)}"' if css else ""
    return f"<{name}{attribute}>{escape(str(text))}</{name}>"


def section(identifier: str, title: str, *pieces: str) -> str:
    """Return a section of HTML pieces with a heading that can be linked to by its identifier."""
    head = f'<h2 id="{escape(identifier)}">{escape(title)}</h2>'
    return "<section>" + "\n".join((head, *pieces)) + "</section>"


def table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, words: Sequence[int] = (0,)
) -> str:
    """Return a table; cells are plain text, None is an empty one. Columns of `words` are set to the left."""
    left = set(words)

    def cell(name: str, index: int, value: object) -> str:
        text = "" if value is None else str(value)
        css = ("long" if len(text) > 60 else "words") if index in left else ""
        return tag(name, text, css)

    head = "".join(cell("th", index, heading) for index, heading in enumerate(headings))
    body = "\n".join(
        "<tr>" + "".join(cell("td", index, value) for index, value in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def definitions(pairs: Iterable[tuple[str, object]]) -> str:
    """Return a list of terms with their definitions.

    >>> definitions([("device", "A & B")])
    '<dl><dt>device</dt><dd>A &amp; B</dd></dl>'
    """
    return "<dl>" + "".join(tag("dt", term) + tag("dd", what) for term, what in pairs) + "</dl>"


def items(texts: Iterable[str], css: str = "") -> str:
    """Return a list of sentences in plain text."""
    attribute = f' class="{escape(css)}"' if css else ""
    return f"<ul{attribute}>" + "".join(tag("li", text) for text in texts) + "</ul>"


def picture(svg: bytes, alternative: str, caption: str) -> str:
    """Return an SVG inside the page, as an image: scripts in it would not run, ids cannot clash.

    `alternative` says what it shows to a reader who cannot see it; the caption is the line below.
    """
    data = base64.b64encode(svg).decode("ascii")
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{escape(alternative)}">'
        f"{tag('figcaption', caption)}</figure>"
    )


def number(value: Any, form: str = ".3g", missing: str = "–") -> str:
    """Format a number, or say that there is none.

    >>> number(0.12345, ".1%"), number(None)
    ('12.3%', '–')
    """
    return missing if value is None else format(value, form)
