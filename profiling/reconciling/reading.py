"""Reading records and profiler passes from folders, files, lists or a DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hardware_specs.errors import InvalidInputError
from profiling.records.measurement import Measurement
from profiling.tracing.op_profile import OpProfile, iterate_op_profiles


def read(measurements: Any, seen: dict[Any, Path] | None = None) -> list[Measurement]:
    """Return the records in folders, files, lists or a DataFrame; those in several files once.

    Args:
        measurements: see `profiling.reconciling.reconcile`.
        seen: the records of files that were read before.

    Raises:
        InvalidInputError: there is none, or the argument is of another kind.
    """
    from profiling.records.storage import read_measurements

    if isinstance(measurements, Measurement):
        return [measurements]
    if isinstance(measurements, OpProfile):
        return []
    if isinstance(measurements, (str, Path)):
        found = read_measurements(measurements, seen)
        if not found and not seen:
            raise InvalidInputError(f"no measurement under {measurements}")
        return found
    if hasattr(measurements, "columns"):
        return _of_frame(measurements)
    seen = {} if seen is None else seen
    return [record for item in listed(measurements) for record in read(item, seen)]


def listed(measurements: Any) -> list[Any]:
    """Return the items of a collection, or a single record as a list.

    Args:
        measurements: see `profiling.reconciling.reconcile`.

    Raises:
        InvalidInputError: nothing in it, or no such kind of thing.
    """
    if isinstance(measurements, (Measurement, OpProfile)):
        return [measurements]
    try:
        items = list(measurements)
    except TypeError:
        raise InvalidInputError(
            "measurements are a folder, a file, records or the DataFrame of load_measurements, "
            f"not {type(measurements).__name__}"
        ) from None
    if not items:
        raise InvalidInputError("there is no measurement to reconcile")
    return items


def profiles_under(measurements: Any, seen: dict[Any, Path] | None = None) -> list[OpProfile]:
    """Return the profiler passes in the folders that were given, each once.

    Args:
        measurements: see `profiling.reconciling.reconcile`; passes themselves may be among it too.
        seen: the passes of folders that were read before.
    """
    if isinstance(measurements, OpProfile):
        return [measurements]
    if isinstance(measurements, (str, Path)):
        return list(iterate_op_profiles(measurements, seen))
    if isinstance(measurements, Measurement) or hasattr(measurements, "columns"):
        return []
    seen = {} if seen is None else seen
    return [profile for item in measurements for profile in profiles_under(item, seen)]


def _of_frame(frame: Any) -> list[Measurement]:
    """Read the records behind a DataFrame of `load_measurements`, filtered as the frame is."""
    from profiling.records.storage import iterate_measurements

    wanted = {"file", "position", "round"}
    if not wanted.issubset(frame.columns):
        raise InvalidInputError(
            f"a DataFrame of measurements has the columns {', '.join(sorted(wanted))}, as "
            "load_measurements gives it; or pass the folder itself"
        )
    keys = set(zip(frame["file"], frame["position"], frame["round"], strict=True))
    return [
        record
        for file in dict.fromkeys(frame["file"])
        for path, record in iterate_measurements(file)
        if (str(path), record.position, record.round) in keys
    ]
