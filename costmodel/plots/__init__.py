"""Figures of the cost model alone: roofline, latency against visual tokens, memory timeline, sweeps.

    plot_roofline(hardware, placed_ops(estimate), dtype="bf16")
    plot_latency([latency_curve(model, hardware, calibration=...)])
    plot_memory(estimate.memory)
    plot_sweep(sweep(...), x="visual_tokens")
    save_figure(figure, "roofline.svg")

Each returns a matplotlib `Figure` made without pyplot. matplotlib is imported when a figure is made.
"""

from __future__ import annotations

from costmodel.plots.frontier import plot_frontier
from costmodel.plots.latency import LatencyCurve, MeasuredPoints, latency_curve, plot_latency
from costmodel.plots.memory import plot_memory
from costmodel.plots.roofline import PlacedOp, placed_ops, plot_roofline
from costmodel.plots.style import figure_bytes, save_figure
from costmodel.plots.sweep import plot_sweep

__all__ = [
    "LatencyCurve",
    "MeasuredPoints",
    "PlacedOp",
    "figure_bytes",
    "latency_curve",
    "placed_ops",
    "plot_frontier",
    "plot_latency",
    "plot_memory",
    "plot_roofline",
    "plot_sweep",
    "save_figure",
]
