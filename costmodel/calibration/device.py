"""The few datasheet numbers of a `HardwareSpec` that a calibration's efficiencies refer to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.calibration.parameters import Device

if TYPE_CHECKING:
    from hardware_specs import HardwareSpec

_DTYPES = ("bf16", "fp16", "fp64", "fp32", "tf32", "fp8", "fp4", "int8", "int4")


def device_of(hardware: HardwareSpec) -> Device:
    """Return the numbers that a calibration keeps beside its parameters.

    FP32 and FP64 products run on the vector units where no matrix unit takes them.
    """
    peaks = {}
    for dtype in _DTYPES:
        peak = hardware.peak_or_none(dtype)
        if peak is None and dtype in ("fp64", "fp32", "fp16", "bf16"):
            peak = hardware.peak_or_none(dtype, engine="vector")
        if peak is not None:
            peaks[dtype] = peak
    return Device(
        peaks=peaks,
        vector_flop_per_s=hardware.peak_or_none("fp32", engine="vector"),
        bandwidth_bytes_per_s=hardware.bandwidth_bytes_per_s,
        units=hardware.sm_count or 1,
        # The last cache before memory: behind the L2 on CPUs and some GPUs.
        l2_bytes=float(hardware.llc_bytes or hardware.l2_bytes or 0),
    )


def raised(device: Device, hardware: HardwareSpec, rates: dict[str, float]) -> Device:
    """Return the device with peaks that were measured too low raised to the best rate seen.

    A datasheet's peak is a roof and stands. The peak of a device described by measuring it is only
    the best of a few products, which a busy machine can make too low by far.

    Args:
        device: from `device_of`.
        hardware: the device that `device_of` was given.
        rates: best FLOP/s seen, by the name of the arithmetic.
    """
    peaks = dict(device.peaks)
    for name, rate in rates.items():
        keys = [key for key in hardware.peaks if key.partition(".")[0] == name]
        if name in peaks and all(
            key in hardware.provenance and hardware.provenance[key].evidence == "measured"
            for key in keys
        ):
            peaks[name] = max(peaks[name], rate)
    return replace(device, peaks=peaks)
