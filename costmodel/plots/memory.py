"""The memory timeline: what is resident in each phase, against the device's capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    PALE,
    VERMILLION,
    legend_below,
    new_figure,
    set_titles,
    styled,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from costmodel.memory import MemoryCost

_PARTS = (
    ("weight_bytes", "weights", PALE, ""),
    ("kv_cache_bytes", "KV cache", BLUE, "//"),
    ("activation_bytes", "activations, logits, workspace", ORANGE, ".."),
)


@styled
def plot_memory(
    memory: MemoryCost, *, title: str = "", measured: Mapping[str, float] | None = None
) -> Figure:
    """Return the timeline of resident bytes, phase by phase, its peak marked."""
    figure, axes = new_figure(7.2, 4.6)
    phases = [phase for phase in memory.timeline if phase.total_bytes > 0]
    decoding = [phase for phase in phases if phase.name == "decode" and not phase.activation_bytes]
    phases = [phase for phase in phases if phase not in decoding]
    place = np.arange(len(phases))
    bottom = np.zeros(len(phases))
    for name, label, colour, hatch in _PARTS:
        height = np.array([float(getattr(phase, name)) for phase in phases]) / 1e9
        axes.bar(
            place, height, 0.72, bottom, label=label, color=colour, hatch=hatch, edgecolor="white",
            linewidth=0.5,
        )  # fmt: skip
        bottom += height
    peak = float(memory.peak_memory_bytes) / 1e9
    highest = int(np.argmax(bottom))
    for x, phase, top in zip(place, phases, bottom, strict=True):
        at_peak = x == highest
        axes.annotate(
            f"peak {top:.2f}" if at_peak else f"{top:.2f}", (x, top), xytext=(0, 2),
            textcoords="offset points", ha="center", fontsize=8.5 if at_peak else 7.5,
            fontweight="bold" if at_peak else "normal", color=VERMILLION if at_peak else "black",
        )  # fmt: skip
        if measured is not None and phase.name in measured:
            axes.plot(x, measured[phase.name] / 1e9, "D", color=VERMILLION, zorder=4)
    if measured:
        axes.plot([], [], "D", color=VERMILLION, label="measured peak")
    capacity = memory.capacity_bytes
    ceiling = peak * 1.1
    if capacity is not None:
        limit = float(capacity) / 1e9
        if limit <= 2.5 * peak:
            axes.axhline(
                limit, color=GREY, linestyle="-.", linewidth=1.2, label=f"capacity {limit:.1f} GB"
            )
            ceiling = max(ceiling, limit * 1.08)
        else:
            axes.plot([], [], linestyle="", label=f"capacity {limit:.1f} GB, above this picture")
    axes.set_ylim(0, ceiling)
    axes.set_xticks(place, [_named(phase.name) for phase in phases])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("resident device memory (GB)")
    axes.set_xlabel("phase of one request, in time order")
    legend_below(figure, axes)
    set_titles(axes, "Memory timeline", title)
    return figure


def _named(phase: str) -> str:
    if phase.startswith("prefill layers "):
        return "prefill, layers\n" + phase.removeprefix("prefill layers ")
    return "vision\ntower" if phase == "vision" else phase
