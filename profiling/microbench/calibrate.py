"""`calibrate`: micro-benchmarks of the device at hand, fitted into a calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiling.microbench.suite import run_microbenchmarks
from profiling.subject.models import canonical_dtype, model_config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from costmodel.calibration import Calibration
    from hardware_specs import HardwareSpec
    from profiling.microbench.suite import Suite


def calibrate(
    device: str = "cuda",
    *,
    hardware: str | HardwareSpec | None = None,
    model: str = "llava-1.5-7b",
    dtypes: Sequence[str] = ("bf16",),
    suite: Suite | None = None,
    table: str | Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Measure the device's ops and fit a calibration to them.

    Args:
        device: `cuda`, `cuda:N` or `cpu`.
        hardware: what the device is; recognised by its name when None.
        model: the model whose widths are measured.
        dtypes: floating and quantised labels.
        suite: which sizes are measured, and for how long.
        table: where to keep the measured ops as well.
        on_progress: called with (done, total).

    Raises:
        DeviceUnavailableError: no such device.
        UnknownHardwareError: the device is not one of the shipped ones.
        CalibrationError: too little could be measured.
    """
    from costmodel.calibration import fit_calibration
    from hardware_specs import detect_hardware, get_hardware

    # Recognising a CPU measures it, which takes seconds: what is cheap to refuse comes first.
    model_config(model)
    for dtype in dtypes:
        canonical_dtype(dtype)
    spec = (
        get_hardware(hardware)
        if hardware is not None
        else detect_hardware(device.partition(":")[0])
    )
    ops = run_microbenchmarks(
        device, model=model, dtypes=dtypes, suite=suite, on_progress=on_progress
    )
    if table is not None:
        ops.write(table)
    return fit_calibration(ops.frame(), spec)
