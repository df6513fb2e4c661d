"""Fitting one op class in one dtype: which kernels and terms, and how well points outside the fit are met."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.checks import FULL_ATTENTION, one_unit
from costmodel.calibration.classes import kind_of_class
from costmodel.calibration.curves import (
    MOST_SHAPES,
    Knots,
    build_curves,
    shapes_with_rows,
)
from costmodel.calibration.gemm import warm_share
from costmodel.calibration.intervals import (
    cross_coverage,
    error_quantiles,
    fitted_growth,
    share_inside,
    spread_at,
)
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

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from costmodel.calibration.parameters import Device
    from costmodel.calibration.priors import Prior
    from costmodel.calibration.tables import Group

#: A term that a fit may have must cut the error on held-out folds to this share.
WORTH = 0.97
#: An unusual kernel family must cut the error at least to this share of the usual one's.
CLEARLY = 0.9
#: A last cache from which on a benchmark's few copies of its weights are known to lie in it, B.
LARGE_CACHE = 64e6
#: How close to another device's parameters the prior may be, as shares of its usual spread.
NEARNESS = (1.0, 0.3, 0.1)
#: Parts that a cross-validation holds out one by one; a table of many points needs fewer.
FOLDS, FEW_FOLDS, MANY_POINTS = 16, 4, 400


def fit_class(
    group: Group,
    device: Device,
    shapes: list[tuple[int, int]],
    curve_rows: Collection[int] | None,
    max_points: int,
    resamples: int,
    seed: int,
    near: ClassParameters | None = None,
) -> tuple[ClassParameters, list[str]]:
    """Return a class's fitted parameters, and remarks.

    Args:
        group: the points, as `checks.usable` left them.
        device: the datasheet's numbers.
        shapes: weight matrices (n, k) that get a curve.
        curve_rows: the row counts kept for curves; None keeps all.
        max_points: more points than this are thinned out at random; the rest is held out.
        resamples: bootstrap resamples behind each parameter's interval.
        seed: fixes every random choice.
        near: the class on a device of the same architecture.

    Raises:
        TimesError: points in two units.
    """
    rng = np.random.default_rng(seed)
    total = len(group)
    rest: Group | None = None
    sample = group
    if total > max_points:
        order = rng.permutation(total)
        sample, rest = group.take(order[:max_points]), group.take(order[max_points:])
    number = FEW_FOLDS if len(sample) > MANY_POINTS else min(FOLDS, len(sample))
    products = kind_of_class(group.op_class) == "gemm"
    whole = products and not shapes
    parts = (matrix_folds if whole else row_folds)(sample, number, rng)

    def errors(law: Law, smoothed: bool = False) -> np.ndarray:
        def train(points: Group) -> Callable[[Group], Any]:
            values = fit(law, points)
            # Thinned-out tables are judged without curves, which see too few rows.
            bends = shapes if rest is None else []
            return _Bent(law, values, points, bends, curve_rows, smoothed).time_s

        return out_of_fold(sample, parts, train)

    few = kind_of_class(group.op_class) == "attention" and total < FULL_ATTENTION
    laws = [
        law_of(group.op_class, group.dtype, family, device, few)
        for family in families_of(group.op_class, group.dtype)
    ]
    law, ratios = _best([(law, errors(law)) for law in laws])
    if products and _warm(sample, device):
        warm = replace(law, warm=True)
        tried = errors(warm)
        if device.l2_bytes > LARGE_CACHE or _mean(tried) < WORTH * _mean(ratios):
            law, ratios = warm, tried
    closeness = ""
    if near is not None and near.kernels == law.family:
        for share in NEARNESS:
            close = replace(law, priors=_centred(law.priors, near, share))
            tried = errors(close)
            if _mean(tried) < _mean(ratios):
                law, ratios, closeness = close, tried, f", at {share:g} of the prior's spread from "
    values = fit(law, sample)
    smoothed = False
    if products and not _only(group, shapes):
        tried = errors(law, smoothed=True)
        smoothed = _mean(tried) < WORTH * _mean(ratios)
        ratios = tried if smoothed else ratios
    bent = _Bent(law, values, sample, shapes if rest is None else [], curve_rows, smoothed)
    how = f"{len(parts)}-fold cross-validation{' by weight matrix' if whole else ''}"
    if rest is not None:
        ratios = np.log(rest.time_s / bent.time_s(rest))
        how = f"the other {len(rest)} points"
    growth = 0.0
    tested = ratios
    if products:
        rows = (sample if rest is None else rest).sizes["m"]
        growth = fitted_growth(ratios, rows)
        middle = np.median(ratios)
        tested = middle + (ratios - middle) / spread_at(rows, growth)
    if rest is None:
        inside = cross_coverage(tested, parts)
    else:
        half = len(tested) // 2
        inside = share_inside(tested[:half], tested[half:])
    intervals = bootstrap(law, sample, values, resamples, rng)
    quantiles = error_quantiles(tested)
    # A correction of one weight matrix would hide that all its rows are in another unit.
    plain = np.log(sample.time_s / law.time_s(values, sample.sizes))
    one_unit(sample, plain)
    notes = one_unit(sample if rest is None else rest, ratios)
    found = ClassParameters(
        op_class=group.op_class,
        dtype=group.dtype,
        parameters={
            name: Parameter(value, *intervals.get(name, ())) for name, value in values.items()
        },
        provenance=f"fitted on {len(sample)}{'' if rest is None else f' of {total}'} points of {group.origin}"
        + (f"{closeness}{near.provenance}" if near is not None and closeness else ""),
        points=len(sample),
        quantiles=quantiles,
        held_out=HeldOut.of(ratios, inside, how),
        shapes=bent.curves_of(group, shapes),
        kernels=law.family,
        residual=bent.residual,
        growth=growth,
    )
    return found, notes


def _mean(ratios: np.ndarray) -> float:
    return float(np.abs(ratios).mean())


def _centred(priors: Mapping[str, Prior], near: ClassParameters, share: float) -> dict[str, Prior]:
    """Return priors around another device's parameters, narrower by a share."""
    return {
        name: prior._replace(
            median=min(max(near.values.get(name, prior.median), prior.low), prior.high),
            spread=share * prior.spread,
        )
        for name, prior in priors.items()
    }


def _best(tried: list[tuple[Law, Any]]) -> tuple[Law, Any]:
    """Return the usual kernel family, unless another has clearly smaller errors on held-out folds."""
    errors = [_mean(ratios) for _, ratios in tried]
    best = int(np.argmin(errors))
    return tried[best if errors[best] < CLEARLY * errors[0] else 0]


def _warm(group: Group, device: Device) -> bool:
    """Return whether some products found weights in the last cache."""
    n, k, copies = (group.sizes[name] for name in ("n", "k", "copies"))
    return bool(np.any(warm_share(device, group.dtype, n, k, copies) > 0))


def _only(group: Group, shapes: list[tuple[int, int]]) -> bool:
    """Return whether all products are of weight matrices with curves, which say more than neighbours do."""
    pairs = zip(group.sizes["n"].tolist(), group.sizes["k"].tolist(), strict=True)
    return set(pairs) <= set(shapes)


def curve_shapes(group: Group, curves: bool | Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the weight matrices (n, k) that get a curve.

    Args:
        group: the points.
        curves: whether any does, or which.
    """
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
                held = Knots(curve, self._law.time_s(self._values, sizes))
                time[mask] = held.corrected(time[mask])
        return time * self._factor(points)
