"""Matching the name that a driver prints to a device: exactly, or not at all.

Matching by a part of the name is how other tools take an L40S for an L4 (`"l4" in name`) and an
A10G for an A10. Here the name must be one that a device file lists; where several devices share a
name (every Jetson Orin module says `Orin`), memory size and unit count tell them apart.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from hardware_specs.errors import UnknownHardwareError
from hardware_specs.registry import get_hardware, list_hardware

if TYPE_CHECKING:
    from hardware_specs.spec import HardwareSpec

#: What a driver shows of the nominal capacity: firmware and ECC take up to 8 % (A10G).
_SHOWN_OF_NOMINAL = (0.88, 1.005)

#: A part with fewer units is another product, or a slice of one.
_UNITS_OF_SPEC = (0.96, 1.04)

_ADVICE = "describe it in a YAML file (see docs/hardware.md) and load it with load_hardware(path)"


def match_device_name(
    name: str, memory_bytes: int | None = None, *, sm_count: int | None = None
) -> str:
    """Return the id of the device whose driver prints exactly this name.

    A leading `NVIDIA ` may be missing on either side: drivers before 2021 left it out.

    Args:
        name: what `torch.cuda.get_device_name()`, NVML or ROCm reports.
        memory_bytes: the total memory reported with it, B; tells apart devices that share a name.
        sm_count: the SMs or CUs reported with it.

    Raises:
        UnknownHardwareError: no device lists the name, or several do and nothing tells them apart,
            or memory or units say that it is a variant no file describes.

    >>> match_device_name("NVIDIA H100 80GB HBM3"), match_device_name("NVIDIA H100 PCIe")
    ('nvidia-h100-sxm5-80gb', 'nvidia-h100-pcie-80gb')
    """
    ids = _ids_by_name().get(_plain(name), ())
    if not ids:
        raise _no_such_name(name)
    specs = [get_hardware(hardware_id) for hardware_id in ids]
    fitting = [
        spec
        for spec in specs
        if _fits(memory_bytes, spec.memory_bytes, _SHOWN_OF_NOMINAL)
        and _fits(sm_count, spec.sm_count, _UNITS_OF_SPEC)
    ]
    if len(fitting) == 1:
        return fitting[0].id
    reported = [f"{memory_bytes / 2**30:.4g} GiB"] if memory_bytes else []
    reported += [f"{sm_count} units"] if sm_count else []
    described = "; ".join(_described(spec) for spec in specs)
    if fitting:
        message = f"{name!r} names several devices ({described}); give the memory size reported"
    else:
        message = (
            f"{name!r} with {' and '.join(reported)} is none of the devices of that name "
            f"({described}); {_ADVICE}"
        )
    raise _error(name, ids, message)


def _no_such_name(name: str) -> UnknownHardwareError:
    listed = {listed: i for i in list_hardware() for listed in get_hardware(i).device_names}
    near = UnknownHardwareError(name, listed).near_matches
    names = ", ".join(f"{n!r} ({listed[n]})" for n in near)
    hint = f"; near names, all other devices: {names}" if near else ""
    if "MIG" in name.split():
        hint = "; a MIG slice has a share of the device, so the device's numbers are not its own"
    return _error(
        name,
        tuple(dict.fromkeys(listed[n] for n in near)),
        f"no device file lists the name {name!r}{hint}; {_ADVICE}",
    )


def _error(name: str, near_ids: tuple[str, ...], message: str) -> UnknownHardwareError:
    error = UnknownHardwareError(name, list_hardware())
    error.near_matches = near_ids
    error.args = (message,)
    return error


@cache
def _ids_by_name() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for hardware_id in list_hardware():
        for name in get_hardware(hardware_id).device_names:
            found[_plain(name)] = (*found.get(_plain(name), ()), hardware_id)
    return found


def _plain(name: str) -> str:
    return name.strip().removeprefix("NVIDIA ")


def _fits(reported: int | None, specified: int | None, share: tuple[float, float]) -> bool:
    if reported is None or specified is None:
        return True
    return share[0] * specified <= reported <= share[1] * specified


def _described(spec: HardwareSpec) -> str:
    size = f"{spec.memory_bytes / 2**30:.4g} GiB" if spec.memory_bytes else "memory set by host"
    return f"{spec.id}: {size}, {spec.sm_count} units"
