"""Measurement files: damaged ones are named and passed over when a folder is read.

A record is one JSON document, alone in a `.json` file or one per line of a `.jsonl` file (a packed
campaign).
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hardware_specs.errors import InvalidFileError, InvalidInputError
from hardware_specs.files.reading import (
    files_under,
    invalid,
    is_folder,
    look,
    read_lines,
    read_text,
    show_path,
    warn_damaged,
)
from hardware_specs.files.strict_json import parse_json
from hardware_specs.files.writing import replacing, write_file
from profiling.records.measurement import SCHEMA_VERSION, Measurement

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from pydantic import TypeAdapter

T = TypeVar("T")


def write_measurement(measurement: Measurement, folder: str | Path) -> Path:
    """Write one record under its own name into a folder and return its path.

    Raises:
        OutputError: it could not be written; nothing is left behind.
    """
    return write_file(Path(folder) / measurement.file_name, _dump(measurement, indent=1) + "\n")


def pack_measurements(measurements: Iterable[Measurement], path: str | Path) -> Path:
    """Write many records into one `.jsonl` file, one per line, and return its path.

    Raises:
        OutputError: it could not be written.
    """
    with replacing(path) as file:
        for item in measurements:
            file.write(f"{_dump(item)}\n".encode())
    return Path(path)


def _dump(measurement: Measurement, indent: int | None = None) -> str:
    return json.dumps(measurement.to_dict(), allow_nan=False, indent=indent)


def read_measurement(path: str | Path) -> Measurement:
    """Read one record file.

    Raises:
        InvalidFileError: unreadable, not JSON, of another schema, or not a record.
    """
    return parse_measurement(read_text(path, "record"), show_path(path))


def parse_measurement(text: str, source: str = "the given text") -> Measurement:
    """Read one record from JSON text.

    Args:
        text: one JSON document.
        source: how an error names the text.

    Raises:
        InvalidFileError: not JSON, of another schema, or not a record.
    """
    return _measurement(_parse(text, source), text, source)


def _parse(text: str, source: str) -> Any:
    try:
        return parse_json(text)
    except InvalidFileError as error:
        raise invalid(source, error) from None


def _measurement(document: Any, text: str, source: str) -> Measurement:
    if not isinstance(document, dict) or "schema_version" not in document:
        raise InvalidFileError(f"{source} is no measurement: it has no schema_version")
    version = document["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InvalidFileError(
            f"{source} has schema_version {version}, newer than the {SCHEMA_VERSION} "
            "known here; update vlm-roofline to read it"
        )
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InvalidFileError(
            f"{source} has schema_version {str(version)[:40]!r}; known is {SCHEMA_VERSION}"
        )
    return validated(Measurement, text, f"{source} is no valid measurement")


def validated(kind: type[T], text: str, failed: str) -> T:
    """Return the dataclass that a JSON text describes, every value of its very type.

    Args:
        kind: the dataclass.
        text: one JSON document.
        failed: how an error begins.

    Raises:
        InvalidFileError: a value is missing or of another type; names the first.
    """
    from pydantic import ValidationError

    try:
        found: T = _adapter(cast("Hashable", kind)).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidFileError(f"{failed}: {where}: {first['msg']}") from error
    except InvalidInputError as error:
        raise InvalidFileError(f"{failed}: {error}") from error
    return found


@lru_cache(maxsize=8)
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cast("type[Any]", kind))


def iterate_measurements(folder: str | Path) -> Iterator[tuple[Path, Measurement]]:
    """Yield every record under a folder (or in one file) with the file it came from.

    A damaged file, or a damaged line of a packed file, is named in a `DamagedFileWarning` and
    passed over; other JSON documents of the project (op tables, environments) are not records and
    are left alone.

    Args:
        folder: a folder, searched through, or one `.json` or `.jsonl` file.

    Raises:
        InvalidInputError: there is no such folder or file.
    """
    root = Path(folder)
    if look(root) is None:
        raise InvalidInputError(f"no measurements at {root}: there is no such folder or file")
    paths = files_under(root, (".json", ".jsonl")) if is_folder(root) else [root]
    for path in paths:
        try:
            for source, text in _documents(path):
                try:
                    document = _parse(text, source)
                    # Every other document of the project carries a `kind`; a measurement does not.
                    if not (isinstance(document, dict) and "kind" in document):
                        yield path, _measurement(document, text, source)
                except InvalidFileError as error:
                    warn_damaged(error)
        except InvalidFileError as error:
            warn_damaged(error)


def _documents(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".jsonl":
        yield from read_lines(path)
    else:
        yield show_path(path), read_text(path, "record")


def read_measurements(folder: str | Path) -> list[Measurement]:
    """Return every readable record under a folder, in file order; damaged files are warned about.

    Raises:
        InvalidInputError: there is no such folder or file.
    """
    return [measurement for _, measurement in iterate_measurements(folder)]
