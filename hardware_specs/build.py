"""Building a `HardwareSpec` from a checked device file: keys, units and sources are verified."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError
from hardware_specs.schema import LINK_KINDS, first_of
from hardware_specs.sources import list_sources
from hardware_specs.spec import (
    ACCUMULATORS,
    DTYPES,
    ENGINES,
    MEMORY,
    NAMED,
    QUANTITIES,
    HardwareSpec,
    Link,
    MeasuredRate,
    Provenance,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Sources that need no document: what a user states, and what was measured on the machine itself.
UNDOCUMENTED = frozenset({"user", "measured"})

#: Quantity -> lowest and highest value anything could have, and the unit to write it in.
_LIMITS: dict[str, tuple[float, float, str]] = {
    "sm_count": (1, 1e7, "units"),
    "boost_hz": (1e6, 1e11, "Hz"),
    "matrix_clock_hz": (1e6, 1e11, "Hz"),
    "l2_bytes": (1024, 1e13, "B"),
    "llc_bytes": (1024, 1e13, "B"),
    "tdp_w": (0.1, 1e5, "W"),
    "nominal_bytes": (1e6, 1e15, "B"),
    "reported_bytes": (1e6, 1e15, "B"),
    "bandwidth_bytes_per_s": (1e7, 1e16, "B/s"),
    "data_rate_bits_per_pin_per_s": (1e6, 1e13, "bit/s"),
    "bytes_per_s_per_direction": (1e5, 1e15, "B/s"),
    "bytes_per_s_bidirectional": (1e5, 1e15, "B/s"),
    "year": (1970, 2100, "years"),
    "peak": (1e8, 1e20, "op/s"),
}

_SOURCED = (*QUANTITIES, "compute_capability")
_UNSUPPORTED = re.compile(r"([a-z0-9.]+)(?: \((.+)\))?")


def build_spec(device: dict[str, Any], *, hardware_id: str) -> HardwareSpec:
    """Return the spec that a device file describes, from what `hardware_specs.schema.check_device` returned.

    Raises:
        InvalidFileError: a peak key, unit, source or id does not hold; the message names each.
    """
    problems = list(_problems(device, hardware_id))
    if problems:
        raise InvalidFileError(first_of(problems))
    memory = device["memory"]
    provenance = {"memory": _provenance(memory)}
    values: dict[str, Any] = {key: device[key] for key in NAMED if key in device}
    values |= {name: memory[key] for key, name in MEMORY.items() if key in memory}
    for key in _SOURCED:
        if key in device:
            values[key] = device[key]["value"]
            provenance[key] = _provenance(device[key])
    if "reported_bytes" in memory:
        values["memory_reported_bytes"] = memory["reported_bytes"]["value"]
        if "source" in memory["reported_bytes"]:
            provenance["memory_reported_bytes"] = _provenance(memory["reported_bytes"])
    if "interconnect" in device:
        provenance["links"] = _provenance(device["interconnect"])
    provenance |= {key: _provenance(peak) for key, peak in device["peaks"].items()}
    interconnect = device.get("interconnect", {})
    return HardwareSpec(
        id=hardware_id,
        name=device["name"],
        vendor=device["vendor"],
        architecture=device["architecture"],
        **values,
        links={kind: Link(**interconnect[kind]) for kind in LINK_KINDS if kind in interconnect},
        links_absent=interconnect.get("absent", ()),
        peaks={key: peak["value"] for key, peak in device["peaks"].items()},
        flops_per_clock_per_sm=device.get("flops_per_clock_per_sm", {}),
        clock_inferred=frozenset(
            key for key, peak in device["peaks"].items() if peak.get("clock_inferred")
        ),
        unsupported=dict(_split_unsupported(entry) for entry in device.get("unsupported", ())),
        measured=tuple(MeasuredRate(**entry) for entry in device.get("measured_not_peak", ())),
        notes=device.get("notes", ()),
        provenance=provenance,
        own_sources=device.get("sources", {}),
    )


def _problems(device: dict[str, Any], hardware_id: str) -> Iterator[str]:
    if device.get("id", hardware_id) != hardware_id:
        yield f"id: {device['id']!r} must be the file's name without its ending, {hardware_id!r}"
    for key in dict.fromkeys((*device["peaks"], *device.get("flops_per_clock_per_sm", {}))):
        yield from _key_problems(key)
    for entry in device.get("unsupported", ()):
        match = _UNSUPPORTED.fullmatch(entry)
        known = (*DTYPES, *ENGINES, *(f"{d}.{e}" for d in DTYPES for e in ENGINES))
        if match is None or match[1] not in known:
            yield f"unsupported: {entry!r} is no dtype, engine or dtype.engine, with a remark in ()"
    for absent in device.get("interconnect", {}).get("absent", ()):
        if absent not in LINK_KINDS:
            yield f"interconnect.absent: {absent!r} is no link; there is: {', '.join(LINK_KINDS)}"
    yield from _limit_problems(device)
    yield from _source_problems(device)


def _key_problems(key: str) -> Iterator[str]:
    dtype, _, rest = key.partition(".")
    engine, _, accumulator = rest.partition(".")
    if dtype not in DTYPES:
        yield f"{key!r}: unknown dtype {dtype!r}; there is: {', '.join(DTYPES)}"
    elif engine not in ENGINES:
        yield f"{key!r}: unknown engine {engine!r} after {dtype}.; there is: {', '.join(ENGINES)}"
    elif accumulator and (accumulator not in ACCUMULATORS or engine != "matrix"):
        yield f"{key!r}: only matrix peaks take an accumulator, {' or '.join(ACCUMULATORS)}"
    elif key.endswith("."):
        yield f"{key!r}: ends in a dot"


def _limit_problems(device: dict[str, Any]) -> Iterator[str]:
    memory, interconnect = dict(device["memory"]), device.get("interconnect", {})
    found = [(key, key, device[key]["value"]) for key in QUANTITIES if key in device]
    found += [("year", "year", device["year"])] if "year" in device else []
    memory |= (
        {"reported_bytes": memory["reported_bytes"]["value"]} if "reported_bytes" in memory else {}
    )
    found += [(f"memory.{key}", key, memory[key]) for key in _LIMITS if key in memory]
    for kind in LINK_KINDS:
        link = interconnect.get(kind, {})
        found += [(f"interconnect.{kind}.{key}", key, link[key]) for key in _LIMITS if key in link]
    found += [(f"peaks.{key}", "peak", peak["value"]) for key, peak in device["peaks"].items()]
    for where, quantity, value in found:
        low, high, unit = _LIMITS[quantity]
        if not low <= value <= high:
            yield f"{where}: {value:g} is outside {low:g}..{high:g} {unit}; write it in {unit}"
    nominal, reported = memory.get("nominal_bytes"), memory.get("reported_bytes")
    if nominal and reported and reported > nominal:
        yield "memory.reported_bytes: the driver never shows more than the nominal capacity"


def _source_problems(device: dict[str, Any]) -> Iterator[str]:
    own = device.get("sources", {})
    named = [("memory", device["memory"]), ("interconnect", device.get("interconnect", {}))]
    named += [(key, device[key]) for key in _SOURCED if key in device]
    named += [(f"peaks.{key}", peak) for key, peak in device["peaks"].items()]
    named += [("memory.reported_bytes", device["memory"].get("reported_bytes", {}))]
    documents = list_sources()
    for where, entry in named:
        for source in entry.get("source", ()):
            if source not in own and source not in UNDOCUMENTED and source not in documents:
                yield (
                    f"{where}: unknown source {source!r}; name a document of data/sources.yaml "
                    "or add it under sources: in this file"
                )


def _provenance(entry: dict[str, Any]) -> Provenance:
    return Provenance(
        source=entry.get("source", ("user",)),
        evidence=entry.get("evidence", "user"),
        note=entry.get("note", ""),
        others_say={
            key: value if isinstance(value, str) else f"{value:g}"
            for key, value in entry.get("others_say", {}).items()
        },
    )


def _split_unsupported(entry: str) -> tuple[str, str]:
    match = _UNSUPPORTED.fullmatch(entry)
    return (match[1], match[2] or "") if match else (entry, "")
