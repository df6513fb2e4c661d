"""How a reproduced table looks in a terminal: published beside recomputed, verdicts in words."""

from __future__ import annotations

from functools import partial
from math import floor, log10
from typing import TYPE_CHECKING, Any

from rich.text import Text

from vlm_roofline.cli.tables import Column, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from costmodel.reproduce import Column as Published
    from costmodel.reproduce import Reproduction

#: Terminals narrower than this wrap the column, before any number is cut.
_WRAPS_BELOW = {"first": 104, "verdict": 96}
#: Verdict -> style. The word says it; the colour only repeats it.
_STYLES = {
    "same digits": "green",
    "within tolerance": "yellow",
    "differs": "bold red",
    "length solved": "dim",
    "possible": "green",
    "cannot be": "bold red",
}
_LEFT = ("paper", "convention", "method", "quantity", "part", "unit", "verdict", "grade", "counts")
_WHOLE = ("convention", "published", "recomputed", "relative_error", "stated", "corrected")


def tables_view(tables: Mapping[str, str]) -> RenderableType:
    """Return the list of tables."""
    shown = [Column("Table", 0, whole=True, style="bold"), Column("What it is", 1)]
    return table(tables.items(), shown)


def reproduction_view(result: Reproduction, width: int) -> list[RenderableType]:
    """Return the parts of a reproduced table for so many columns: heading, table, remarks, summary, notes."""
    found = {column.name: column for column in result.columns}
    names = [name for name in result.shown or found if name != "note"]
    remarks: dict[str, int] = {}
    shown = [
        Column(
            _heading(found[name]),
            partial(_cell, found[name], remarks),
            unit="" if name in _LEFT else "1",
            priority=int(found[name].wide),
            whole=name in _WHOLE
            or (name == names[0] and width >= _WRAPS_BELOW["first"])
            or (name == "verdict" and width >= _WRAPS_BELOW["verdict"]),
        )
        for name in names
    ]
    view = table(
        result.rows,
        shown,
        section=lambda row: " ".join(str(row[name]) for name in result.group_by),
        width=width,
    )
    parts: list[RenderableType] = [
        Text(result.title, style="bold"),
        Text(result.source, style="dim"),
        view,
    ]
    parts += [Text(f"[{number}] {remark}") for remark, number in remarks.items()]
    if any(row.get("gated") is False for row in result.rows):
        parts.append(Text("* shown for comparison: an input of this row is not in the paper"))
    parts.append(Text(f"\n{_count(result)}", style="bold"))
    parts += [Text(f"- {note}") for note in result.notes]
    return parts


def _heading(column: Published) -> str:
    told = column.unit in ("", "1") or column.unit in column.title.lower()
    return column.title if told else f"{column.title}\n{column.unit}"


def _cell(column: Published, remarks: dict[str, int], row: Mapping[str, Any]) -> Text:
    value = row[column.name]
    if column.name == "verdict":
        text = Text(str(value or "-"), style=_STYLES.get(value, ""))
        if row.get("gated") is False:
            text.append(" *")
        if row.get("note"):
            number = remarks.setdefault(row["note"], len(remarks) + 1)
            text.append(f" [{number}]")
        return text
    if value is None:
        return Text("-", style="dim")
    if column.name == "relative_error":
        percent = round(100 * value, 2)
        return Text(f"{percent:+.2f} %" if percent else "0.00 %")
    if column.name == "published":
        return Text(str(value), style="bold")
    if isinstance(value, float) and column.digits is not None:
        return Text(significant(value, column.digits))
    return Text(str(value))


def significant(value: float, digits: int) -> str:
    """Format a number with that many significant digits and no exponent.

    >>> significant(88.614218, 5), significant(0.2839168, 4), significant(151.6, 5)
    ('88.614', '0.2839', '151.60')
    """
    if value == 0:
        return "0"
    return f"{value:.{max(0, digits - 1 - floor(log10(abs(value))))}f}"


def _count(result: Reproduction) -> str:
    """Say how many rows got which verdict."""
    verdicts = [row["verdict"] for row in result.rows if row.get("verdict")]
    parts = [f"{verdicts.count(verdict)} {verdict}" for verdict in _STYLES if verdict in verdicts]
    return f"{len(verdicts)} published numbers: {', '.join(parts)}"
