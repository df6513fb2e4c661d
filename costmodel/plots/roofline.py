"""The roofline: attainable arithmetic against intensity, with ops placed under it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    legend_below,
    new_figure,
    set_titles,
    styled,
)
from costmodel.power_roof import power_roof
from costmodel.precision.arithmetic import matrix_peak

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from costmodel.result import Estimate
    from hardware_specs import HardwareSpec

#: Op classes in the legend's order: (label, colour, marker).
CLASSES = {
    "gemm": ("matrix product", BLUE, "o"),
    "conv": ("convolution", PURPLE, "P"),
    "attention_encoder": ("attention, encoder", GREEN, "v"),
    "attention_prefill": ("attention, prefill", GREEN, "^"),
    "attention_decode": ("attention, decode", GREEN, "<"),
    "norm": ("norm", ORANGE, "s"),
    "pointwise": ("pointwise", VERMILLION, "D"),
    "rope": ("rotation", VERMILLION, ">"),
    "activation": ("activation", VERMILLION, "d"),
    "copy": ("copy", SKY, "X"),
    "cat": ("concatenation", SKY, "*"),
    "strided": ("strided kernel", VERMILLION, "p"),
    "layer_norm": ("layer norm", ORANGE, "h"),
    "norm_chain": ("norm, in small kernels", ORANGE, "8"),
    "embedding": ("look-up", BLACK, "+"),
}
#: Ops whose names are written beside their points: those that take the most time.
NAMED = 8
#: Ops below this share of the time are left out, or their tiny rates would stretch the picture.
LEAST_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class PlacedOp:
    """An op on the roofline.

    Attributes:
        name: what to call it.
        op_class: its class.
        flops: executed FLOPs.
        hbm_bytes: bytes.
        time_s: seconds, predicted or measured.
    """

    name: str
    op_class: str
    flops: float
    hbm_bytes: float
    time_s: float


def placed_ops(estimate: Estimate) -> tuple[PlacedOp, ...]:
    """Return an estimate's ops, those of one stage and name added up; ops without FLOPs drop out.

    Args:
        estimate: from `costmodel.estimate`.
    """
    sums: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for row in estimate.ops:
        found = sums[(row.stage, row.name.partition("[")[0], str(row.op_class))]
        for index, value in enumerate((row.executed_flops, row.hbm_bytes, row.time_s)):
            found[index] += float(value)
    return tuple(
        PlacedOp(f"{stage} {name}", op_class, *numbers)
        for (stage, name, op_class), numbers in sums.items()
        if numbers[0] > 0 and numbers[1] > 0 and numbers[2] > 0
    )


@styled
def plot_roofline(
    hardware: HardwareSpec,
    predicted: Iterable[PlacedOp],
    *,
    dtype: str,
    title: str = "",
    measured: Iterable[PlacedOp] = (),
    power_limit_w: float | None = None,
) -> Figure:
    """Return the roofline of a device with ops on it, and the roof of its power limit where that is lower.

    Hollow marks are predictions, filled ones measurements; a mark's area grows with its share of
    the time. Only what stayed in a cache can lie above the slope, and nothing above the flat roof:
    such a point is a wrong unit or convention.

    Args:
        hardware: the device.
        predicted: ops to place.
        dtype: the arithmetic whose peak is the flat roof.
        title: model, precision and token counts, for the second line.
        measured: the same ops as measured.
        power_limit_w: the board's limit, W; None is the device's own.

    Raises:
        MissingPeakError: the device has no such arithmetic.
    """
    from matplotlib.ticker import FuncFormatter

    figure, axes = new_figure(7.2, 5.4)
    peak, bandwidth = matrix_peak(hardware, dtype), hardware.bandwidth_bytes_per_s
    vector = hardware.peak_or_none("fp32", engine="vector")
    points, hidden = _worth_showing(list(predicted))
    measured, _ = _worth_showing(list(measured))
    intensities = [op.flops / op.hbm_bytes for op in (*points, *measured)] or [1.0]
    ridge = peak / bandwidth
    low = min(0.1, *intensities) / 2
    high = max(ridge * 8, *intensities) * 2
    x = np.geomspace(low, high, 400)
    how = "achieved, as measured" if hardware.id == "cpu-measured" else "dense peak"
    axes.plot(
        x, np.minimum(x * bandwidth, peak), color=BLACK, linewidth=2,
        label=f"{dtype} {how} {_rate(peak)};\nslope: memory {bandwidth / 1e9:,.0f} GB/s",
    )  # fmt: skip
    if vector is not None and vector < 0.9 * peak:
        start = vector / bandwidth
        axes.plot(
            [start, high], [vector, vector], color=GREY, linestyle="--", linewidth=1.2,
            label=f"vector FP32 {_rate(vector)}",
        )  # fmt: skip
    _power(axes, hardware, dtype, x, np.minimum(x * bandwidth, peak), power_limit_w)
    axes.axvline(
        ridge, color=GREY, linewidth=0.8, linestyle=":", label=f"ridge at {ridge:.0f} FLOP/B"
    )
    whole = sum(op.time_s for op in points) or 1.0
    used = _scatter(axes, points, whole, filled=False)
    used |= _scatter(axes, measured, sum(op.time_s for op in measured) or 1.0, filled=True)
    _names(axes, measured or points, ridge)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    bottom = min((op.flops / op.time_s for op in (*points, *measured)), default=peak / 1e4)
    axes.set_ylim(min(bottom / 2, peak / 1e3), peak * 4)
    axes.set_xlabel("arithmetic intensity (executed FLOP per byte of traffic)")
    unit, name = (1e12, "TFLOP/s") if peak >= 1e12 else (1e9, "GFLOP/s")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))
    axes.set_ylabel(f"arithmetic rate ({name})")
    _legend(axes, used, bool(measured))
    if hidden:
        note = f"not shown: {hidden} ops\nunder {LEAST_SHARE:.1%} of the time"
        axes.plot([], [], linestyle="", label=note)
    legend_below(figure, axes)
    set_titles(axes, f"Roofline of {hardware.name}", title)
    return figure


def _worth_showing(ops: list[PlacedOp]) -> tuple[list[PlacedOp], int]:
    whole = sum(op.time_s for op in ops)
    kept = [op for op in ops if op.time_s >= LEAST_SHARE * whole]
    return kept, len(ops) - len(kept)


def _rate(flop_per_s: float) -> str:
    """Write a rate for people.

    >>> _rate(312e12), _rate(64.5e9)
    ('312 TFLOP/s', '64.5 GFLOP/s')
    """
    if flop_per_s >= 1e12:
        return f"{flop_per_s / 1e12:.3g} TFLOP/s"
    return f"{flop_per_s / 1e9:.3g} GFLOP/s"


def _scatter(axes: Axes, ops: Sequence[PlacedOp], whole_s: float, *, filled: bool) -> set[str]:
    used = set()
    for op in ops:
        _, colour, marker = CLASSES.get(op.op_class, CLASSES["pointwise"])
        used.add(op.op_class)
        # "+" has no inside to fill.
        face = colour if filled or marker == "+" else "none"
        axes.scatter(
            op.flops / op.hbm_bytes, op.flops / op.time_s, s=22 + 320 * op.time_s / whole_s,
            marker=marker, facecolors=face, edgecolors=None if marker == "+" else colour,
            linewidths=1.3, alpha=0.9, zorder=3,
        )  # fmt: skip
    return used


def _power(
    axes: Axes, hardware: HardwareSpec, dtype: str, x: Any, roof: Any, limit_w: float | None
) -> None:
    """Draw what sustained load reaches under the power limit, where that lies below the roofline."""
    power = power_roof(hardware, limit_w)
    joules = None if power is None else power.joules_per_flop(dtype)
    if power is None or joules is None:
        return
    rate = x / power.seconds(x, 1.0, joules)
    if not np.any(rate < 0.98 * roof):
        return
    axes.plot(
        x, np.minimum(rate, roof), color=VERMILLION, linestyle="-.", linewidth=1.2,
        label=f"sustained at {power.limit_w:g} W: {_rate(rate[-1])}",
    )  # fmt: skip


def _names(axes: Axes, ops: Sequence[PlacedOp], ridge: float) -> None:
    """Name the ops that take the most time; those at one place share one label."""
    clusters: list[list[PlacedOp]] = []
    for op in sorted(ops, key=lambda op: -op.time_s)[:NAMED]:
        for cluster in clusters:
            if _distance(op, cluster[0]) < 0.12:
                cluster.append(op)
                break
        else:
            clusters.append([op])
    for row, cluster in enumerate(sorted(clusters, key=lambda c: c[0].flops / c[0].time_s)):
        first = cluster[0]
        right = first.flops / first.hbm_bytes > ridge
        side = (0.95, 1.0) if right else (0.0, 0.5)
        note = axes.annotate(
            _cluster_name(cluster),
            (first.flops / first.hbm_bytes, first.flops / first.time_s),
            xytext=(0.985, 0.06 + 0.08 * row), textcoords="axes fraction", fontsize=7.5, zorder=4,
            va="center", ha="right",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": GREY, "relpos": side},
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
        )  # fmt: skip
        note.set_in_layout(False)


def _distance(a: PlacedOp, b: PlacedOp) -> float:
    x = np.log10(a.flops / a.hbm_bytes) - np.log10(b.flops / b.hbm_bytes)
    y = np.log10(a.flops / a.time_s) - np.log10(b.flops / b.time_s)
    return float(np.hypot(x, y))


def _cluster_name(cluster: Sequence[PlacedOp]) -> str:
    """Write ops that share a place as one label, their stage once.

    >>> op = PlacedOp("prefill q_proj", "gemm", 1.0, 1.0, 1.0)
    >>> _cluster_name([op, PlacedOp("prefill k_proj", "gemm", 1.0, 1.0, 1.0)])
    'prefill: q_proj, k_proj'
    """
    by_stage: dict[str, list[str]] = defaultdict(list)
    for op in cluster:
        stage, _, name = op.name.partition(" ")
        by_stage[stage].append(name)
    return "; ".join(
        stage + (": " + ", ".join(_few(names)) if any(names) else "")
        for stage, names in by_stage.items()
    )


def _few(names: list[str]) -> list[str]:
    more = len(names) - 2
    return names if more < 1 else [*names[:2], f"{more} more"]


def _legend(axes: Axes, used: set[str], measured: bool) -> None:
    """Name the op classes that are drawn; lines carry their own labels."""
    marks: dict[str, Any] = {"linestyle": "", "markerfacecolor": "none"}
    for name, (text, colour, marker) in CLASSES.items():
        if name in used:
            axes.plot([], [], marker=marker, color=colour, label=text, **marks)
    if measured:
        axes.plot([], [], marker="o", color=GREY, label="hollow: predicted", **marks)
        axes.plot([], [], marker="o", color=GREY, linestyle="", label="filled: measured")
