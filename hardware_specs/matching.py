"""Matching the name that a driver prints to a device: exactly, or not at all.

Matching by a part of the name is how other tools take an L40S for an L4 (`"l4" in name`) and an
A10G for an A10. Here the name must be one that a device file lists (`hardware_specs.names` says
what a spelling may leave out). Where several devices share a name (every Jetson Orin module says
`Orin`), memory, unit count and the module's board tell them apart; where ROCm names none (an empty
name, `AMD Radeon Graphics`), architecture, memory and units do so together.
"""

from __future__ import annotations

from functools import cache
from numbers import Real
from types import NoneType

from hardware_specs.errors import UnknownHardwareError, check_kind
from hardware_specs.names import is_generic, may_name, plain_name, without_form
from hardware_specs.registry import get_hardware, list_hardware
from hardware_specs.spec import HardwareSpec

#: What a driver shows of the nominal capacity: firmware and ECC take up to 8 % (A10G).
_SHOWN_OF_NOMINAL = (0.88, 1.005)

#: Of memory shared with the host, firmware takes a fixed part: much of a module with 4 GB.
_SHOWN_OF_SHARED = (0.8, 1.005)

#: A part with fewer units is another product, or a slice of one.
_UNITS_OF_SPEC = (0.96, 1.04)

#: Devices without a file whose architecture, memory and units are those of one that has.
_TWINS = {"amd-mi355x": "AMD Instinct MI350X"}

_ADVICE = "describe it in a YAML file (see docs/hardware.md) and load it with load_hardware(path)"


def match_device_name(
    name: str,
    memory_bytes: int | None = None,
    *,
    sm_count: int | None = None,
    architecture: str | None = None,
    board: str | None = None,
) -> str:
    """Return the id of the device for which a driver prints this name and these figures.

    The name is what `torch.cuda.get_device_name()`, NVML or ROCm reports; the vendor may be missing on either
    side, since NVIDIA's drivers before 2021 left it out. Memory (B) and SMs or CUs tell apart devices that
    share a name, and so does a Jetson's `board`, the device tree's `compatible`. ROCm's `gcnArchName`, such
    as `gfx942:sramecc+:xnack-`, stands for the name, together with memory and units, where ROCm knows none.

    Raises:
        InvalidInputError: a name that is no text, a figure that is no number.
        UnknownHardwareError: no device lists the name, or several do and nothing tells them apart,
            or memory, units or architecture say that it is a variant no file describes.

    >>> match_device_name("NVIDIA H100 80GB HBM3"), match_device_name("NVIDIA H100 PCIe")
    ('nvidia-h100-sxm5-80gb', 'nvidia-h100-pcie-80gb')
    >>> match_device_name("", 192 * 2**30, sm_count=304, architecture="gfx942")
    'amd-mi300x'
    """
    _check_kinds(name, memory_bytes, sm_count, architecture)
    generic = is_generic(name)
    named = _ids_by_name().get(plain_name(name), ())
    # A form of a product (OAM, VF) is also printed for products cut from it, such as the MI308X.
    ids = named or _ids_by_name().get(without_form(name), ())
    if generic:
        ids = tuple(i for i in list_hardware() if _target(get_hardware(i).compute_capability))
    if not ids:
        raise _no_such_name(name)
    figures = {"memory": memory_bytes, "unit count": sm_count}
    missing = [] if named else [what for what, value in figures.items() if not value]
    if generic and not _target(architecture):
        missing.insert(0, "architecture (gcnArchName)")
    if missing:
        said = f"ROCm named no device (it printed {name!r})" if generic else f"{name!r} may be cut"
        raise _error(
            name,
            ids,
            f"{said}; its {' and '.join(missing)} would tell which it is: "
            "name the device with --hardware ID, or detect it where torch can ask ROCm",
        )
    specs = [get_hardware(hardware_id) for hardware_id in ids]
    fitting = [spec for spec in specs if _fits_all(spec, memory_bytes, sm_count, architecture)]
    on_board = [spec for spec in fitting if any(b in (board or "") for b in spec.boards)]
    fitting = on_board or fitting
    if len(fitting) == 1 and not (generic and fitting[0].id in _TWINS):
        return fitting[0].id
    reported = [f"{memory_bytes / 2**30:.4g} GiB"] if memory_bytes else []
    reported += [f"{sm_count} units"] if sm_count else []
    reported += [target] if (target := _target(architecture)) else []
    said = f"{name!r} with {' and '.join(reported)}"
    described = "; ".join(_described(spec) for spec in fitting or specs)
    if len(fitting) == 1:
        message = (
            f"{said} is {fitting[0].id} or the {_TWINS[fitting[0].id]}, which no file "
            "describes; name it with --hardware ID"
        )
    elif fitting:
        wanted = "memory size" if memory_bytes is None else "unit count"
        alike = memory_bytes is not None and sm_count is not None
        ask = "only the board tells them apart" if alike else f"give the {wanted} reported"
        message = (
            f"{name!r} names several devices ({described}); {ask}, "
            "or name the device with --hardware ID"
        )
    else:
        whose = "that ROCm may mean" if generic else "of that name"
        message = f"{said} is none of the devices {whose} ({described}){_cut(specs)}; {_ADVICE}"
    raise _error(name, tuple(spec.id for spec in fitting) or ids, message)


def could_be(
    spec: HardwareSpec,
    name: str,
    memory_bytes: int | None = None,
    *,
    sm_count: int | None = None,
    architecture: str | None = None,
) -> bool:
    """Tell whether a driver may print this name and these figures for a device.

    Unlike `match_device_name` it asks about one device: names that several share do not exclude it.

    >>> could_be(get_hardware("nvidia-a100-sxm4-80gb"), "A100-SXM4-80GB")
    True
    """
    check_kind("spec", spec, HardwareSpec, "a HardwareSpec")
    _check_kinds(name, memory_bytes, sm_count, architecture)
    return may_name(name, (*spec.device_names, spec.name, spec.id)) and _fits_all(
        spec, memory_bytes, sm_count, architecture
    )


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


def _check_kinds(
    name: object, memory_bytes: object, sm_count: object, architecture: object
) -> None:
    check_kind("name", name, str, "what a driver prints")
    for figure, value in {"memory_bytes": memory_bytes, "sm_count": sm_count}.items():
        check_kind(figure, value, (Real, NoneType), "a number")
    check_kind("architecture", architecture, (str, NoneType), "what ROCm calls gcnArchName")


def _error(name: str, near_ids: tuple[str, ...], message: str) -> UnknownHardwareError:
    error = UnknownHardwareError(name, list_hardware())
    error.near_matches = near_ids
    error.args = (message,)
    return error


@cache
def _ids_by_name() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for hardware_id in list_hardware():
        for plain in dict.fromkeys(map(plain_name, get_hardware(hardware_id).device_names)):
            found[plain] = (*found.get(plain, ()), hardware_id)
    return found


def _fits_all(
    spec: HardwareSpec, memory_bytes: int | None, sm_count: int | None, architecture: str | None
) -> bool:
    target = _target(architecture)
    same = not target or spec.compute_capability in (None, target)
    shown = _SHOWN_OF_SHARED if "unified" in (spec.memory_kind or "") else _SHOWN_OF_NOMINAL
    return (
        same
        and _fits(memory_bytes, spec.memory_bytes, shown)
        and _fits(sm_count, spec.sm_count, _UNITS_OF_SPEC)
    )


def _target(architecture: str | None) -> str:
    """Return `gfx942` of `gfx942:sramecc+:xnack-`, nothing of what is no target of ROCm."""
    target = (architecture or "").partition(":")[0]
    return target if target.startswith("gfx") else ""


def _fits(reported: int | None, specified: int | None, share: tuple[float, float]) -> bool:
    if reported is None or specified is None:
        return True
    return share[0] * specified <= reported <= share[1] * specified


def _cut(specs: list[HardwareSpec]) -> str:
    if any(spec.boards for spec in specs):
        return ", unless a power mode (nvpmodel) has switched units off"
    if any(spec.vendor == "AMD" for spec in specs):
        return "; a partition (DPX, CPX) and a product cut from it have a share of the numbers"
    return ""


def _described(spec: HardwareSpec) -> str:
    size = f"{spec.memory_bytes / 2**30:.4g} GiB" if spec.memory_bytes else "memory set by host"
    return f"{spec.id}: {size}, {spec.sm_count} units"
