"""A folder of records packed for others: what must not leave is taken out, what stays is told.

A record needs the device, the software and the config of its model to be worth anything, and no more:
models that are not shipped are called by a hash of their config, paths, the user's and the machine's
names are blotted out wherever a text holds them, a GPU's serial number goes, and of a time the day
is left.
"""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import re
import socket
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError
from hardware_specs.files.writing import write_file
from profiling.records.measurement import Measurement, plain, shareable
from profiling.records.model_names import is_shipped
from profiling.records.storage import read_measurements
from profiling.tracing.op_profile import OpProfile, document_of, iterate_op_profiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: What others need of an environment, by what it reveals.
REVEALED: dict[str, tuple[str, ...]] = {
    "device": ("device_name", "device_memory_bytes", "sm_count", "compute_capability", "gcn_architecture",
               "power_limit_w", "max_sm_clock_hz"),
    "processor": ("cpu_name", "cpu_signature", "cpu_count", "cpu_capability", "memory_bytes", "threads"),
    "software": ("python", "platform", "torch", "cuda", "cudnn", "driver", "transformers", "torchao", "numpy",
                 "nvidia-ml-py", "vlm-roofline", "allow_tf32", "matmul_precision"),
    "settings": ("variables",),
}  # fmt: skip
#: An absolute path, a home, a drive: a slash that no word stands before, and a name.
_PATH = re.compile(r"(?<![\w.])(?:~\w*|[A-Za-z]:)?[/\\][\w.@+~-]+(?:[/\\][\w.@+~-]*)*")
BLOT = "<removed>"


@dataclass(frozen=True)
class Shared:
    """What was packed.

    Attributes:
        path: of the archive.
        records: how many.
        profiles: profiler passes.
        reveals: by kind, everything of the machine and the run that the archive tells.
        removed: what was taken out.
    """

    path: Path
    records: int
    profiles: int
    reveals: Mapping[str, tuple[str, ...]]
    removed: tuple[str, ...]


def share_measurements(folder: str | Path, path: str | Path) -> Shared:
    """Pack the records and profiler passes under a folder into a ZIP archive for others.

    Args:
        folder: of records, or one file of them.
        path: of the archive; it is replaced whole.

    Raises:
        InvalidInputError: there is no record, or no such folder.
        OutputError: the archive cannot be written.
    """
    blot = _blotter(
        (getpass.getuser(), socket.gethostname(), socket.gethostname().partition(".")[0])
    )
    records = [_cleaned(shareable(record), blot) for record in read_measurements(folder)]
    if not records:
        raise InvalidInputError(f"no measurements in {folder}")
    profiles = [_cleaned(profile, blot) for profile in iterate_op_profiles(folder)]
    lines = [json.dumps(record.to_dict(), allow_nan=False) for record in records]
    files = {"records.jsonl": "".join(f"{line}\n" for line in lines)}
    for number, profile in enumerate(profiles):
        files[f"pass-{number}_ops.json"] = json.dumps(document_of(profile), allow_nan=False)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in files.items():
            # A member made from its name alone has neither owner nor time.
            packed.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    write_file(path, archive.getvalue())
    return Shared(
        Path(path), len(records), len(profiles), _revealed([*records, *profiles]),
        (
            "names of models that are not shipped, and where they lie",
            "paths, the user's and the machine's name in any text",
            "the device's serial number, and what else of the environment is not listed above",
            "times of day",
        ),
    )  # fmt: skip


def _cleaned(record: Any, blot: Callable[[str], str]) -> Any:
    """Return a record or a pass without what must not leave."""
    name, config = record.configuration.model, record.model_config
    if not is_shipped(name):
        config = {} if config is None else _blotted(config, blot)
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
        name = f"model-{digest}"
    known = [key for keys in REVEALED.values() for key in keys]
    environment = {key: record.environment[key] for key in known if key in record.environment}
    changed = replace(
        record,
        configuration=replace(record.configuration, model=name),
        model_config=config,
        environment=_blotted(environment, blot),
        started_at=record.started_at[:10],
    )
    if isinstance(record, OpProfile):
        return changed
    error = record.error and blot(record.error.replace(record.configuration.model, name))
    return replace(
        changed,
        error=error,
        boundary=record.boundary and blot(record.boundary),
        why_missing=_blotted(record.why_missing, blot),
        capabilities=_blotted(record.capabilities, blot),
        energy=tuple(
            replace(each, why_missing=_blotted(each.why_missing, blot)) for each in record.energy
        ),
    )


def _blotter(names: tuple[str, ...]) -> Callable[[str], str]:
    words = "|".join(sorted({re.escape(name) for name in names if name}, key=len, reverse=True))
    word = re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])", re.IGNORECASE)
    return lambda text: word.sub(BLOT, _PATH.sub(BLOT, text))


def _blotted(value: Any, blot: Callable[[str], str]) -> Any:
    """Blot every text inside, and leave out keys that begin with an underscore, such as `_name_or_path`."""
    value = plain(value)
    if isinstance(value, dict):
        return {key: _blotted(item, blot) for key, item in value.items() if key[:1] != "_"}
    if isinstance(value, list):
        return [_blotted(item, blot) for item in value]
    return blot(value) if isinstance(value, str) else value


def _revealed(shared: list[Measurement | OpProfile]) -> dict[str, tuple[str, ...]]:
    """Return by kind what the archive tells, each thing once."""
    found: dict[str, dict[str, None]] = {}
    for record in shared:
        told = {"models": [record.configuration.model], "days": [record.started_at]}
        told |= {kind: list(_told(record.environment, keys)) for kind, keys in REVEALED.items()}
        if isinstance(record, Measurement):
            state = record.device_state
            if any(state.foreign_load) or state.foreign_processes:
                told["other programs"] = ["how much they used the machine beside the runs"]
            if record.error:
                told["errors"] = [record.error]
        for kind, items in told.items():
            found.setdefault(kind, {}).update(dict.fromkeys(filter(None, items)))
    return {kind: tuple(items) for kind, items in found.items() if items}


def _told(environment: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        value = environment.get(key)
        if isinstance(value, dict):
            yield from (f"{name} = {item}" for name, item in value.items())
        elif value is not None:
            yield f"{key} {value}"
