"""Measurement files: written atomically, read in every version, damaged ones named and passed over.

A record is one JSON document, alone in a `.json` file or one per line of a `.jsonl` file (a packed
campaign). A file appears complete or not at all: it is written beside its place, flushed to the
disk, and moved there in one step, so a kill at any moment leaves no half-written record.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError, InvalidInputError, OutputError
from profiling.records.measurement import SCHEMA_VERSION, TOTAL, Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pydantic import TypeAdapter

#: Suffix of a file that is still being written; a leftover of a killed run, never a record.
PARTIAL_SUFFIX = ".partial"


class DamagedFileWarning(UserWarning):
    """A measurement file could not be read and was passed over."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is either there in full or not at all.

    Args:
        path: where; its folder must exist.
        content: what; text is written as UTF-8.

    Raises:
        OutputError: the folder is read-only, the disk is full, or the like.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        # A read-only folder cannot be cleaned, and the first error is the one to tell.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise output_error(path, error) from error


def _flush_folder(folder: Path) -> None:
    # The rename itself lives in the folder: without this a power cut may undo it.
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def output_error(path: Path, error: OSError) -> OutputError:
    """Return the project's error for a failed write, with what to do about it."""
    advice = {
        errno.ENOSPC: "the disk is full; free some space and start again, finished points are kept",
        errno.EDQUOT: "the quota is used up; free some space and start again, "
        "finished points are kept",
        errno.EROFS: "the file system is read-only; give another folder",
        errno.EACCES: "no permission to write there; give another folder",
        errno.EPERM: "no permission to write there; give another folder",
        errno.ENOTDIR: "a part of the path is a file; give another folder",
        errno.EEXIST: "it is a file; give a folder",
    }.get(error.errno or 0, "give another place")
    return OutputError(f"cannot write {path}: {error.strerror or error}; {advice}")


def prepare_folder(path: str | Path) -> Path:
    """Create a folder for results and prove that it can be written.

    Raises:
        OutputError: it cannot be created or written.
    """
    folder = Path(path)
    probe = folder / f".probe.{os.getpid()}{PARTIAL_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left half-written; call it only while nobody else writes there."""
    for leftover in folder.glob(f".*{PARTIAL_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def write_measurement(measurement: Measurement, folder: str | Path) -> Path:
    """Write one record under its own name into a folder and return its path.

    Raises:
        OutputError: it could not be written; nothing is left behind.
    """
    path = Path(folder) / measurement.file_name
    write_atomically(path, _dump(measurement, indent=1) + "\n")
    return path


def pack_measurements(measurements: Iterable[Measurement], path: str | Path) -> Path:
    """Write many records into one `.jsonl` file, one per line, and return its path.

    Raises:
        OutputError: it could not be written.
    """
    target = Path(path)
    write_atomically(target, "".join(_dump(item) + "\n" for item in measurements))
    return target


def _dump(measurement: Measurement, indent: int | None = None) -> str:
    return json.dumps(measurement.to_dict(), allow_nan=False, indent=indent)


def read_measurement(path: str | Path) -> Measurement:
    """Read one record file of any schema version.

    Raises:
        InvalidFileError: unreadable, not JSON, of a newer schema, or not a record.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFileError(f"cannot read {source}: {error}") from error
    return parse_measurement(text, str(source))


def parse_measurement(text: str, source: str = "the given text") -> Measurement:
    """Read one record from JSON text of any schema version.

    Args:
        text: one JSON document.
        source: what to call it in an error.

    Raises:
        InvalidFileError: not JSON, of a newer schema, or not a record.
    """
    from pydantic import ValidationError

    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InvalidFileError(f"{source} is no JSON document: {error}") from error
    if not isinstance(document, dict) or "schema_version" not in document:
        raise InvalidFileError(f"{source} is no measurement: it has no schema_version")
    version = document["schema_version"]
    if not isinstance(version, int) or version < 1:
        raise InvalidFileError(
            f"{source} has schema_version {version!r}; known are 1 to {SCHEMA_VERSION}"
        )
    if version > SCHEMA_VERSION:
        raise InvalidFileError(
            f"{source} has schema_version {version}, newer than the {SCHEMA_VERSION} "
            "known here; update vlm-roofline to read it"
        )
    try:
        for old in range(version, SCHEMA_VERSION):
            document = _UPGRADES[old](document)
        return _adapter().validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidFileError(
            f"{source} is no valid measurement: {where}: {first['msg']}"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidFileError(f"{source} is no valid measurement: {error!r}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number a record may hold")


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Measurement]:
    from pydantic import TypeAdapter

    return TypeAdapter(Measurement)


def _upgrade_1(document: dict[str, Any]) -> dict[str, Any]:
    """Turn flat lists of seconds per stage into stage records (version 1 to 2)."""
    new = dict(document)
    peaks = new.pop("peak_allocated_bytes", None) or {}
    energy_j = new.pop("energy_j", None)
    new["stages"] = {
        stage: {"event_s": samples, "peak_allocated_bytes": peaks.get(stage)}
        for stage, samples in new["stages"].items()
    }
    if energy_j is not None:
        # Version 1 did not say how the energy was had, so it is kept but not called a method.
        new["energy"] = [
            {
                "stage": TOTAL,
                "method": "unavailable",
                "energy_j": energy_j,
                "why_missing": {"method": "schema version 1 did not record it"},
            }
        ]
    new["schema_version"] = 2
    return new


#: version -> the step to the next one.
_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _upgrade_1}


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
    if not root.exists():
        raise InvalidInputError(f"no measurements at {root}: there is no such folder or file")
    paths = (
        [root]
        if root.is_file()
        else sorted(
            path
            for path in root.rglob("*.json*")
            if path.suffix in {".json", ".jsonl"} and not path.name.startswith(".")
        )
    )
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            _warn(str(path), error)
            continue
        if path.suffix == ".jsonl":
            documents = [
                (f"{path}, line {number}", line)
                for number, line in enumerate(text.splitlines(), start=1)
                if line.strip()
            ]
        else:
            documents = [(str(path), text)]
        for source, document in documents:
            if _is_other_document(document):
                continue
            try:
                yield path, parse_measurement(document, source)
            except InvalidFileError as error:
                _warn(source, error)


def _is_other_document(text: str) -> bool:
    # Every other document of the project carries a `kind`; a measurement does not.
    try:
        document = json.loads(text)
    except ValueError:
        return False
    return isinstance(document, dict) and "kind" in document


def _warn(source: str, error: Exception) -> None:
    warnings.warn(f"skipped {source}: {error}", DamagedFileWarning, stacklevel=3)


def read_measurements(folder: str | Path) -> list[Measurement]:
    """Return every readable record under a folder, in file order; damaged files are warned about.

    Raises:
        InvalidInputError: there is no such folder or file.
    """
    return [measurement for _, measurement in iterate_measurements(folder)]
