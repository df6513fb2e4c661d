"""`calibrate`: micro-benchmarks of the device at hand, fitted into a calibration."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.models import load_model
from costmodel.precision.arithmetic import matrix_peak
from hardware_specs.errors import CalibrationError, check_kind, check_list
from profiling.microbench.suite import default_suite, run_microbenchmarks
from profiling.subject.models import QUANTISED_DTYPES, canonical_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from costmodel.calibration import Calibration
    from hardware_specs import HardwareSpec
    from profiling.microbench.suite import Suite
    from profiling.microbench.table import OpTable


def calibrate(
    device: str = "cuda",
    *,
    hardware: str | HardwareSpec | None = None,
    model: str = "llava-1.5-7b",
    dtypes: Sequence[str] | None = None,
    suite: Suite | None = None,
    table: str | Path | None = None,
    near: Calibration | str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Measure the device's ops and fit a calibration to them.

    On a GPU the default suite takes at most a minute; what it had to leave out is in the result's
    warnings.

    Args:
        device: `cuda`, `cuda:N` or `cpu`.
        hardware: what the device is; recognised by its name when None.
        model: the model whose widths are measured.
        dtypes: floating and quantised labels; None for fp32 on a CPU and bf16 on a GPU.
        suite: which sizes are measured, and for how long.
        table: where to keep the measured ops as well.
        near: the calibration of a device of the same architecture, as `fit_calibration` takes it.
        on_progress: called with (done, total).

    Raises:
        DeviceUnavailableError: no such device.
        UnknownHardwareError: the device is not one of the shipped ones.
        MissingPeakError: it has no peak in a floating dtype, which no efficiency could refer to.
        CalibrationError: too little could be measured, or a fit of the products is refused by the
            points that it did not see; its `measured` has the ops and the device.
    """
    from costmodel.calibration import Calibration, fit_calibration
    from hardware_specs import detect_hardware, get_hardware

    # Recognising a CPU measures it, which takes seconds: what is cheap to refuse comes first.
    load_model(model)
    check_kind("device", device, str, "cuda, cuda:N or cpu")
    check_list("dtypes", dtypes or (), "a list of labels such as bf16")
    kind = device.partition(":")[0]
    labels = [canonical_dtype(dtype) for dtype in dtypes or ["fp32" if kind == "cpu" else "bf16"]]
    if isinstance(near, str):
        near = Calibration.load(near)
    spec = get_hardware(hardware) if hardware is not None else detect_hardware(kind)
    for label in labels:
        if label not in QUANTISED_DTYPES:
            matrix_peak(spec, label)
    ops = run_microbenchmarks(
        device, model=model, dtypes=labels, suite=suite, on_progress=on_progress
    )
    if table is not None:
        ops.write(table)
    try:
        found = fit_calibration(ops.frame(), spec, near=near)
        for label in labels:
            check_products(found, label, ops)
    except CalibrationError as error:
        error.measured = ops, spec
        raise
    said = left_out(ops, suite or default_suite(device))
    return found if said is None else replace(found, warnings=(*found.warnings, said))


def check_products(found: Calibration, dtype: str, ops: OpTable) -> None:
    """Refuse a calibration whose products were measured and could not be fitted.

    Raises:
        CalibrationError: a fit that its own held-out points refuse, with the reason.
    """
    from costmodel.calibration.dtypes import canonical

    measured = any(row["op_class"] == "gemm" and row["dtype"] == dtype for row in ops.rows)
    known = found.classes.get(("gemm", canonical(dtype)))
    if measured and (known is None or not known.measured):
        reasons = [text for text in found.warnings if text.startswith("gemm in")]
        raise CalibrationError(
            f"the products in {dtype} that were measured make no calibration: "
            + ("; ".join(reasons) or "there are too few of them")
        )


def left_out(ops: OpTable, suite: Suite) -> str | None:
    """Return what more time would have measured, None where nothing was left out for want of it."""
    names = [name for name, reason in ops.skipped.items() if "were used up" in reason]
    if not names:
        return None
    classes = Counter(name.partition(" ")[0] for name in names)
    timed = sum(row["op_class"] != "host" for row in ops.rows)
    more_s = suite.total_s * len(names) / max(1, timed)
    return (
        f"{len(names)} of {timed + len(names)} ops left out after {suite.total_s:g} s "
        f"({', '.join(f'{name} {number}' for name, number in classes.items())}); about {more_s:.0f} s "
        "more would measure them, and narrow the intervals of these classes"
    )
