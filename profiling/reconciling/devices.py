"""Finding the device that measurements ran on, and checking that a calibration belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hardware_specs.errors import CalibrationError, InvalidInputError, UnknownHardwareError
from hardware_specs.names import plain_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from costmodel.calibration import Calibration
    from hardware_specs import HardwareSpec
    from profiling.records.measurement import Measurement


def device_of(
    records: Sequence[Measurement],
    hardware: str | Path | HardwareSpec | None,
    calibration: Calibration | None,
) -> HardwareSpec:
    """Return the one device that all records ran on.

    A GPU is found by its exact name. A CPU has no data sheet: its figures come from `hardware`, or
    from the calibration that was fitted on it.

    Args:
        records: at least one.
        hardware: what the caller says it is; None to find out.
        calibration: the device's own, if there is one.

    Raises:
        InvalidInputError: several devices, or a name that the given hardware does not have.
        UnknownHardwareError: a GPU that no device file describes.
        CalibrationError: the calibration belongs to another device.
    """
    name = _single_name(records)
    first = records[0]
    on_cpu = first.configuration.device.partition(":")[0] == "cpu"
    if hardware is not None:
        from hardware_specs import get_hardware

        spec = get_hardware(hardware)
        _check_name(spec, name, first.environment, on_cpu)
    elif on_cpu:
        spec = _cpu_of(calibration, name)
    else:
        spec = _gpu_named(name, first.environment)
    if calibration is not None:
        calibration.check_hardware(spec)
        if on_cpu and name is not None and calibration.device_name not in ("", name):
            raise CalibrationError(
                f"the calibration is of {calibration.device_name!r}, the measurements are of "
                f"{name!r}; calibrate the machine that was measured"
            )
    return spec


def _single_name(records: Sequence[Measurement]) -> str | None:
    if not records:
        raise InvalidInputError("there is no measurement to reconcile")
    kinds = sorted({record.configuration.device.partition(":")[0] for record in records})
    # Two spellings of a name are one device.
    spelt = (str(record.environment.get("device_name")) for record in records)
    names = sorted({plain_name(name): name for name in spelt}.values())
    if len(kinds) > 1 or len(names) > 1:
        raise InvalidInputError(
            f"the measurements are of {max(len(kinds), len(names))} devices "
            f"({', '.join(names)}; {', '.join(kinds)}); reconcile each device's apart"
        )
    return None if names[0] == "None" else names[0]


def _gpu_named(name: str | None, environment: Any) -> HardwareSpec:
    from hardware_specs import get_hardware, match_device_name

    if name is None:
        raise InvalidInputError(
            "the measurements do not say which device they ran on; name it with hardware= "
            "(--hardware)"
        )
    try:
        return get_hardware(
            match_device_name(name, environment.get("device_memory_bytes"), **_figures(environment))
        )
    except UnknownHardwareError as error:
        raise InvalidInputError(
            f"the measurements are of {name!r}, which no device file describes: {error}; give its "
            "own file with hardware= (--hardware)"
        ) from error


def _cpu_of(calibration: Calibration | None, name: str | None) -> HardwareSpec:
    if calibration is None or calibration.device is None:
        raise InvalidInputError(
            f"the measurements are of the CPU {name or 'of some machine'!r}, which has no data "
            "sheet; give its calibration, or its file with hardware= (--hardware), which "
            "`vlm-roofline specs detect --out FILE.yaml` writes"
        )
    from hardware_specs import HardwareSpec

    device = calibration.device
    return HardwareSpec(
        id=calibration.hardware_id,
        name=calibration.device_name or calibration.hardware_id,
        vendor="unknown",
        architecture="unknown",
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        peaks={f"{dtype}.vector": peak for dtype, peak in device.peaks.items()},
        sm_count=device.units,
        l2_bytes=int(device.l2_bytes) or None,
        notes=("taken from its calibration",),
    )


def _check_name(spec: HardwareSpec, name: str | None, environment: Any, on_cpu: bool) -> None:
    """Refuse a device that contradicts the records; a spec or a record without a name cannot."""
    from hardware_specs import could_be, match_device_name

    memory = environment.get("device_memory_bytes")
    if name is None or could_be(spec, name, memory, **_figures(environment)):
        return
    if on_cpu:
        if not spec.device_names and spec.id != "cpu-measured":
            return
    elif not spec.device_names:
        # A file of the user's own, without names: only a device that has a file contradicts it.
        try:
            match_device_name(name, memory, **_figures(environment))
        except UnknownHardwareError:
            return
    raise InvalidInputError(
        f"the measurements are of {name!r}, not of {spec.name!r} ({spec.id}); reconcile them with "
        "the device they ran on"
    )


def _figures(environment: Any) -> dict[str, Any]:
    return {
        "sm_count": environment.get("sm_count"),
        "architecture": environment.get("gcn_architecture"),
    }
