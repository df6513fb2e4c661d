"""Which arithmetic a device has, and how fast it multiplies matrices in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware_specs.errors import MissingPeakError

if TYPE_CHECKING:
    from hardware_specs import HardwareSpec

#: What stands in for a dtype that a device does not have, best first.
_INSTEAD = {
    "fp16": ("fp16", "bf16", "fp32"),
    "bf16": ("bf16", "fp16", "fp32"),
    "fp32": ("fp32", "bf16", "fp16"),
}


def computes(hardware: HardwareSpec, dtype: str) -> bool:
    """Tell whether a device multiplies matrices in a dtype, at a known rate.

    >>> from hardware_specs import get_hardware
    >>> v100 = get_hardware("nvidia-v100-sxm2-32gb")
    >>> computes(v100, "fp16"), computes(v100, "bf16")
    (True, False)
    """
    try:
        matrix_peak(hardware, dtype)
    except MissingPeakError:
        return False
    return True


def on_device(dtype: str, hardware: HardwareSpec) -> tuple[str, bool]:
    """Return the dtype that a device computes in for one asked for, and whether it is another."""
    for found in _INSTEAD[dtype]:
        if computes(hardware, found):
            return found, found != dtype
    hardware.peak(dtype)  # raises, and names what there is
    return dtype, False


def matrix_peak(hardware: HardwareSpec, dtype: str) -> float:
    """Return the dense peak of matrix products in a dtype or a calibration label such as `w4a16`, in FLOP/s.

    Devices without any matrix unit (most CPUs, Apple's GPUs) multiply matrices on their vector units,
    and so does every device for FP32 and FP64 where its matrix units have none.

    Raises:
        MissingPeakError: the device has no such path; names those it has.

    >>> from hardware_specs import get_hardware
    >>> matrix_peak(get_hardware("nvidia-a100-sxm4-80gb"), "w4a16") / 1e12  # FP16 arithmetic
    312.0
    """
    has_matrix_units = any(".matrix" in key for key in hardware.peaks)
    arithmetic = dtype.removesuffix("-block")
    if dtype.startswith("w"):
        arithmetic = f"int{dtype.partition('a')[2]}"
        if dtype.endswith("a32"):
            arithmetic = "fp32"
        if dtype.endswith("a16"):
            # Which 16-bit format the weights are expanded to is the numerics' affair; rates are alike.
            arithmetic = "fp16"
            engine = "matrix" if has_matrix_units else "vector"
            if hardware.peak_or_none("fp16", engine=engine) is None:
                arithmetic = "bf16"
    if has_matrix_units:
        matrix = hardware.peak_or_none(arithmetic, engine="matrix")
        if matrix is not None or arithmetic not in ("fp32", "fp64"):
            return hardware.peak(arithmetic, engine="matrix")
    return hardware.peak(arithmetic, engine="vector")
