"""Sweeps as Parquet: one file, or a folder of parts that many workers write and that may be gone on with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.questions.chunks import join_chunks
from hardware_specs.errors import (
    InvalidFileError,
    InvalidInputError,
    MissingDependencyError,
    OutputError,
)
from hardware_specs.files.reading import as_path, read_json, show_path
from hardware_specs.files.writing import prepare_folder, replacing, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from costmodel.questions.chunks import Chunk
    from costmodel.questions.reducers import Part
    from costmodel.questions.sweep_plan import SweepPlan

#: Rows of a Parquet row group: large enough to be read quickly, small enough for any memory.
GROUP_ROWS = 1 << 18
#: What the parts of a folder are of.
_IDENTITY = "sweep.json"


#: Key of a file's metadata under which its rows' warnings stand, as a JSON list.
_WARNINGS = b"vlm-roofline warnings"


class Rows(NamedTuple):
    """How many rows a file has, how many of them could not be priced, and what they have to say."""

    rows: int
    unpriced: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParquetParts:
    """See `parquet_parts`."""

    folder: str
    columns: None = None

    def reduced(self, part: Part) -> dict[int, Rows]:
        """Write a part, unless it is there; return its rows by its number."""
        _pyarrow()
        self._claim(part)
        place = Path(self.folder) / part_name(part.number)
        if not place.exists():
            write_parquet(place, frames(part.chunks))
        return {part.number: _rows_of(place)}

    def merged(self, one: dict[int, Rows], other: dict[int, Rows]) -> dict[int, Rows]:
        """Return the rows of both."""
        return one | other

    def result(self, state: dict[int, Rows], _plan: SweepPlan) -> pd.DataFrame:
        """Return the parts' files and rows."""
        import pandas as pd

        places = [Path(self.folder) / part_name(number) for number in sorted(state)]
        missing = sum(not place.exists() for place in places)
        if missing:
            raise OutputError(
                f"{show_path(self.folder)} lacks {missing} of {len(places)} parts: not every host sees "
                "it as it is here; share it, and start again"
            )
        rows = [state[number].rows for number in sorted(state)]
        table = pd.DataFrame({"file": [str(place) for place in places], "rows": rows})
        table.attrs["unpriced"] = sum(each.unpriced for each in state.values())
        table.attrs["warnings"] = sorted(
            {line for each in state.values() for line in each.warnings}
        )
        return table

    def _claim(self, part: Part) -> None:
        """See that the folder is this sweep's; the first part makes it so."""
        place = Path(self.folder) / _IDENTITY
        told = json.loads(json.dumps(part.identity()))
        if not place.exists():
            prepare_folder(self.folder)
            # Another worker may have begun meanwhile: whose parts they are stands there before them.
            if any(Path(self.folder).glob("part-*.parquet")) and not place.exists():
                raise InvalidInputError(
                    f"{show_path(self.folder)} has parts and no {_IDENTITY}, which says of what; give "
                    "another folder"
                )
            write_file(place, f"{json.dumps(told, indent=1)}\n")
        # As text, in which a count of 1 is not a ratio of 1.0.
        elif json.dumps(read_json(place, "sweep")) != json.dumps(told):
            raise InvalidInputError(
                f"{show_path(self.folder)} has parts of another sweep, or of another release; give "
                "another folder"
            )


def parquet_parts(folder: str | Path) -> ParquetParts:
    """Return a reducer that writes all rows, as a Parquet file in a folder for each part of the sweep.

    A file appears whole or not at all, and one that is there is not priced again: a sweep that was killed
    goes on where it is called again. Workers of other machines must see the folder.

    Args:
        folder: made where there is none; it belongs to one sweep.

    Raises:
        InvalidFileError: while it runs: a file there is damaged.
        InvalidInputError: an empty path, or, while it runs, the folder of another sweep.
        MissingDependencyError: pyarrow is not installed.
        OutputError: the folder cannot be written.

    >>> import tempfile
    >>> import pandas as pd
    >>> from costmodel import sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = sweep("llava-1.5-7b", "nvidia-l4", batch_size=range(1, 9), reduce=parquet_parts(folder))
    ...     len(pd.read_parquet(parts.file[0]))
    8
    """
    if not str(folder):
        raise InvalidInputError("an empty path names no folder for the parts")
    return ParquetParts(str(as_path(folder).resolve()))


def part_name(number: int) -> str:
    """Return the name of a part's file.

    >>> part_name(12)
    'part-000012.parquet'
    """
    return f"part-{number:06d}.parquet"


def frames(chunks: Iterable[Chunk]) -> Iterator[pd.DataFrame]:
    """Join pieces into tables of about `GROUP_ROWS` rows."""
    held: list[Chunk] = []
    rows = 0
    for chunk in chunks:
        held.append(chunk)
        rows += chunk.rows
        if rows >= GROUP_ROWS:
            yield join_chunks(held)
            held, rows = [], 0
    if held:
        yield join_chunks(held)


def write_parquet(out: Path, tables: Iterable[pd.DataFrame]) -> int:
    """Write tables of the same columns and their warnings into one file, and return how many rows they have.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        OutputError: the file cannot be written.
    """
    arrow, parquet = _pyarrow()
    rows = 0
    writer = None
    told: dict[str, None] = {}
    with replacing(out) as file:
        try:
            for frame in tables:
                told |= dict.fromkeys(frame.attrs.get("warnings", ()))
                table = _plain_types(arrow.Table.from_pandas(frame, preserve_index=False), arrow)
                if writer is None:
                    writer = parquet.ParquetWriter(file, table.schema)
                writer.write_table(table.select(writer.schema.names).cast(writer.schema))
                rows += len(frame)
        finally:
            if writer is not None:
                writer.add_key_value_metadata({_WARNINGS: json.dumps(list(told)).encode()})
                writer.close()
    return rows


def _rows_of(place: Path) -> Rows:
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(place) as file:
            rows, unpriced = file.metadata.num_rows, 0
            # Files of earlier releases keep none.
            told = json.loads((file.metadata.metadata or {}).get(_WARNINGS, b"[]"))
            if "error" in file.schema_arrow.names:
                unpriced = rows - file.read(["error"])["error"].null_count
            return Rows(rows, unpriced, tuple(told))
    except (arrow.ArrowException, OSError, LookupError, TypeError, ValueError):
        raise InvalidFileError(
            f"{show_path(place)}: no whole Parquet file; remove it, and it is made again"
        ) from None


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingDependencyError("pyarrow", "analysis") from None
    return arrow, parquet


def _plain_types(table: Any, arrow: Any) -> Any:
    """Write names as text, whichever of them a piece happens to hold."""
    for position, field in enumerate(table.schema):
        if arrow.types.is_dictionary(field.type):
            text = table.column(position).cast(arrow.string())
            table = table.set_column(position, field.name, text)
    return table
