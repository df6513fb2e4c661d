"""The one builder of tables for people: rows, and columns that say what of a row they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from vlm_roofline.cli.console import console
from vlm_roofline.cli.units import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Terminals of fewer characters leave out the columns whose priority is above 0.
WIDE = 110


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        heading: what stands above it.
        value: the key or attribute of a row that it shows, or a function of the row.
        unit: how numbers are written, see `vlm_roofline.cli.units.FORMATS`. A column without one
            holds words and stands to the left.
        priority: 0 is always shown, 1 only where there is room.
        whole: never wrap a cell; None wraps words and no numbers.
        style: the style of every cell.
    """

    heading: str
    value: str | Callable[[Any], Any]
    unit: str = ""
    priority: int = 0
    whole: bool | None = None
    style: str = ""

    def of(self, row: Any) -> Any:
        """Return the cell of a row, as text or rich `Text`."""
        if callable(self.value):
            value = self.value(row)
        else:
            value = row[self.value] if isinstance(row, dict) else getattr(row, self.value)
        found = show(value, self.unit)
        return found if isinstance(found, Text) else str(found)


def columns(unit: str = "", **values: str | Callable[[Any], Any]) -> list[Column]:
    """Return several columns of one unit: heading (`_` for a space) = value.

    >>> [column.heading for column in columns("s", time="time_s", low_end="time_low_s")]
    ['time', 'low end']
    """
    return [Column(name.replace("_", " "), value, unit) for name, value in values.items()]


def table(
    rows: Iterable[Any],
    shown: Sequence[Column],
    *,
    title: str | None = None,
    style: Callable[[Any], str | None] | None = None,
    section: Callable[[Any], str] | None = None,
    width: int | None = None,
) -> Table:
    """Return a table.

    Args:
        rows: dictionaries or objects.
        shown: the columns, from left to right.
        title: the line above the table.
        style: returns the style of a row's cells.
        section: the group of a row; a new group begins with its name on a line of its own.
        width: characters of the terminal; None asks the console.

    >>> found = table([{"a": 1, "b": None}], [Column("A", "a", "1"), Column("B", "b", "s")])
    >>> found.row_count, [list(column.cells) for column in found.columns]
    (1, [['1'], ['-']])
    """
    narrow = (width or console().width) < WIDE
    shown = [column for column in shown if not (narrow and column.priority)]
    view = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=narrow,
        show_header=any(column.heading for column in shown),
    )
    for column in shown:
        whole = bool(column.unit) if column.whole is None else column.whole
        view.add_column(
            column.heading,
            justify="right" if column.unit else "left",
            no_wrap=whole,
            # A number cut short must say so: three of four digits read like a number.
            overflow="ellipsis" if whole else "fold",
            style=column.style,
        )
    before: str | None = None
    for row in rows:
        cells = [column.of(row) for column in shown]
        if section is not None:
            group = section(row)
            if group != before and before is not None:
                view.add_section()
            if group != before and group:
                view.add_row(Text(group, style="bold"))
            if group:
                cells[0] = Text("  ") + cells[0]
            before = group
        view.add_row(*cells, style=None if style is None else style(row))
    return view
