"""Filters of measured points before a fit; each rejection says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.attention import attention_pairs
from costmodel.calibration.classes import OP_CLASSES, PARENTS, kind_of_class, peak_of
from costmodel.calibration.dtypes import LABELS
from hardware_specs.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.calibration.parameters import ClassParameters, Device
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
#: Clocks above their rating, and peaks rounded down, may lift a point this much above the arithmetic roof.
ROOF_TOLERANCE = 1.05
#: Beyond this, the unit or the dtype is wrong, not the peak.
ROOF_BROKEN = 1.5
#: Share of such points up to which they are left out as outliers.
MOST_BROKEN = 0.05
#: A kernel that never reaches this share of the roof was timed in another unit.
LEAST_OF_ROOF = 0.005
#: Kernels this short may wait for their launch alone, whatever their unit of work; in ms or us taken
#: for seconds none is.
LONGEST_LAUNCH = 1e-4
#: What a device without a stated cache may hold, B.
UNKNOWN_CACHE = 64e6
#: A cache is at most this many times as fast as the memory.
CACHE_BROKEN = 30.0
#: Mean held-out error above which a class is kept out, and above which nothing is written.
KEPT_OUT, REFUSED = 0.5, 1.0
#: Points that lie this many times beside what the others say were timed in another unit.
OTHER_UNIT = 100.0
#: Fewest such points that are no accident.
FEWEST_OTHER = 3
_QUIET = (
    "measure again with nothing else running on the device and its host, clocks locked where the "
    "driver allows it (nvidia-smi -lgc), and no other process on the cores"
)


class TimesError(CalibrationError):
    """Times that contradict each other, so that nothing of their table can be trusted."""


def one_unit(group: Group, ratios: np.ndarray) -> list[str]:
    """Refuse points whose times lie hundreds of times beside what the others say.

    A single such point is an outlier, which the robust fit survives and a remark names.

    Args:
        group: the points that were held out.
        ratios: ln(measured / predicted) of each.

    Raises:
        TimesError: several points in another unit; names the class, their number and the first.
    """
    beside = np.abs(ratios - np.median(ratios)) > np.log(OTHER_UNIT)
    number = int(beside.sum())
    if not number:
        return []
    first = int(np.flatnonzero(beside)[0])
    said = (
        f"{group.op_class} in {group.dtype}: {number} of {len(group)} points of {group.origin} "
        f"lie more than {OTHER_UNIT:g} times beside what the others say (the first: {_sizes(group, first)}, "
        f"{group.time_s[first]:.4g} s)"
    )
    if number < FEWEST_OTHER and number <= MOST_BROKEN * len(group):
        return [f"{said}; taken as outliers"]
    error = np.abs(np.exp(-ratios) - 1).mean()
    raise TimesError(
        f"{said}, a held-out error of {error:.0%}; the times are in two units, such as seconds and "
        f"milliseconds, or come from a busy machine: {_QUIET}"
    )


def _sizes(group: Group, at: int) -> str:
    """Name the sizes of one point, as far as its table states them."""
    return ", ".join(f"{name} {v[at]:g}" for name, v in group.sizes.items() if np.isfinite(v[at]))


def trusted(found: ClassParameters) -> None:
    """Refuse a fitted class that does not predict its own held-out points.

    Raises:
        CalibrationError: a mean error above 50 %: the class is kept out.
        TimesError: one above 100 %.
    """
    held = found.held_out
    if held is None or held.mape <= KEPT_OUT:
        return
    what, limit = "kept out", KEPT_OUT
    error: type[CalibrationError] = CalibrationError
    if held.mape > REFUSED:
        what, limit, error = "cannot be fitted", REFUSED, TimesError
    raise error(
        f"{found.op_class} in {found.dtype}: {what}, its held-out error is {held.mape:.0%} on "
        f"average over {held.points} points, above {limit:.0%}; the times are in two units or come "
        f"from a busy machine: {_QUIET}"
    )


def usable(group: Group, device: Device) -> tuple[Group, list[str]]:
    """Return the points of a group that a fit may use, with remarks on the rest.

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
    group, remarks = _below_roofs(_merge_repeats(group), device, peak, what)
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
    pairs = attention_pairs(s["q_len"], s["kv_len"], s["causal"])
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


def _bytes(group: Group) -> np.ndarray:
    """Return the fewest bytes a kernel moves: each operand and the output once."""
    s, label = group.sizes, LABELS[group.dtype]
    if "bytes" in s:
        return s["bytes"]
    if "m" in s:
        weights = label.weight_bytes * s["n"] * s["k"]
        rows = label.operand_bytes * s["m"] * s["k"] + label.output_bytes * s["m"] * s["n"]
        return np.asarray(s["batch"] * (weights + rows))
    heads = s["heads"] * s["q_len"] + s["kv_heads"] * s["kv_len"]
    return np.asarray(2.0 * label.output_bytes * s["batch"] * s["head_dim"] * heads)


def _below_roofs(
    group: Group, device: Device, peak: float | None, what: str
) -> tuple[Group, list[str]]:
    """Return the points that both roofs allow: the arithmetic's and the memory's.

    Operands that fit into the L2 cache may lie there, so such points may beat the memory, yet no
    cache is more than `CACHE_BROKEN` times as fast.
    """
    stream = "bytes" in group.sizes
    if stream:
        peak = device.vector_flop_per_s
    work = group.sizes["flops"] if stream else _flops(group)
    math = work / peak / group.time_s if peak else np.zeros(len(group))
    moved = _bytes(group)
    memory = moved / device.bandwidth_bytes_per_s / group.time_s
    best = max(math.max(), memory.max())
    if best < LEAST_OF_ROOF and group.time_s.min() > LONGEST_LAUNCH:
        raise CalibrationError(
            f"{what}: no point reaches {LEAST_OF_ROOF:.1%} of the datasheet peak or bandwidth "
            f"(the best {best:.2g}), and none is as short as a launch; are the times in seconds?"
        )
    remarks: list[str] = []
    large = moved > (device.l2_bytes or UNKNOWN_CACHE)
    bandwidth = f"bandwidth of {device.bandwidth_bytes_per_s:.4g} B/s"
    everything = np.full(len(group), True)
    left_out = ~everything
    for roof, share, limit, among in (
        (f"peak of {peak:.4g} FLOP/s" if peak else "", math, ROOF_BROKEN, everything),
        (bandwidth, memory, ROOF_BROKEN, large),
        (f"{bandwidth}, too fast for a cache", memory, CACHE_BROKEN, ~large),
    ):
        broken = (share > limit) & among & ~left_out
        if not broken.any():
            continue
        first = int(np.flatnonzero(broken)[0])
        most = f"up to {share[broken].max():.3g} times"
        if broken.sum() > MOST_BROKEN * among.sum():
            raise CalibrationError(
                f"{what}: {int(broken.sum())} of {int(among.sum())} points run above the datasheet "
                f"{roof}, {most} (the first: {_sizes(group, first)}); are the times in seconds, is the dtype "
                f"right, and were operands left in a cache?"
            )
        remarks.append(
            f"{what}: {int(broken.sum())} points at {most} the datasheet {roof} left out"
        )
        left_out |= broken
    group, math = group.take(~left_out), math[~left_out]
    above = int((math > ROOF_TOLERANCE).sum())
    if above and not stream:
        remarks.append(
            f"{what}: {above} points at up to {math.max():.3g} times the datasheet peak; the "
            f"fitted efficiency stops at 1"
        )
    return group, remarks


def _wide_enough(group: Group, what: str) -> tuple[Group, list[str]]:
    wide = np.minimum(group.sizes["n"], group.sizes["k"]) >= MIN_WIDTH
    if wide.all() or wide.sum() < MIN_POINTS["gemm"]:
        return group, []
    remark = f"{what}: {int((~wide).sum())} points with n or k below {MIN_WIDTH} left out"
    return group.take(wide), [remark]
