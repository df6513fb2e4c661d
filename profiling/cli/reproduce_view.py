"""How a reproduced table looks in a terminal: published beside recomputed, verdicts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from costmodel.reproduce import Column, Reproduction

#: Verdict -> style. The word says it; the colour only repeats it.
_STYLES = {
    "same digits": "green",
    "within tolerance": "yellow",
    "differs": "bold red",
    "length solved": "dim",
}
_LEFT = (
    "paper",
    "convention",
    "method",
    "quantity",
    "unit",
    "verdict",
    "grade",
    "counts",
    "vision",
)


def tables_view(tables: Mapping[str, str]) -> Table:
    """Return the list of tables."""
    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    view.add_column("Table", style="bold", no_wrap=True)
    view.add_column("What it is")
    for name, title in tables.items():
        view.add_row(name, title)
    return view


def reproduction_view(result: Reproduction) -> list[RenderableType]:
    """Return the parts of a reproduced table: heading, table, remarks, summary, notes.

    Args:
        result: the table.
    """
    parts: list[RenderableType] = [
        Text(result.title, style="bold"),
        Text(result.source, style="dim"),
    ]
    columns = {column.name: column for column in result.columns}
    shown = [columns[name] for name in result.shown or columns if name != "note"]
    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    if result.group_by:
        heading = " ".join(columns[name].title for name in result.group_by)
        view.add_column(heading, no_wrap=True)
    for column in shown:
        view.add_column(
            _heading(column),
            justify="left" if column.name in _LEFT else "right",
            no_wrap=column.name in ("convention", "published", "recomputed", "unit", "verdict"),
        )
    remarks: dict[str, int] = {}
    before: list[Any] | None = None
    for row in result.rows:
        group = [row[name] for name in result.group_by]
        if before is not None and group != before:
            view.add_section()
        leading = [Text(" ".join(map(str, group)) if group != before else "", style="bold")]
        before = group
        cells = [_cell(column, row, remarks) for column in shown]
        view.add_row(*(leading if result.group_by else []), *cells)
    parts.append(view)
    parts += [Text(f"[{number}] {remark}") for remark, number in remarks.items()]
    parts.append(Text(f"\n{_count(result)}", style="bold"))
    parts += [Text(f"- {note}") for note in result.notes]
    return parts


def _heading(column: Column) -> str:
    told = column.unit in ("", "1") or column.unit in column.title.lower()
    return column.title if told else f"{column.title}\n{column.unit}"


def _cell(column: Column, row: Mapping[str, Any], remarks: dict[str, int]) -> Text:
    value = row[column.name]
    if column.name == "verdict":
        text = Text(str(value or "-"), style=_STYLES.get(value, ""))
        if row.get("gated") is False:
            text.append(" (shown only)", style="dim")
        if row.get("note"):
            number = remarks.setdefault(row["note"], len(remarks) + 1)
            text.append(f" [{number}]")
        return text
    if value is None:
        return Text("-", style="dim")
    if column.name == "relative_error":
        return Text(f"{100 * value:+.2f} %")
    if column.name == "published":
        return Text(str(value), style="bold")
    if isinstance(value, float) and column.digits is not None:
        return Text(_significant(value, column.digits))
    return Text(str(value))


def _significant(value: float, digits: int) -> str:
    """Format a number with that many significant digits and no exponent.

    >>> _significant(88.614218, 5), _significant(0.2839168, 4), _significant(151.6, 5)
    ('88.614', '0.2839', '151.60')
    """
    from math import floor, log10

    if value == 0:
        return "0"
    return f"{value:.{max(0, digits - 1 - floor(log10(abs(value))))}f}"


def _count(result: Reproduction) -> str:
    """Say how many rows got which verdict."""
    verdicts = [row["verdict"] for row in result.rows if row.get("verdict")]
    parts = [f"{verdicts.count(verdict)} {verdict}" for verdict in _STYLES if verdict in verdicts]
    return f"{len(verdicts)} published numbers: {', '.join(parts)}"
