"""What a reproduced table is: plain rows, columns with units, a summary and remarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

SCHEMA_VERSION = 1

#: The verdicts a cell can get, from best to worst.
SAME_DIGITS = "same digits"
WITHIN = "within tolerance"
DIFFERS = "differs"
#: Not a verdict on the number: an input was solved from it.
SOLVED = "length solved"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a reproduced table.

    Attributes:
        name: the key in every row.
        title: its heading.
        unit: the unit of its numbers; "" where they have none or where a row names its own.
        digits: significant digits worth showing to people; None leaves the value as it is.
        wide: whether only a wide terminal shows it.
    """

    name: str
    title: str
    unit: str = ""
    digits: int | None = None
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A published table beside its recomputation.

    Attributes:
        name: the table's name.
        title: what it is.
        source: where the published figures come from.
        columns: the columns, in order.
        rows: one dictionary per cell, with a value for every column; None is not defined.
        summary: what all cells say together.
        notes: remarks for the reader.
        shown: columns of the printed table; the rest is in the rows alone.
        group_by: columns whose change starts a new block of the printed table, under its own line.
    """

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    shown: tuple[str, ...] = field(default=())
    group_by: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the table as the JSON document of `--json`, `schema_version` 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "columns": [
                {"name": column.name, "title": column.title, "unit": column.unit}
                for column in self.columns
            ],
            "rows": [dict(row) for row in self.rows],
            "summary": dict(self.summary),
            "notes": list(self.notes),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a DataFrame, one column per column of the table."""
        import pandas as pd

        return pd.DataFrame(
            [dict(row) for row in self.rows], columns=[column.name for column in self.columns]
        )

    def to_csv(self) -> str:
        r"""Return the rows as CSV text with a header; None is an empty cell.

        >>> Reproduction("t", "", "", (Column("a", "A"),), ({"a": 1},), {}).to_csv()
        'a\n1\n'
        """
        import csv
        import io

        text = io.StringIO()
        names = [column.name for column in self.columns]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: row[name] for name in names} for row in self.rows)
        return text.getvalue()
