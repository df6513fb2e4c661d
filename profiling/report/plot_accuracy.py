"""Predicted against measured time, with the prediction's interval and the measurement's spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.plots.style import (
    BLACK,
    CYCLE,
    GREY,
    legend_below,
    new_figure,
    plain_log_ticks,
    set_titles,
    styled,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

#: Regime -> what the legend calls it; its place in the colour cycle is its place here.
_REGIMES = {
    "compute": "compute-bound",
    "memory": "memory-bound",
    "host": "host-bound",
    "None": "nothing predicted",
}
#: Relative bands drawn around the diagonal.
BANDS = (0.1, 0.2)


@styled
def plot_accuracy(
    rows: Sequence[Mapping[str, Any]], *, title: str = "", by: str = "regime"
) -> Figure:
    """Return predicted against measured seconds of a `Reconciliation`'s rows, both on logarithmic axes.

    Points on the diagonal are met; the grey bands are 10 % and 20 % around it. Vertical bars are the
    prediction's interval, horizontal ones the measurement's own spread. The column `by` colours the points;
    the title has device, software and calibration.
    """
    import numpy as np

    figure, axes = new_figure(5.6, 5.8)
    shown = [row for row in rows if row["predicted_s"] > 0]
    values = [row[name] * 1e3 for row in shown for name in ("measured_s", "predicted_s")] or [1.0]
    low, high = min(values) / 1.6, max(values) * 1.6
    x = np.geomspace(low, high, 50)
    for band, grey in zip(reversed(BANDS), ("#EBEBEB", "#CCCCCC"), strict=True):
        axes.fill_between(
            x, x * (1 - band), x * (1 + band), color=grey, linewidth=0,
            label=f"± {band:.0%}",
        )  # fmt: skip
    axes.plot(x, x, color=BLACK, linewidth=1)
    kinds = list(dict.fromkeys(str(row[by]) for row in shown))
    if by == "regime":
        kinds = [kind for kind in _REGIMES if kind in kinds]
    for index, kind in enumerate(kinds):
        items = [row for row in shown if str(row[by]) == kind]
        colour, _, marker = CYCLE[index % len(CYCLE)]
        measured = [row["measured_s"] * 1e3 for row in items]
        predicted = [row["predicted_s"] * 1e3 for row in items]
        below = [max(0.0, row["predicted_s"] - row["low_s"]) * 1e3 for row in items]
        above = [max(0.0, row["high_s"] - row["predicted_s"]) * 1e3 for row in items]
        noise = [(row["noise_s"] or 0.0) * 1e3 / 2 for row in items]
        axes.errorbar(
            measured, predicted, yerr=[below, above], xerr=noise, linestyle="", marker=marker,
            color=colour, ecolor=colour, elinewidth=0.8, capsize=0, markeredgecolor="white",
            label=_REGIMES.get(kind, kind) if by == "regime" else kind, zorder=3,
        )  # fmt: skip
    above_roof = [row for row in shown if row["above_roof"]]
    if above_roof:
        axes.plot(
            [row["measured_s"] * 1e3 for row in above_roof],
            [row["predicted_s"] * 1e3 for row in above_roof],
            linestyle="", marker="o", markersize=11, markerfacecolor="none", color=GREY,
            label="faster than its roof",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        plain_log_ticks(axis)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel("measured (ms)")
    axes.set_ylabel("predicted (ms)")
    legend_below(figure, axes, columns=3)
    set_titles(axes, "Predicted against measured", title)
    return figure
