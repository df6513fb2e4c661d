"""Latency against visual tokens: the staircase, the host floor, and the knee where it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.plots.style import (
    BLACK,
    BLUE,
    CYCLE,
    GREY,
    VERMILLION,
    legend_below,
    name_panel,
    new_panels,
    set_titles,
    styled,
)
from costmodel.quantities import STAGES
from costmodel.request import AUTO, Request
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The stages before the first token, and those of them that run before the language model.
_TTFT = STAGES[:-1]
_TOWER = _TTFT[:-1]


@dataclass(frozen=True)
class LatencyCurve:
    """One curve of predicted seconds over visual tokens.

    Attributes:
        label: what it is.
        visual_tokens: the counts, ascending.
        time_s: the prediction at each.
        low_s: lower end of its interval; None without one.
        high_s: upper end.
        host_floor_s: time the host needs to launch, below which eager latency never falls.
        kernels: launches behind that floor.
        knee_tokens: largest count up to which the language model's time is flat; None
            where there is none.
        interval: what the interval is.
        panel: the device, where curves of several are drawn, each in axes of its own.
    """

    label: str
    visual_tokens: np.ndarray[Any, Any]
    time_s: np.ndarray[Any, Any]
    low_s: np.ndarray[Any, Any] | None = None
    high_s: np.ndarray[Any, Any] | None = None
    host_floor_s: float | None = None
    kernels: int | None = None
    knee_tokens: int | None = None
    interval: str = "90 % interval"
    panel: str = ""

    __repr__ = brief


@dataclass(frozen=True)
class MeasuredPoints:
    """Measured seconds at some token counts.

    Attributes:
        label: what they are.
        visual_tokens: the counts.
        time_s: medians.
        noise_s: their spread; None where it is not known.
    """

    label: str
    visual_tokens: Sequence[int]
    time_s: Sequence[float]
    noise_s: Sequence[float | None] = ()

    __repr__ = brief


def latency_curve(
    model: Any,
    hardware: Any,
    *,
    execution: str = "hf-eager",
    calibration: Any = AUTO,
    stage: str = "total",
    most: int | None = None,
    label: str | None = None,
    tower_execution: str | None = None,
    panel: str = "",
    **arguments: Any,
) -> LatencyCurve:
    """Price every visual-token count from 1 to `most`.

    Args:
        model: as `costmodel.estimate`.
        hardware: as `costmodel.estimate`.
        execution: an execution plan.
        calibration: as `costmodel.estimate`; None is the ideal roofline.
        stage: `total` is the time to the first token, `prefill` the language model alone.
        most: the largest count; None is the model's own.
        label: the curve's name in the legend.
        tower_execution: the plan of vision tower and projector where it is another one.
        panel: the axes that it is drawn in, as `LatencyCurve`.
        arguments: any other single-valued argument of `costmodel.estimate`.

    Raises:
        InvalidInputError: another stage, or a model without vision.
    """
    from costmodel.estimates import context_for
    from costmodel.questions.break_evens import break_even
    from costmodel.questions.sweeps import sweep_chunks
    from hardware_specs.errors import InvalidInputError

    if stage not in ("total", "prefill"):
        raise InvalidInputError(f"stage {stage!r} is neither total nor prefill")
    shared = {"execution": execution, "calibration": calibration, **arguments}
    answer = break_even(model, hardware, most=most, **shared)
    counts = answer.visual_tokens
    columns = ("time_s", "time_low_s", "time_high_s", "kernels")
    sums = dict.fromkeys(columns, np.zeros(len(counts)))
    # Stages under two plans are priced apart, and their ends add up.
    parts: tuple[str, ...] = ("prefill_",)
    if stage == "total":
        parts = ("",) if tower_execution is None else tuple(f"{p}_" for p in _TTFT)
    for part in parts:
        plan = tower_execution if part[:-1] in _TOWER and tower_execution else execution
        chunks = list(
            sweep_chunks(
                model, hardware, visual_tokens=counts, stage_columns=True,
                **{**shared, "execution": plan, "output_tokens": 0},
            )
        )  # fmt: skip
        for name in columns:
            pieces = [np.asarray(c.columns[f"{part}{name}"], dtype=float) for c in chunks]
            sums[name] = sums[name] + np.concatenate(pieces)
    time, low, high, kernels = sums.values()
    floor = None
    context = context_for(Request(model, hardware, **shared))
    host = context.roofline.host
    if host is not None:
        floor = float(np.min(kernels)) * host.per_kernel_s + host.wait_s
    return LatencyCurve(
        label or context.plan.label,
        counts,
        time,
        low,
        high,
        floor,
        int(np.min(kernels)),
        answer.knee_tokens,
        "full to no overlap" if context.calibration is None else "90 % interval",
        panel,
    )


@styled
def plot_latency(
    curves: Sequence[LatencyCurve],
    *,
    title: str = "",
    what: str = "time to first token",
    measured: Sequence[MeasuredPoints] = (),
    ideal: Sequence[LatencyCurve] = (),
    across: str = "visual tokens entering the language model",
) -> Figure:
    """Return latency against visual tokens, with host floor and knee marked where there are any.

    Args:
        curves: predictions; the first one of every panel gets its interval, floor and knee drawn.
        title: model, device, precision and calibration, for the second line.
        what: what the vertical axis measures.
        measured: measured points, drawn as filled marks in the first panel.
        ideal: the ideal roofline of each panel, drawn below everything.
        across: what the horizontal axis counts.
    """
    panels = list(dict.fromkeys(curve.panel for curve in (*curves, *ideal))) or [""]
    figure, rows = new_panels(len(panels), 7.2, 5.0 if len(panels) == 1 else 3.2)
    for panel, axes in zip(panels, rows, strict=True):
        held = [curve for curve in curves if curve.panel == panel]
        for curve in (each for each in ideal if each.panel == panel):
            axes.plot(
                curve.visual_tokens, curve.time_s * 1e3, color=BLACK, linestyle=(0, (1, 2)),
                label=curve.label,
            )  # fmt: skip
        for index, curve in enumerate(held):
            colour, line, _ = CYCLE[index % len(CYCLE)]
            times = curve.time_s * 1e3
            axes.plot(curve.visual_tokens, times, color=colour, linestyle=line, label=curve.label)
            if index == 0 and curve.low_s is not None and curve.high_s is not None:
                axes.fill_between(
                    curve.visual_tokens, curve.low_s * 1e3, curve.high_s * 1e3, color=colour,
                    alpha=0.15, linewidth=0, label=f"{curve.label}: {curve.interval}",
                )  # fmt: skip
        if held:
            whose = f"{held[0].label}: " if len(held) > 1 else ""
            _floor_and_knee(axes, held[0], whose=whose, apart=bool(panel))
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_ylabel(f"{what} (ms)")
    for index, points in enumerate(measured):
        colour, _, marker = CYCLE[index % len(CYCLE)]
        noise = [0.0 if value is None else value for value in points.noise_s]
        rows[0].errorbar(
            list(points.visual_tokens), [time * 1e3 for time in points.time_s],
            yerr=[value * 1e3 / 2 for value in noise] if noise else None, linestyle="",
            marker=marker, color=colour, markeredgecolor="white", capsize=2, label=points.label,
            zorder=5,
        )  # fmt: skip
    rows[0].set_ylim(bottom=0)
    rows[-1].set_xlabel(across)
    legend_below(figure, *rows)
    set_titles(rows[0], f"{what[0].upper()}{what[1:]} against visual tokens", title)
    if panels != [""]:
        for panel, axes in zip(panels, rows, strict=True):
            first = next((curve for curve in curves if curve.panel == panel), None)
            name_panel(axes, f"{panel}{_remark(first)}")
    return figure


def _floor_and_knee(axes: Axes, curve: LatencyCurve, *, whose: str, apart: bool) -> None:
    """Draw both; their numbers stand in the legend, or with the name of the panel."""
    if curve.host_floor_s is not None:
        floor = curve.host_floor_s * 1e3
        number = "" if apart else f" {floor:.1f} ms ({curve.kernels:,} launches)"
        axes.axhline(
            floor,
            color=VERMILLION,
            linestyle=":",
            linewidth=1.4,
            label=f"{whose}host floor{number}",
        )
    knee = _knee(curve)
    if knee is None:
        return
    time = float(np.interp(knee, curve.visual_tokens, curve.time_s)) * 1e3
    axes.vlines(knee, 0, time, color=GREY, linestyle=":", linewidth=1)
    number = "" if apart else f" {knee} tokens"
    axes.plot(
        knee, time, "o", markerfacecolor="white", color=BLUE, markersize=8, zorder=6,
        label=f"{whose}knee{number}\n(fewer save the LLM under 10 %)",
    )  # fmt: skip


def _knee(curve: LatencyCurve) -> int | None:
    """Return the knee, where it is not the curve's beginning."""
    knee = curve.knee_tokens
    return knee if knee is not None and knee > int(curve.visual_tokens[0]) + 1 else None


def _remark(curve: LatencyCurve | None) -> str:
    """Return where the floor and the knee of a panel's first curve lie."""
    said = []
    if curve is not None and curve.host_floor_s is not None:
        said.append(f"host floor {curve.host_floor_s * 1e3:.1f} ms ({curve.kernels:,} launches)")
    if curve is not None and _knee(curve) is not None:
        said.append(f"knee {curve.knee_tokens} tokens")
    return f": {', '.join(said)}" if said else ""
