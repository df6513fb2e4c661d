"""A profiler pass as a file: one configuration, its device time by stage and op.

One JSON document with `kind` "op-profile", so that readers of measurements leave it alone:

    {"kind", "schema_version": 1, "configuration", "tokens", "environment", "started_at",
     "rows": [{"stage", "name", "op_class", "kernels", "time_s"}]}

The pass is never the timed one: a profiler slows the host, so its kernels' durations are good and its
total is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.reading import (
    files_under,
    is_folder,
    read_json,
    show_path,
    warn_damaged,
)
from hardware_specs.files.writing import write_file
from hardware_specs.showing import brief
from profiling.records.measurement import Configuration, TokenCounts, plain
from profiling.records.readings import STRICT
from profiling.records.storage import double, validated
from profiling.records.strict import check_environment, check_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator


KIND = "op-profile"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class OpRecord:
    """One op of one stage: all its kernels in one repetition.

    Attributes:
        stage: the stage; `total` for work between stages.
        name: the op, as the cost model names it.
        op_class: its class.
        kernels: kernels launched (ops, on a CPU).
        time_s: their device seconds together.
    """

    __pydantic_config__ = STRICT

    stage: str
    name: str
    op_class: str
    kernels: int
    time_s: float


@dataclass(frozen=True, slots=True)
class OpProfile:
    """A profiler pass of one configuration.

    Attributes:
        configuration: what ran.
        tokens: as they were seen.
        rows: device time by stage and op.
        environment: software and device.
        started_at: ISO 8601.
        model_config: the model's config, unless it is shipped.
    """

    __pydantic_config__ = STRICT

    configuration: Configuration
    tokens: TokenCounts
    rows: tuple[OpRecord, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)
    started_at: str = ""
    model_config: Mapping[str, Any] | None = None

    __repr__ = brief


def write_op_profile(profile: OpProfile, folder: str | Path) -> Path:
    """Write a pass under its configuration's name into a folder and return its path.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(folder) / f"{profile.configuration.key}_ops.json"
    return write_file(path, json.dumps(document_of(profile), allow_nan=False, indent=1) + "\n")


def document_of(profile: OpProfile) -> dict[str, Any]:
    """Return the JSON document of a pass."""
    return {"kind": KIND, "schema_version": SCHEMA_VERSION, **plain(profile)}


def read_op_profile(path: str | Path) -> OpProfile:
    """Read a pass.

    Raises:
        InvalidFileError: unreadable, or not such a pass.
    """
    return _profile(read_json(path, "op profile"), show_path(path))


def _profile(document: Any, source: str) -> OpProfile:
    if not isinstance(document, dict) or document.pop("kind", None) != KIND:
        raise InvalidFileError(f"{source} is no profiler pass: its kind is not {KIND!r}")
    if document.pop("schema_version", None) != SCHEMA_VERSION:
        raise InvalidFileError(f"{source} has another schema_version than {SCHEMA_VERSION}")
    failed = f"{source} is no valid profiler pass"
    found = validated(OpProfile, json.dumps(document), failed, SCHEMA_VERSION)
    try:
        check_environment(found.environment)
        for name in ("rows", "tokens"):
            check_numbers(getattr(found, name), name, shortest_s=0.0)
    except InvalidFileError as error:
        raise InvalidFileError(f"{failed}: {error}") from None
    return found


def iterate_op_profiles(
    folder: str | Path, seen: dict[Any, Path] | None = None
) -> Iterator[OpProfile]:
    """Yield every profiler pass under a folder once; a single file of records holds none.

    A damaged pass and a double are named in a `DamagedFileWarning` and passed over.

    Args:
        folder: a folder, searched through.
        seen: the passes of folders that were read before, to be gone on with.
    """
    seen = {} if seen is None else seen
    if not is_folder(folder):
        return
    for path in files_under(folder, ("_ops.json",)):
        try:
            document = read_json(path, "op profile")
            # Tables of measured ops may bear such a name too.
            if isinstance(document, dict) and document.get("kind") not in (None, KIND):
                continue
            profile = _profile(document, show_path(path))
            first = seen.setdefault((profile.configuration, profile.rows), path)
            if first is not path:
                raise double(path, 1, first)
            yield profile
        except InvalidFileError as error:
            warn_damaged(error)
