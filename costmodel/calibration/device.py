"""The few datasheet numbers of a `HardwareSpec` that a calibration's efficiencies refer to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.calibration.parameters import Device

if TYPE_CHECKING:
    from hardware_specs import HardwareSpec

_DTYPES = ("bf16", "fp16", "fp32", "tf32", "fp8", "int8", "int4")


def device_of(hardware: HardwareSpec) -> Device:
    """Return the numbers that a calibration keeps beside its parameters.

    FP32 products run on the vector units where no matrix unit takes FP32.

    Args:
        hardware: the device.
    """
    peaks = {}
    for dtype in _DTYPES:
        peak = hardware.peak_or_none(dtype)
        if peak is None and dtype in ("fp32", "fp16", "bf16"):
            peak = hardware.peak_or_none(dtype, engine="vector")
        if peak is not None:
            peaks[dtype] = peak
    return Device(
        peaks=peaks,
        vector_flop_per_s=hardware.peak_or_none("fp32", engine="vector"),
        bandwidth_bytes_per_s=hardware.bandwidth_bytes_per_s,
        units=hardware.sm_count or 1,
        l2_bytes=float(hardware.l2_bytes or 0),
    )
