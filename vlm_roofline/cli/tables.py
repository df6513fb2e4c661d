"""The one builder of tables for people: rows, and columns that say what of a row they show.

No number is ever cut. Where the terminal is too narrow for all columns, words wrap first, then the gaps
close, then columns leave, those of the highest priority number first, and a line below names them; and
where the rest is still too wide, it is folded into several tables below each other, each of which repeats the
leading columns that tell the rows apart, or numbers the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vlm_roofline.cli.console import console
from vlm_roofline.cli.units import show

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        heading: what stands above it.
        value: the key, place or attribute of a row that it shows, or a function of the row.
        unit: how numbers are written, see `vlm_roofline.cli.units.FORMATS`. A column without one
            holds words and stands to the left.
        priority: 0 is always shown; others only where there is room, 1 longer than 2.
        whole: never wrap a cell; None wraps words and no numbers.
        style: the style of every cell.
        named: in a sentence its words stand behind its heading, as numbers do: `eager` may be a mode or
            an attention.
    """

    heading: str
    value: str | int | Callable[[Any], Any]
    unit: str = ""
    priority: int = 0
    whole: bool | None = None
    style: str = ""
    named: bool = False

    def of(self, row: Any) -> Any:
        """Return the cell of a row, as text or rich `Text`."""
        if callable(self.value):
            value = self.value(row)
        elif isinstance(self.value, int) or isinstance(row, dict):
            value = row[self.value]
        else:
            value = getattr(row, self.value)
        found = show(value, self.unit)
        return found if isinstance(found, Text) else str(found)


def columns(unit: str = "", **values: str | int | Callable[[Any], Any]) -> list[Column]:
    """Return several columns of one unit: heading (`_` for a space) = value.

    >>> [column.heading for column in columns("s", time="time_s", low_end="time_low_s")]
    ['time', 'low end']
    """
    return [Column(name.replace("_", " "), value, unit) for name, value in values.items()]


#: How something was run; some of their words are the same.
WAYS = [Column(name, name, named=True) for name in ("mode", "attention", "cache")]


def shared(
    rows: Sequence[Any], told: Sequence[Column], unsaid: Collection[str] = ()
) -> tuple[str, list[Column]]:
    """Return in words what all rows share, and the columns in which they differ.

    Args:
        rows: dictionaries or objects.
        told: the columns that are one or the other.
        unsaid: words that are left out, such as `tp 1`.

    >>> rows = [{"dtype": "fp32", "batch": 8, "text": text} for text in (40, 80)]
    >>> told = [Column("dtype", "dtype"), Column("batch", "batch", "1"), Column("text", "text", "1")]
    >>> words, differing = shared(rows, told)
    >>> words, [column.heading for column in differing]
    ('fp32, batch 8', ['text'])
    """
    words, differing = [], []
    for column in told:
        cells = {str(column.of(row)) for row in rows}
        if len(cells) > 1:
            differing.append(column)
        elif cells:
            led = f"{column.heading} " if column.unit or column.named else ""
            words.append(led + cells.pop())
    return ", ".join(word for word in words if word not in unsaid), differing


def table(
    rows: Iterable[Any],
    shown: Sequence[Column],
    *,
    title: str | None = None,
    style: Callable[[Any], str | None] | None = None,
    section: Callable[[Any], str] | None = None,
    width: int | None = None,
) -> Table | Group:
    """Return a table, or several where it had to be folded.

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
    >>> narrow = table([{"a": 1}], [Column("A", "a"), Column("B" * 40, "a", "1", 1)], width=40)
    >>> str(narrow.renderables[-1])[:14]
    'no room for: B'
    >>> wide = [Column(name * 30, "a", "1") for name in "abc"]
    >>> len(table([{"a": 1}], wide, width=70).renderables)
    2
    """
    rows = list(rows)
    groups = [section(row) if section is not None else "" for row in rows]
    cells = [
        [_indented(each, bool(group) and not place) for place, each in enumerate(line)]
        for line, group in zip(
            ([column.of(row) for column in shown] for row in rows), groups, strict=True
        )
    ]
    styles = [None if style is None else style(row) for row in rows]
    room = console().width if width is None else width
    fits = [
        _Fit(column, place, [line[place] for line in cells], [] if place else groups)
        for place, column in enumerate(shown)
    ]
    kept = list(fits)
    while kept and _least(kept) > room and any(each.column.priority for each in kept):
        last = max(each.column.priority for each in kept)
        kept.remove([each for each in kept if each.column.priority == last][-1])
    gone = [each.column.heading for each in fits if each not in kept]
    keys = 1
    if _least(kept) > room:
        keys = _telling(kept, cells, groups, room)
        if not keys:
            keys, numbers = 1, [str(number) for number in range(1, len(rows) + 1)]
            cells = [[*line, number] for line, number in zip(cells, numbers, strict=True)]
            kept = [_Fit(Column("#", "", "1"), len(fits), numbers, []), *kept]
    # A table's own title would wrap at the table's width.
    parts: list[Any] = [] if title is None else [Text(title, style="table.title")]
    parts += [_drawn(part, room, cells, groups, styles) for part in _folded(kept, room, keys)]
    if gone:
        parts.append(Text(f"no room for: {', '.join(gone)}", style="italic dim"))
    return parts[0] if len(parts) == 1 else Group(*parts)


class _Fit:
    """A column with the widths it can have."""

    def __init__(self, column: Column, place: int, cells: list[Any], groups: list[str]) -> None:
        self.column, self.place = column, place
        self.whole = bool(column.unit) if column.whole is None else column.whole
        texts = [cell.plain if isinstance(cell, Text) else cell for cell in cells]
        heading = [max(map(cell_len, column.heading.split()), default=0)]
        lines = [line for text in texts for line in text.splitlines()]
        self.natural = max([cell_len(column.heading), *map(cell_len, [*lines, *groups])])
        words = lines if self.whole else [word for line in lines for word in line.split()]
        words = [*words, *groups]
        # A long path or address may be broken; nothing else is.
        longest = max(map(cell_len, words), default=0)
        self.least = max(*heading, longest if self.whole else min(longest, 36))


def _least(fits: list[_Fit]) -> int:
    """Characters of a line with closed gaps: a space between columns and at both ends."""
    return sum(each.least for each in fits) + 2 * len(fits)


def _telling(fits: list[_Fit], cells: list[list[Any]], groups: list[str], room: int) -> int:
    """Return how many leading columns tell the rows apart in half of the room, 0 where none do."""
    for keys in range(1, len(fits)):
        if _least(fits[:keys]) > room / 2:
            break
        told = {
            (group, *(str(line[each.place]) for each in fits[:keys]))
            for line, group in zip(cells, groups, strict=True)
        }
        if len(told) == len(cells):
            return keys
    return 0


def _folded(fits: list[_Fit], room: int, keys: int) -> list[list[_Fit]]:
    """Return the columns of each part, as few parts as there can be."""
    if _least(fits) <= room or len(fits) <= keys + 1:
        return [fits]
    lead = fits[:keys]
    parts = [list(lead)]
    for each in fits[keys:]:
        if len(parts[-1]) > keys and _least([*parts[-1], each]) > room:
            parts.append(list(lead))
        parts[-1].append(each)
    return parts


def _widths(fits: list[_Fit], room: int) -> list[int]:
    """Return every column's width: its natural one, or less where words can wrap."""
    widths = [each.natural for each in fits]
    while (over := sum(widths) - room) > 0:
        slack = [width - each.least for width, each in zip(widths, fits, strict=True)]
        widest = max(range(len(fits)), key=lambda place: (slack[place] > 0) * widths[place])
        if slack[widest] <= 0:
            break
        widths[widest] -= min(slack[widest], max(1, over // 4))
    return widths


def _drawn(
    fits: list[_Fit],
    room: int,
    cells: list[list[Any]],
    groups: list[str],
    styles: list[str | None],
) -> Table:
    gaps = 3 * len(fits) - 1
    close = sum(each.natural for each in fits) + gaps > room
    view = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=close,
        show_header=any(each.column.heading for each in fits),
    )
    widths = _widths(fits, room - (2 * len(fits) if close else gaps))
    for each, width in zip(fits, widths, strict=True):
        view.add_column(
            each.column.heading,
            justify="right" if each.column.unit else "left",
            overflow="fold",
            style=each.column.style,
            width=width,
        )
    before: str | None = None
    for line, group, style in zip(cells, groups, styles, strict=True):
        if group != before and before is not None:
            view.add_section()
        if group != before and group:
            view.add_row(Text(group, style="bold"))
        before = group
        view.add_row(*(line[each.place] for each in fits), style=style)
    return view


def _indented(cell: Any, inside: bool) -> Any:
    return Text("  ") + cell if inside else cell
