"""Small pieces of HTML that escape everything they are given."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: No remote script, picture or style sheet may load, whatever a name in the data may contain.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, body: Iterable[str], *, style: str = "", script: str = "") -> str:
    """Return a self-contained HTML document: a title in plain text over pieces of HTML.

    Args:
        title: plain text.
        body: pieces of HTML.
        style: rules beside the common style sheet.
        script: the one script that the page's policy lets run.
    """
    policy, code = f"{_POLICY}; base-uri 'none'; form-action 'none'", ""
    if script:
        script = f'"use strict";\n{script}'
        allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{allowed}'"
        code = f"<script>{script}</script>\n"
    look = files("profiling.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{look}{style}</style></head>\n<body>\n"
        + "\n".join(body)
        + f"\n{code}</body></html>\n"
    )


def held_data(identifier: str, kind: str, text: str) -> str:
    r"""Return data inside the page that a script reads and nothing runs.

    Args:
        identifier: by which the script finds it.
        kind: its media type; none that a browser runs.
        text: JSON or plain text; a `<` in it is written so that no tag can begin.

    >>> held_data("a", "application/json", '["</script>"]')
    '<script type="application/json" id="a">["\\u003c/script>"]</script>'
    """
    safe = text.replace("<", "\\u003c")
    return f'<script type="{escape(kind)}" id="{escape(identifier)}">{safe}</script>'


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
