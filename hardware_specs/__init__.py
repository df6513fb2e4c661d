"""What a device can do: peaks, memory, bandwidth, links, with the source of every number.

    get_hardware("nvidia-a100-sxm4-80gb")   a shipped device, by id
    list_hardware()                         the ids there are
    detect_hardware()                       the device of this machine
    load_hardware("my_gpu.yaml")            a device of your own

A device is one SKU: form factor and memory size. Peaks are dense, in op/s (1 FMA = 2), keyed
`dtype.engine[.accumulator]`; sizes are bytes, bandwidths B/s (decimal). A number that is
not published is absent, never 0. Importing this package imports neither pydantic nor yaml: they come
with the first look-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware_specs.lazily import public

if TYPE_CHECKING:
    from hardware_specs.cpu import measure_cpu
    from hardware_specs.detect import detect_hardware
    from hardware_specs.document import save_hardware
    from hardware_specs.errors import (
        DeviceUnavailableError,
        InvalidFileError,
        InvalidInputError,
        MissingPeakError,
        UnknownHardwareError,
        VlmRooflineError,
    )
    from hardware_specs.matching import could_be, match_device_name
    from hardware_specs.nodes import Node, get_node, list_nodes, node_of
    from hardware_specs.registry import alias_note, get_hardware, list_hardware, load_hardware
    from hardware_specs.sources import Disagreement, Source, list_disagreements, list_sources
    from hardware_specs.spec import HardwareSpec, Link, MeasuredRate, Provenance

__all__ = [
    "DeviceUnavailableError",
    "Disagreement",
    "HardwareSpec",
    "InvalidFileError",
    "InvalidInputError",
    "Link",
    "MeasuredRate",
    "MissingPeakError",
    "Node",
    "Provenance",
    "Source",
    "UnknownHardwareError",
    "VlmRooflineError",
    "alias_note",
    "could_be",
    "detect_hardware",
    "get_hardware",
    "get_node",
    "list_disagreements",
    "list_hardware",
    "list_nodes",
    "list_sources",
    "load_hardware",
    "match_device_name",
    "measure_cpu",
    "node_of",
    "save_hardware",
]

__getattr__, __dir__ = public(
    __name__,
    {
        "cpu": "measure_cpu",
        "detect": "detect_hardware",
        "document": "save_hardware",
        "errors": "DeviceUnavailableError InvalidFileError InvalidInputError "
        "MissingPeakError UnknownHardwareError VlmRooflineError",
        "matching": "could_be match_device_name",
        "nodes": "get_node list_nodes Node node_of",
        "registry": "alias_note get_hardware list_hardware load_hardware",
        "sources": "Disagreement list_disagreements list_sources Source",
        "spec": "HardwareSpec Link MeasuredRate Provenance",
    },
)
