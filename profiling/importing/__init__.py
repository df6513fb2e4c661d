"""Other tools' results as records, each with what its clock held (its boundary) and only those stages."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hardware_specs.files.reading import show_path
from hardware_specs.files.writing import prepare_folder
from profiling.importing.content import read_content
from profiling.importing.foreign import LeftOut, Told, record_of
from profiling.importing.formats import format_of
from profiling.records.storage import read_measurement, write_measurement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from profiling.records.measurement import Configuration, Measurement

__all__ = ["Imported", "LeftOutWarning", "Told", "import_results", "read_results", "write_records"]


class LeftOutWarning(UserWarning):
    """Rows of a foreign file became no record."""


@dataclass(frozen=True)
class Imported:
    """What a foreign file gave.

    Attributes:
        source: the file's name.
        format: its format's name.
        tested: what the format's reader was tested on.
        records: with their boundaries.
        left_out: rows that became no record, and why.
    """

    source: str
    format: str
    tested: str
    records: tuple[Measurement, ...]
    left_out: tuple[LeftOut, ...]


def read_results(path: str | Path, told: Told | None = None) -> Imported:
    """Return the records of a foreign file, and the rows that became none.

    Args:
        path: a `.json`, `.jsonl` or `.csv` file of one of the tools in `FORMATS`.
        told: what the file does not say.

    Raises:
        InvalidFileError: it cannot be read, or is of no tool that is known.
        InvalidInputError: an unknown model or device was told.
    """
    content = read_content(path)
    name, found = format_of(content, show_path(path))
    source = show_path(path).replace("\\", "/").rpartition("/")[2]
    records: list[Measurement] = []
    left_out: list[LeftOut] = []
    rounds: Counter[Configuration] = Counter()
    for run in found.runs(content):
        made = record_of(run, told or Told(), name, source)
        if isinstance(made, LeftOut):
            left_out.append(made)
            continue
        # Rows that differ in nothing a record knows are rounds of one configuration.
        records.append(replace(made, round=rounds[made.configuration]))
        rounds[made.configuration] += 1
    return Imported(source, name, found.tested, tuple(records), tuple(left_out))


def write_records(found: Iterable[Imported], folder: str | Path) -> dict[Path, str | None]:
    """Write records under their own names, each device's in a folder of its own where there are several.

    Args:
        found: from `read_results`.
        folder: is made if it is not there.

    Returns:
        the folders that `reconcile` takes, one per device, and which that is; None for none that is known.

    Raises:
        OutputError: they cannot be written.
    """
    by_device: dict[tuple[str | None, str], list[Measurement]] = defaultdict(list)
    for each in found:
        for record in each.records:
            known = record.environment.get("device_file")
            named = str(known or record.environment.get("device_name", "unknown device"))
            by_device[known, named].append(record)
    folders: dict[Path, str | None] = {}
    for (known, named), records in by_device.items():
        name = re.sub(r"[^A-Za-z0-9.]+", "-", named).strip("-.").lower() or "device"
        home = prepare_folder(Path(folder) / name if len(by_device) > 1 else folder)
        for record in records:
            _write_beside(record, home)
        folders[home] = known
    return folders


def _write_beside(record: Measurement, home: Path) -> None:
    """Write a record; where another one has its name, as a further round of their configuration."""
    while (home / record.file_name).exists():
        if read_measurement(home / record.file_name).to_dict() == record.to_dict():
            return
        record = replace(record, round=record.round + 1)
    write_measurement(record, home)


def import_results(
    path: str | Path,
    *,
    models: Mapping[str, str] | str | None = None,
    hardware: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    visual_tokens: int | None = None,
    text_tokens: int | None = None,
    output_tokens: int | None = None,
) -> list[Measurement]:
    """Return other tools' results as measurements that `reconcile` and the others read.

    Every record's `boundary` says what the tool's clock held, and a record has those stages and no
    others. What a file does not have is missing. Rows that become no record, those faster than the
    device can be among them, are named in a `LeftOutWarning`.

    Args:
        path: of vLLM bench (serve, latency), optimum-benchmark, lmms-eval or TensorRT Edge-LLM's tables.
        models: the file's name of a model -> a shipped name, a config or a folder; or one for all.
        hardware: the device, where the file does not name it.
        dtype: the arithmetic, likewise; and so the rest.
        batch_size: sequences.
        visual_tokens: of one prompt.
        text_tokens: of one prompt.
        output_tokens: tokens made, the first included.

    Raises:
        InvalidFileError: it cannot be read, or is of no tool that is known.
        InvalidInputError: an unknown model or device was given.

    >>> import_results("no.json")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidFileError: no.json: there is no such file
    """
    named = {"": models} if isinstance(models, str) else dict(models or {})
    told = Told(named, hardware, dtype, batch_size, visual_tokens, text_tokens, output_tokens)
    found = read_results(path, told)
    if found.left_out:
        first = "; ".join(f"{where}: {why}" for where, why in found.left_out[:3])
        warnings.warn(
            f"{found.source}: {len(found.left_out)} rows became no record: {first}",
            LeftOutWarning,
            stacklevel=2,
        )
    return list(found.records)
