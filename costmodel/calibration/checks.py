"""Filters of measured points before a fit; each rejection says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.classes import OP_CLASSES, PARENTS, kind_of_class, peak_of
from costmodel.calibration.dtypes import LABELS
from hardware_specs.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.calibration.parameters import Device
    from costmodel.calibration.tables import Group

#: Fewest points a class is fitted from.
MIN_POINTS = {"gemm": 32, "attention": 4, "stream": 4}
#: From this many points on an attention class has all its parameters fitted, about four points per
#: parameter; below, the efficiencies and the overhead alone.
FULL_ATTENTION = 24
#: Fewest different row counts of GEMMs: fewer hide the stairs and the memory-bound side.
MIN_ROW_COUNTS = 4
#: A product narrower than this fills no tile; serving shapes start far above, and the law would
#: bend to fit them.
MIN_WIDTH = 256
#: Clocks above their rating, and peaks rounded down, may lift a point this much above the roof.
ROOF_TOLERANCE = 1.05
#: Beyond this, the unit or the dtype is wrong, not the peak.
ROOF_BROKEN = 1.5
#: Share of such points up to which they are left out as outliers.
MOST_BROKEN = 0.05
#: A kernel that never reaches this share of the roof was timed in another unit.
LEAST_OF_ROOF = 0.005


def usable(group: Group, device: Device) -> tuple[Group, list[str]]:
    """Return the points of a group that a fit may use, with remarks on the rest.

    Args:
        group: points whose numbers are finite and positive.
        device: the datasheet's roofs.

    Raises:
        CalibrationError: too few points, constant rows, an arithmetic the device does not have, or
            times in the wrong unit.
    """
    kind = kind_of_class(group.op_class)
    what = f"{group.op_class} in {group.dtype}"
    if group.op_class not in OP_CLASSES and group.op_class not in PARENTS:
        raise CalibrationError(
            f"{what}: no such op class; there is: {', '.join((*OP_CLASSES, *PARENTS))}"
        )
    peak = peak_of(device, group.dtype)
    if peak is None and kind != "stream":
        raise CalibrationError(
            f"{what}: the device has no {' or '.join(LABELS[group.dtype].arithmetic)} peak to "
            f"refer an efficiency to; it has {', '.join(device.peaks)}"
        )
    remarks: list[str] = []
    group = _merge_repeats(group)
    if peak is not None and kind != "stream":
        group, remarks = _below_roof(group, peak, what)
    if kind == "gemm":
        group, more = _wide_enough(group, what)
        remarks += more
    if len(group) < MIN_POINTS[kind]:
        raise CalibrationError(
            f"{what}: {len(group)} usable points are too few, at least {MIN_POINTS[kind]} are "
            f"needed" + ("; 64 spread over m, n and k do well" if kind == "gemm" else "")
        )
    if kind == "gemm":
        rows = np.unique(group.sizes["m"])
        if len(rows) < MIN_ROW_COUNTS:
            raise CalibrationError(
                f"{what}: m takes {len(rows)} value{'s' * (len(rows) > 1)} "
                f"({', '.join(f'{m:g}' for m in rows)}); stairs and overheads show over at least "
                f"{MIN_ROW_COUNTS}, better 16 between 1 and 8192"
            )
        if len(np.unique(group.sizes["n"] * group.sizes["k"])) < 2:
            remarks.append(f"{what}: one weight matrix only; other shapes are extrapolated")
    return group, remarks


def _merge_repeats(group: Group) -> Group:
    """Replace repeated measurements of one shape by their median."""
    names = list(group.sizes)
    table = np.stack([group.sizes[name] for name in names], axis=1)
    _, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
    if len(first) == len(group):
        return group
    merged = group.take(first)
    order = np.argsort(inverse.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(inverse.ravel()))[:-1]
    times = np.array([np.median(part) for part in np.split(group.time_s[order], ends)])
    return type(group)(group.op_class, group.dtype, merged.sizes, times, group.origin)


def _flops(group: Group) -> np.ndarray:
    s = group.sizes
    if "m" in s:
        return np.asarray(2.0 * s["m"] * s["n"] * s["k"] * s["batch"])
    pairs = s["q_len"] * s["kv_len"] - s["causal"] * s["q_len"] * (s["q_len"] - 1) / 2
    return np.asarray(4.0 * s["batch"] * s["heads"] * s["head_dim"] * pairs)


def best_rates(groups: Iterable[Group]) -> dict[str, float]:
    """Return the highest FLOP/s among measured products, by the name of their arithmetic.

    The tenth of the fastest points is left out, since a single time may be wrong.
    """
    found: dict[str, float] = {}
    for group in groups:
        if kind_of_class(group.op_class) == "gemm":
            rate = float(np.quantile(_flops(group) / group.time_s, 0.9))
            for name in LABELS[group.dtype].arithmetic:
                found[name] = max(found.get(name, 0.0), rate)
    return found


def _below_roof(group: Group, peak: float, what: str) -> tuple[Group, list[str]]:
    share = _flops(group) / peak / group.time_s
    broken = share > ROOF_BROKEN
    if broken.mean() > MOST_BROKEN:
        raise CalibrationError(
            f"{what}: {int(broken.sum())} of {len(group)} points run above the datasheet peak of "
            f"{peak:.4g} FLOP/s, up to {share.max():.3g} times; are the times in seconds, and is "
            f"the dtype right?"
        )
    if share.max() < LEAST_OF_ROOF:
        raise CalibrationError(
            f"{what}: no point reaches {LEAST_OF_ROOF:.1%} of the datasheet peak (the best "
            f"{share.max():.2g}); are the times in seconds?"
        )
    remarks = []
    if broken.any():
        remarks.append(
            f"{what}: {int(broken.sum())} points at up to {share.max():.3g} times the datasheet "
            f"peak left out"
        )
        group, share = group.take(~broken), share[~broken]
    above = int((share > ROOF_TOLERANCE).sum())
    if above:
        remarks.append(
            f"{what}: {above} points at up to {share.max():.3g} times the datasheet peak; the "
            f"fitted efficiency stops at 1"
        )
    return group, remarks


def _wide_enough(group: Group, what: str) -> tuple[Group, list[str]]:
    wide = np.minimum(group.sizes["n"], group.sizes["k"]) >= MIN_WIDTH
    if wide.all() or wide.sum() < MIN_POINTS["gemm"]:
        return group, []
    remark = f"{what}: {int((~wide).sum())} points with n or k below {MIN_WIDTH} left out"
    return group.take(wide), [remark]
