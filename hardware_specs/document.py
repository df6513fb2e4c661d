"""Converting a `HardwareSpec` to plain data: the document of a device file, or JSON."""

from __future__ import annotations

from dataclasses import asdict, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError, check_kind
from hardware_specs.files.reading import as_path
from hardware_specs.files.writing import write_file
from hardware_specs.spec import MEMORY, NAMED, QUANTITIES, HardwareSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hardware_specs.spec import Provenance


def spec_to_dict(spec: HardwareSpec) -> dict[str, Any]:
    """Return every attribute of a spec by its name, as JSON knows it; what is None stays None.

    >>> from hardware_specs import get_hardware
    >>> spec_to_dict(get_hardware("nvidia-t4"))["peaks"]["int8.matrix"]
    130000000000000.0
    """
    return {f.name: _plain(getattr(spec, f.name)) for f in fields(spec)}


def device_document(spec: HardwareSpec) -> dict[str, Any]:
    """Return the document of a device file that `load_hardware` reads back as this spec."""
    origin = spec.provenance
    document = {key: getattr(spec, key) for key in ("id", "name", "vendor", "architecture")}
    document |= {key: _plain(value) for key in NAMED if (value := getattr(spec, key))}
    for key in ("compute_capability", *QUANTITIES):
        if getattr(spec, key) is not None:
            document[key] = {"value": getattr(spec, key), **_origin(origin.get(key))}
    document["memory"] = {
        key: value for key, name in MEMORY.items() if (value := getattr(spec, name)) is not None
    } | _origin(origin.get("memory"))
    if "memory_reported_bytes" in origin:
        document["memory"]["reported_bytes"] = {
            "value": spec.memory_reported_bytes,
            **_origin(origin["memory_reported_bytes"]),
        }
    if spec.links or spec.links_absent:
        links = {kind: _given(asdict(link)) for kind, link in spec.links.items()}
        absent = {"absent": list(spec.links_absent)} if spec.links_absent else {}
        document["interconnect"] = links | absent | _origin(origin.get("links"))
    document["peaks"] = {
        key: {"value": value, **_origin(origin.get(key))}
        | ({"clock_inferred": True} if key in spec.clock_inferred else {})
        for key, value in spec.peaks.items()
    }
    rest = {
        "flops_per_clock_per_sm": dict(spec.flops_per_clock_per_sm),
        "unsupported": [f"{k} ({v})" if v else k for k, v in spec.unsupported.items()],
        "measured_not_peak": [_given(asdict(rate)) for rate in spec.measured],
        "notes": list(spec.notes),
        "sources": dict(spec.own_sources),
    }
    return document | {key: value for key, value in rest.items() if value}


def save_hardware(spec: HardwareSpec, path: str | Path) -> None:
    """Write a spec as a device file, so that it can be edited and passed on.

    Raises:
        InvalidInputError: the file's name is not the device's id.
        OutputError: the file cannot be written.
    """
    import yaml

    check_kind("spec", spec, HardwareSpec, "a HardwareSpec")
    target = as_path(path)
    if target.suffix not in (".yaml", ".yml") or target.stem != spec.id:
        raise InvalidInputError(f"a device file bears the device's id: {spec.id}.yaml, not {path}")
    text = yaml.safe_dump(device_document(spec), sort_keys=False, allow_unicode=True, width=100)
    write_file(target, text)


def _origin(provenance: Provenance | None) -> dict[str, Any]:
    if provenance is None:
        return {}
    found: dict[str, Any] = {"source": list(provenance.source), "evidence": provenance.evidence}
    if provenance.note:
        found["note"] = provenance.note
    if provenance.others_say:
        found["others_say"] = dict(provenance.others_say)
    return found


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, MappingProxyType | dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return value
