r"""A table as documents hold it: text, Markdown, LaTeX (booktabs), HTML; whatever stands in a cell is text.

>>> found = WrittenTable("sizes", ("name", "GB"), (("a_b", "1.0"), ("c", "2.5")))
>>> print(found.text())
sizes
name   GB
a_b   1.0
c     2.5
>>> print(found.markdown())
| name | GB |
|:---|---:|
| a\_b | 1.0 |
| c | 2.5 |
"""

from __future__ import annotations

import re
from html import escape
from typing import NamedTuple

from hardware_specs.showing import harmless, one_line

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
_NUMBER = re.compile(r"[-+]?[\d.,]*\d( ?\S{1,3})?( \([-\d.]+\))?|-|\?|")


class WrittenTable(NamedTuple):
    """A table of text.

    Attributes:
        title: what it shows.
        headings: of the columns.
        rows: cells by row.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def to_the_right(self) -> list[bool]:
        """Whether a column holds nothing but numbers."""
        return [
            all(_NUMBER.fullmatch(row[place]) for row in self.rows)
            for place in range(len(self.headings))
        ]

    def text(self) -> str:
        """Return it for a terminal or a log: its title, and columns in line."""
        lines = [self.headings, *(tuple(map(one_line, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        right = self.to_the_right
        shown = (
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in lines
        )
        return "\n".join([harmless(self.title), *shown])

    def markdown(self) -> str:
        """Return it as Markdown."""
        rule = ("---:" if right else ":---" for right in self.to_the_right)
        lines = [_markdown_row(self.headings), "|" + "|".join(rule) + "|"]
        return "\n".join(lines + [_markdown_row(row) for row in self.rows])

    def latex(self) -> str:
        """Return it as a LaTeX table, whose rules the package booktabs draws."""
        kinds = "".join("r" if right else "l" for right in self.to_the_right)
        body = [" & ".join(map(_latex_text, row)) + r" \\" for row in self.rows]
        head = " & ".join(map(_latex_text, self.headings)) + r" \\"
        return "\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{_latex_text(self.title)}}}",
            rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule",
            r"\end{tabular}", r"\end{table}",
        ])  # fmt: skip

    def html(self) -> str:
        """Return it as HTML, everything in it escaped."""
        right = [' style="text-align:right"' if each else "" for each in self.to_the_right]
        head = "".join(f"<th>{escape(name)}</th>" for name in self.headings)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{style}>{escape(harmless(cell))}</td>"
                for style, cell in zip(right, row, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        return (
            f"<table><caption>{escape(harmless(self.title))}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def _markdown_row(cells: tuple[str, ...]) -> str:
    said = (
        re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(harmless(cell).split())) for cell in cells
    )
    return f"| {' | '.join(said)} |"


def _latex_text(text: str) -> str:
    r"""Escape a text for LaTeX; an interval has an en dash.

    >>> print(_latex_text("0.50 (0.40-0.60) of llava-1.5-7b"))
    0.50 (0.40--0.60) of llava-1.5-7b
    """
    said = "".join(_LATEX.get(sign, sign) for sign in harmless(text))
    return re.sub(r"\(([\d.]+)-([\d.]+)\)", r"(\1--\2)", said)
