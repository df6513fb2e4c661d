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
    as_path,
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
from profiling.records.measurement import RANKS_VERSION, SCHEMA_VERSION, Measurement
from profiling.records.strict import check_record

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from pydantic import TypeAdapter

T = TypeVar("T")

#: Damaged lines of one packed file that are named one by one.
MOST_NAMED = 3


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
    """Read one record from JSON text; `source` names the text in an error.

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
    if isinstance(version, int) and version > RANKS_VERSION:
        raise InvalidFileError(
            f"{source} has schema_version {version}, newer than the {RANKS_VERSION} "
            "known here; update vlm-roofline to read it"
        )
    if version not in (SCHEMA_VERSION, RANKS_VERSION) or isinstance(version, bool):
        raise InvalidFileError(
            f"{source} has schema_version {str(version)[:40]!r}; known are {SCHEMA_VERSION} and, of several "
            f"processes, {RANKS_VERSION}"
        )
    failed = f"{source} is no valid measurement"
    found = validated(Measurement, text, failed, version)
    try:
        check_record(found)
    except InvalidFileError as error:
        raise InvalidFileError(f"{failed}: {error}") from None
    return found


def validated(kind: type[T], text: str, failed: str, version: int) -> T:
    """Return the dataclass that a JSON text describes, every value of its very type.

    Errors begin with `failed` and name the schema's version, which the text claims to follow.

    Raises:
        InvalidFileError: a value is missing or of another type, or a key is unknown; names the first.
    """
    from pydantic import ValidationError

    try:
        found: T = _adapter(cast("Hashable", kind)).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"]
        if first["type"] == "unexpected_keyword_argument":
            reason = f"schema_version {version} has no such key"
        raise InvalidFileError(f"{failed}: {where[:120]}: {reason}") from error
    except InvalidInputError as error:
        raise InvalidFileError(f"{failed}: {error}") from error
    return found


@lru_cache(maxsize=8)
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cast("type[Any]", kind))


def iterate_measurements(
    folder: str | Path, seen: dict[Hashable, Path] | None = None
) -> Iterator[tuple[Path, Measurement]]:
    """Yield every record under a folder (or in one file) once, with the file it came from.

    A damaged file, or a damaged line of a packed file, is named in a `DamagedFileWarning` and
    passed over, and so is a file with doubles: a copy, a link, a packed file beside its loose ones.
    Other JSON documents of the project (op tables, environments) are not records and are left alone.
    `seen` has the records of folders that were read before, and is added to.

    Raises:
        InvalidInputError: there is no such folder or file.
    """
    root = as_path(folder)
    if look(root) is None:
        raise InvalidInputError(f"no measurements at {root}: there is no such folder or file")
    paths = files_under(root, (".json", ".jsonl")) if is_folder(root) else [root]
    seen = {} if seen is None else seen
    for path in paths:
        damaged, doubles = 0, []
        try:
            for source, text in _documents(path):
                try:
                    document = _parse(text, source)
                    if _is_other(document):
                        continue
                    record = _measurement(document, text, source)
                except InvalidFileError as error:
                    damaged += 1
                    if damaged <= MOST_NAMED:
                        warn_damaged(error)
                    continue
                run = _run_of(record)
                if run in seen:
                    doubles.append(seen[run])
                else:
                    seen[run] = path
                    yield path, record
        except InvalidFileError as error:
            warn_damaged(error)
        if damaged > MOST_NAMED:
            more = f"{damaged - MOST_NAMED} more damaged lines"
            warn_damaged(InvalidFileError(f"{show_path(path)}: {more}"))
        if doubles:
            warn_damaged(double(path, len(doubles), doubles[0]))


def double(path: Path, count: int, first: Path) -> InvalidFileError:
    """Return the error that names a file whose contents were read from another one before."""
    what = "a double of what is" if count == 1 else f"{count} doubles of what is"
    return InvalidFileError(f"{show_path(path)}: {what} in {show_path(first)}, counted once")


def _is_other(document: Any) -> bool:
    """Whether this is another document of the project: they carry a `kind`, and no samples."""
    return isinstance(document, dict) and "kind" in document and "sampling" not in document


def _run_of(record: Measurement) -> Hashable:
    """Return what tells one run from another: no two have the same times to the last digit."""
    samples = tuple((stage, data.event_s) for stage, data in record.stages.items())
    return record.configuration, record.round, samples or record.started_at


def _documents(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".jsonl":
        yield from read_lines(path)
    else:
        yield show_path(path), read_text(path, "record")


def read_measurements(
    folder: str | Path, seen: dict[Hashable, Path] | None = None
) -> list[Measurement]:
    """Return every readable record under a folder once, in file order, as `iterate_measurements` does.

    Raises:
        InvalidInputError: there is no such folder or file.
    """
    return [measurement for _, measurement in iterate_measurements(folder, seen)]
