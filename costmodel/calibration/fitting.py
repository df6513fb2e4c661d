"""`fit_calibration`: from tables of measured ops to a calibration of one device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.calibration import Calibration
from costmodel.calibration.checks import (
    FULL_ATTENTION,
    TimesError,
    best_rates,
    one_unit,
    trusted,
    usable,
)
from costmodel.calibration.classes import kind_of_class
from costmodel.calibration.curves import (
    MOST_SHAPES,
    build_curves,
    corrected,
    knots,
    shapes_with_rows,
)
from costmodel.calibration.device import raised
from costmodel.calibration.foreign import in_seconds
from costmodel.calibration.intervals import cross_coverage, residual_quantiles, share_inside
from costmodel.calibration.parameters import ClassParameters, HeldOut, Parameter, ShapeCurve
from costmodel.calibration.priors import families_of
from costmodel.calibration.regression import (
    Law,
    bootstrap,
    fit,
    law_of,
    matrix_folds,
    out_of_fold,
    row_folds,
)
from costmodel.calibration.residual import Residual, fit_residual
from costmodel.calibration.tables import Group, group_points, host_seconds, read_tables
from hardware_specs.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import pandas as pd

    from hardware_specs import HardwareSpec

#: The residual must cut the error on held-out folds to this share of the law's.
WORTH = 0.97
#: An unusual kernel family must cut the error at least to this share of the usual one's.
CLEARLY = 0.9
_FLOATING = ("bf16", "fp16", "fp32")
#: Parts that a cross-validation holds out one by one; a table of many points needs fewer.
FOLDS, FEW_FOLDS, MANY_POINTS = 16, 4, 400


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

    spec = get_hardware(hardware) if isinstance(hardware, str) else hardware
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
    classes = dict(start.classes)
    fitted: list[ClassParameters] = []
    refused: list[str] = []
    steps: Iterable[Group] = groups
    if progress is not None:
        steps = progress(groups, "fitting", len(groups))
    for group in steps:
        try:
            points, notes = usable(group, device)
            remarks += notes
            bends = _curve_shapes(points, curves)
            found, notes = _fit_class(
                points, device, bends, curve_rows, max_points, resamples, seed
            )
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
        if twin[0] and not _measured(classes.get(twin)):
            classes[twin] = _alike(found, twin[0])
    kept = {each.op_class for each in fitted}
    dtypes = sorted({each.dtype for each in fitted if each.op_class == "gemm"})
    if dtypes:
        others = sorted({d for c, d in classes if c == "gemm"} - set(dtypes))
        if len(dtypes) == 1 and others:
            remarks.append(
                f"GEMMs in {dtypes[0]} only: {', '.join(others)} keep assumed parameters"
            )
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


def _measured(found: ClassParameters | None) -> bool:
    return found is not None and found.measured


#: Classes that run much like another where only the other was measured.
_TWINS = {
    "gemm": "conv",
    "attention_prefill": "attention_encoder",
    "attention_encoder": "attention_prefill",
}


def _alike(found: ClassParameters, op_class: str) -> ClassParameters:
    """Return a measured class's parameters as an assumption about a similar class, twice as uncertain."""
    return replace(
        found,
        op_class=op_class,
        provenance=f"assumed: like {found.op_class} in {found.dtype}, {found.provenance}",
        points=0,
        quantiles=tuple((level, 2 * ratio) for level, ratio in found.quantiles),
        held_out=None,
        shapes=(),
        residual=None,
    )


def _fit_class(
    group: Group,
    device: Any,
    shapes: list[tuple[int, int]],
    curve_rows: Collection[int] | None,
    max_points: int,
    resamples: int,
    seed: int,
) -> tuple[ClassParameters, list[str]]:
    rng = np.random.default_rng(seed)
    total = len(group)
    rest: Group | None = None
    sample = group
    if total > max_points:
        order = rng.permutation(total)
        sample, rest = group.take(order[:max_points]), group.take(order[max_points:])
    number = FEW_FOLDS if len(sample) > MANY_POINTS else min(FOLDS, len(sample))
    whole = kind_of_class(group.op_class) == "gemm" and not shapes
    parts = (matrix_folds if whole else row_folds)(sample, number, rng)

    def predictor(law: Law, smoothed: bool = False) -> Callable[[Group], Callable[[Group], Any]]:
        def train(points: Group) -> Callable[[Group], Any]:
            values = fit(law, points)
            # Thinned-out tables are judged without curves, which see too few rows.
            bends = shapes if rest is None else []
            return _Bent(law, values, points, bends, curve_rows, smoothed).time_s

        return train

    few = kind_of_class(group.op_class) == "attention" and total < FULL_ATTENTION
    laws = [
        law_of(group.op_class, group.dtype, family, device, few)
        for family in families_of(group.op_class, group.dtype)
    ]
    law, ratios = _best([(law, out_of_fold(sample, parts, predictor(law))) for law in laws])
    values = fit(law, sample)
    smoothed = False
    if kind_of_class(group.op_class) == "gemm" and not _only(group, shapes):
        tried = out_of_fold(sample, parts, predictor(law, smoothed=True))
        smoothed = float(np.abs(tried).mean()) < WORTH * float(np.abs(ratios).mean())
        ratios = tried if smoothed else ratios
    bent = _Bent(law, values, sample, shapes if rest is None else [], curve_rows, smoothed)
    how = f"{len(parts)}-fold cross-validation{' by weight matrix' if whole else ''}"
    inside = cross_coverage(ratios, parts)
    if rest is not None:
        ratios = np.log(rest.time_s / bent.time_s(rest))
        half = len(ratios) // 2
        inside = share_inside(ratios[:half], ratios[half:])
        how = f"the other {len(rest)} points"
    intervals = bootstrap(law, sample, values, resamples, rng)
    quantiles = residual_quantiles(ratios)
    # A correction of one weight matrix would hide that all its rows are in another unit.
    plain = np.log(sample.time_s / law.time_s(values, sample.sizes))
    one_unit(sample, plain)
    notes = one_unit(sample if rest is None else rest, ratios)
    error = np.exp(-ratios) - 1
    found = ClassParameters(
        op_class=group.op_class,
        dtype=group.dtype,
        parameters={
            name: Parameter(value, *intervals.get(name, ())) for name, value in values.items()
        },
        provenance=f"fitted on {len(sample)}{_of(total, sample)} points of {group.origin}",
        points=len(sample),
        quantiles=quantiles,
        held_out=HeldOut(
            points=len(ratios),
            mape=float(np.abs(error).mean()),
            worst=float(np.abs(error).max()),
            coverage=inside,
            how=how,
        ),
        shapes=bent.curves_of(group, shapes),
        kernels=law.family,
        residual=bent.residual,
    )
    return found, notes


def _best(tried: list[tuple[Law, Any]]) -> tuple[Law, Any]:
    """Return the usual kernel family, unless another has clearly smaller errors on held-out folds."""
    errors = [float(np.abs(ratios).mean()) for _, ratios in tried]
    best = int(np.argmin(errors))
    return tried[best if errors[best] < CLEARLY * errors[0] else 0]


def _only(group: Group, shapes: list[tuple[int, int]]) -> bool:
    """Return whether all products are of weight matrices with curves, which say more than neighbours do."""
    pairs = zip(group.sizes["n"].tolist(), group.sizes["k"].tolist(), strict=True)
    return set(pairs) <= set(shapes)


def _of(total: int, sample: Group) -> str:
    return f" of {total}" if total > len(sample) else ""


def _curve_shapes(group: Group, curves: bool | Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if kind_of_class(group.op_class) != "gemm" or curves is False:
        return []
    found = shapes_with_rows(group)
    if curves is True:
        return found if len(found) <= MOST_SHAPES else []
    return [pair for pair in found if pair in {(int(n), int(k)) for n, k in curves}]


class _Bent:
    """A fitted law with the corrections of single weight matrices and of the library's choice of kernels."""

    def __init__(
        self,
        law: Law,
        values: dict[str, float],
        group: Group,
        shapes: list[tuple[int, int]],
        rows: Collection[int] | None,
        smoothed: bool,
    ) -> None:
        self._law, self._values, self._rows = law, values, rows
        self.residual: Residual | None = None
        if smoothed:
            ratios = np.log(group.time_s / law.time_s(values, group.sizes))
            self.residual = fit_residual(group.sizes, ratios, law.device.units)
        self.curves = self.curves_of(group, shapes)

    def curves_of(self, group: Group, shapes: list[tuple[int, int]]) -> tuple[ShapeCurve, ...]:
        """Return the curves of the weight matrices among `shapes` that a group has enough rows of."""
        held = set(shapes_with_rows(group)) if shapes else set()
        return build_curves(group, [s for s in shapes if s in held], self._smooth, self._rows)

    def _smooth(self, points: Group) -> Any:
        return self._factor(points) * self._law.time_s(self._values, points.sizes)

    def _factor(self, points: Group) -> Any:
        if self.residual is None:
            return 1.0
        m, n, k = (points.sizes[name] for name in "mnk")
        return np.exp(self.residual.log_ratio(m, n, k, self._law.device.units))

    def time_s(self, points: Group) -> Any:
        """Return the predicted seconds of points."""
        time = np.array(self._law.time_s(self._values, points.sizes))
        for curve in self.curves:
            mask = (points.sizes["n"] == curve.n) & (points.sizes["k"] == curve.k)
            if mask.any():
                rows = np.array(curve.rows)
                full = np.ones(len(rows))
                sizes = {"m": rows, "n": full * curve.n, "k": full * curve.k, "batch": full}
                x, y = knots(curve, self._law.time_s(self._values, sizes))
                time[mask] = corrected(time[mask], x, y)
        return time * self._factor(points)
