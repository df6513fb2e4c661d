"""What a foreign file holds, read through the one reader: rows of a table, or a JSON document."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.reading import invalid, read_text, show_path
from hardware_specs.files.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Rows of one file; a campaign has fewer.
MOST_ROWS = 200_000


@dataclass(frozen=True)
class Content:
    """A file's content.

    Attributes:
        rows: of a table by column, or of a file with one JSON object a line.
        document: of a JSON file that holds one object; None for a table.
    """

    rows: tuple[Mapping[str, Any], ...] = ()
    document: Mapping[str, Any] | None = None

    @property
    def names(self) -> frozenset[str]:
        """The names of the columns, or of the document's members."""
        if self.document is not None:
            return frozenset(self.document)
        return frozenset(self.rows[0]) if self.rows else frozenset()


def read_content(path: str | Path) -> Content:
    """Return the content of a `.csv`, `.json` or `.jsonl` file.

    Raises:
        InvalidFileError: it cannot be read, or is neither.
    """
    text = read_text(path, "table")
    start = text.lstrip()[:1]
    try:
        if start not in ("{", "["):
            return Content(rows=_table(text))
        if Path(path).suffix.lower() == ".jsonl":
            lines = (line for line in text.split("\n") if line.strip())
            return Content(rows=_objects([parse_json(line, infinite=True) for line in lines]))
        document = parse_json(text, infinite=True)
    except InvalidFileError as error:
        raise invalid(path, error) from None
    if isinstance(document, list):
        return Content(rows=_objects(document))
    if not isinstance(document, dict):
        raise InvalidFileError(f"{show_path(path)}: neither a table nor a JSON object")
    return Content(document=document)


def _objects(items: list[Any]) -> tuple[Mapping[str, Any], ...]:
    _few(len(items))
    return tuple(item for item in items if isinstance(item, dict))


def _table(text: str) -> tuple[Mapping[str, Any], ...]:
    try:
        reader = csv.DictReader(io.StringIO(text))
        rows = []
        for row in reader:
            rows.append({str(name): value for name, value in row.items() if name is not None})
            _few(len(rows))
    except csv.Error as error:
        raise InvalidFileError(f"no table: {error}") from None
    return tuple(rows)


def _few(rows: int) -> None:
    if rows > MOST_ROWS:
        raise InvalidFileError(f"more than {MOST_ROWS} rows")
