"""`fit_calibration`: from tables of measured ops to a calibration of one device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.calibration import Calibration
from costmodel.calibration.checks import (
    TimesError,
    best_rates,
    trusted,
    usable,
)
from costmodel.calibration.class_fit import curve_shapes, fit_class
from costmodel.calibration.classes import kind_of_class, peak_of
from costmodel.calibration.device import raised
from costmodel.calibration.foreign import in_seconds
from costmodel.calibration.parameters import ClassParameters, Parameter
from costmodel.calibration.tables import group_points, host_seconds, read_tables
from hardware_specs.errors import CalibrationError, check_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import pandas as pd

    from costmodel.calibration.parameters import Device
    from costmodel.calibration.tables import Group
    from hardware_specs import HardwareSpec

_FLOATING = ("bf16", "fp16", "fp32")


def fit_calibration(
    table: Any,
    hardware: HardwareSpec | str,
    *,
    software: str = "",
    date: str = "",
    attribution: str = "",
    device_names: Collection[str] = (),
    time_unit: str | None = None,
    model: Any = None,
    curves: bool | Sequence[tuple[int, int]] = True,
    curve_rows: Collection[int] | None = None,
    max_points: int = 1500,
    resamples: int = 40,
    seed: int = 0,
    base: Calibration | None = None,
    near: Calibration | str | None = None,
    progress: Callable[[Iterable[Any], str, int], Iterable[Any]] | None = None,
) -> Calibration:
    """Fit the time law to measured ops and return the device's calibration.

    Classes that the tables do not cover keep the assumptions of `base` and say so; what could not
    be fitted, and why, is in the result's `warnings`. Each fitted class carries a bootstrap interval
    per parameter and a prediction interval from points that its fit did not see.

    Args:
        table: measured ops: a DataFrame, a CSV or Parquet path, a folder, or a list of these. GEMM
            tables have the columns dtype, m, n, k, time_s; attention tables dtype, batch_size,
            seq_len, [kv_len,] heads, [kv_heads,] head_dim, causal, time_s; pointwise tables bytes,
            [flops, op_class,] time_s. A `device` column is checked against the device's names.
            Public tables in the layouts of `costmodel.calibration.foreign` are read as they are.
        hardware: the device or its id, for the datasheet numbers efficiencies refer to.
        software: what ran the measurements; kept in the file.
        date: when they were made, ISO 8601.
        attribution: whose they are, under which licence.
        device_names: further names under which the device may appear.
        time_unit: `s`, `ms`, `us` or `ns`: the unit of a column `time` in tables without `time_s`.
        model: whose layers were timed, as `estimate` takes it: for public layouts that do not hold the
            model's widths.
        curves: whether weight matrices measured at six or more row counts get a correction of their
            own (the model-specific tier), or the (n, k) pairs that do.
        curve_rows: the row counts kept for those corrections; None keeps all that were measured.
        max_points: more points than this are thinned out at random; the rest is held out.
        resamples: bootstrap resamples behind each parameter's interval.
        seed: fixes every random choice.
        base: what the other classes are taken from; None is `generic`.
        near: the calibration, or the name of a shipped one, of a device of the same architecture. Fits
            may start from its parameters, held as close to them as predicts points outside the fit
            best; classes that the tables lack are transferred from it, twice as uncertain.
        progress: wraps an iterable in a progress bar: (items, description, total).

    Raises:
        CalibrationError: foreign device, a column with values it cannot have, times in two units, a
            held-out error above 100 %, or nothing to fit; lists every reason.

    >>> fit_calibration([], "nvidia-a100-sxm4-80gb")
    Traceback (most recent call last):
    ...
    hardware_specs.errors.CalibrationError: no table was given; name CSV or Parquet files, or a folder
    """
    from hardware_specs import get_hardware

    spec = get_hardware(hardware)
    if base is not None:
        check_kind("base", base, Calibration, "a Calibration")
    start = (base or Calibration.load("generic")).for_hardware(spec)
    text = None
    if model is not None:
        from costmodel.models import load_model

        text = load_model(model).text
    tables = [(name, in_seconds(name, each, time_unit, text)) for name, each in read_tables(table)]
    names = (*spec.device_names, *device_names)
    host = host_seconds(tables)
    groups, remarks = group_points(tables, (*names, spec.name, spec.id) if names else ())
    assert start.device is not None  # noqa: S101 - bound two lines above
    device = raised(start.device, spec, best_rates(groups))
    if device != start.device:
        remarks.append("the device's measured peaks lie below its products: raised to the best")
        start = replace(start, device=device)
    other = Calibration.load(near) if isinstance(near, str) else near
    classes = dict(start.classes)
    moved = {} if other is None else moved_to(other, device)
    classes |= moved
    fitted: list[ClassParameters] = []
    refused: list[str] = []
    steps: Iterable[Group] = groups
    if progress is not None:
        steps = progress(groups, "fitting", len(groups))
    for group in steps:
        try:
            points, notes = usable(group, device)
            remarks += notes
            bends = curve_shapes(points, curves)
            found, notes = fit_class(
                points, device, bends, curve_rows, max_points, resamples, seed,
                moved.get((group.op_class, group.dtype)),
            )  # fmt: skip
            remarks += notes
            trusted(found)
            fitted.append(found)
        except TimesError:
            raise
        except CalibrationError as error:
            refused.append(str(error))
    if not fitted:
        reasons = "; ".join(refused + remarks) or "the tables hold no points"
        raise CalibrationError(f"nothing could be fitted: {reasons}")
    for found in fitted:
        classes[found.op_class, found.dtype] = found
    for found in fitted:
        twin = (_TWINS.get(found.op_class, ""), found.dtype)
        held = classes.get(twin)
        if twin[0] and (held is None or not held.measured):
            classes[twin] = _alike(found, twin[0])
    kept = {each.op_class for each in fitted}
    dtypes = sorted({each.dtype for each in fitted if each.op_class == "gemm"})
    if dtypes:
        others = sorted({d for c, d in classes if c == "gemm"} - set(dtypes))
        if len(dtypes) == 1 and others:
            remarks.append(
                f"GEMMs in {dtypes[0]} only: {', '.join(others)} keep assumed parameters"
            )
    kept |= {op_class for op_class, _ in moved}
    assumed = [each for each in dict.fromkeys(c for c, _ in classes) if each not in kept]
    if assumed:
        remarks.append(f"not measured, parameters assumed: {', '.join(assumed)}")
    return _with_host(
        replace(
            start,
            device_name=start.device_name if spec.device_names else _only_name(tables, spec),
            software=software,
            date=date,
            attribution=attribution,
            classes=classes,
            warnings=tuple(refused + remarks),
        ),
        host,
    )


def _only_name(tables: Iterable[tuple[str, pd.DataFrame]], spec: HardwareSpec) -> str:
    """Return the name a nameless device has in its measurements, else what the spec calls it."""
    names = {str(n) for _, t in tables if "device" in t.columns for n in t["device"].unique()}
    return names.pop() if len(names) == 1 else spec.name


#: What a host row's name says about the calibration.
_HOST_ROWS = {"host_s_per_kernel": ("module_kernel", "launch"), "host_sync_s": ("synchronise",)}


def _with_host(calibration: Calibration, seconds: dict[str, list[float]]) -> Calibration:
    """Return the calibration with the host's measured seconds, where there are any."""
    intervals, notes = dict(calibration.intervals), dict(calibration.notes)
    found: dict[str, Any] = {}
    for attribute, names in _HOST_ROWS.items():
        name = next((each for each in names if each in seconds), None)
        if name is not None:
            values = seconds[name]
            found[attribute] = float(np.median(values))
            intervals[attribute] = Parameter(found[attribute], min(values), max(values))
            notes[attribute] = f"measured: host row {name!r}"
    streams = [calibration.classes.get((c, d)) for c in ("copy", "pointwise") for d in _FLOATING]
    cached = next((each for each in streams if each is not None and each.measured), None)
    if cached is not None:
        ratio = cached.parameters["l2_bandwidth_ratio"]
        found["l2_bandwidth_ratio"] = ratio.value
        intervals["l2_bandwidth_ratio"] = ratio
        notes["l2_bandwidth_ratio"] = f"from {cached.op_class} in {cached.dtype}"
    return replace(calibration, intervals=intervals, notes=notes, **found)


#: Classes that run much like another where only the other was measured.
_TWINS = {
    "gemm": "conv",
    "attention_prefill": "attention_encoder",
    "attention_encoder": "attention_prefill",
}


def moved_to(other: Calibration, device: Device) -> dict[tuple[str, str], ClassParameters]:
    """Return what was measured on another device as transferred to this one, twice as uncertain."""
    return {
        key: _stand_in(each.transferred(other.hardware_id))
        for key, each in other.classes.items()
        if each.measured and (kind_of_class(key[0]) == "stream" or peak_of(device, key[1]))
    }


def _alike(found: ClassParameters, op_class: str) -> ClassParameters:
    """Return a measured class's parameters as an assumption about a similar class, twice as uncertain."""
    said = f"assumed: like {found.op_class} in {found.dtype}, {found.provenance}"
    return _stand_in(replace(found, op_class=op_class, provenance=said, points=0))


def _stand_in(each: ClassParameters) -> ClassParameters:
    """Return parameters without what holds for the measured class alone, twice as uncertain as it."""
    return replace(each.doubted(), shapes=(), residual=None)
