"""The gap as a picture: a waterfall of one run, and stacked parts over visual tokens."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.plots.style import (
    BLACK,
    FILLS,
    GREY,
    PALE,
    legend_below,
    new_figure,
    set_titles,
    styled,
)
from profiling.reconciling.gap import LABELS, PARTS
from profiling.reconciling.summary import medians_by_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

#: Bars of the waterfall and layers of the stack: (row's key, colour, hatch).
_FILL = {"efficiency_link_s": (GREY, "++", "white")}
_FILL |= zip(("ideal_s", *(part for part in PARTS if part not in _FILL)), FILLS, strict=True)
#: A part below this share of the measured time is left out of a picture.
LEAST_SHARE = 0.001
#: Token counts written below a stack; more would run into each other.
MOST_LABELS = 16


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the parts that are large enough to see in any row; unexplained always."""
    return [
        name
        for name in PARTS
        if name == "unexplained_s"
        or any(abs(row[name]) > LEAST_SHARE * row["measured_s"] for row in rows)
    ]


@styled
def plot_gap(row: Mapping[str, Any], *, title: str = "") -> Figure:
    """Return the waterfall of one row: from the ideal roofline, part by part, to what was measured."""
    names = _shown([row])
    figure, axes = new_figure(7.2, 1.1 + 0.42 * (len(names) + 3))
    scale = 1e3
    labels, place = [], 0
    ends = []

    def bar(
        label: str, left: float, width: float, fill: tuple[str, str, str], text: str,
        spread: float = 0.0,
    ) -> None:  # fmt: skip
        nonlocal place
        axes.barh(
            place, width * scale, 0.62, left * scale, color=fill[0], hatch=fill[1],
            edgecolor=fill[2], linewidth=0.6,
        )  # fmt: skip
        end = (max(left, left + width) + spread) * scale
        axes.annotate(
            text, (end, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
        labels.append(label)
        ends.append(end)
        place += 1

    def share(value: float) -> str:
        return f"{value * scale:+.2f} ({value / row['measured_s']:+.1%})"

    bar("ideal roofline", 0.0, row["ideal_s"], _FILL["ideal_s"], f"{row['ideal_s'] * scale:.2f}")
    begin = row["ideal_s"]
    for name in names:
        if name == "unexplained_s":
            text = f"{row['predicted_s'] * scale:.2f}"
            bar("predicted", 0.0, row["predicted_s"], (PALE, "//", "white"), text)
        value = row[name]
        text = share(value)
        if name == "unexplained_s" and row["within_noise"]:
            text += ", within the noise"
        bar(LABELS[name], begin, value, _FILL[name], text)
        begin += value
        axes.plot([begin * scale] * 2, [place - 1.31, place - 0.31], color=GREY, linewidth=0.8)
    noise = row["noise_s"]
    text = f"{row['measured_s'] * scale:.2f}"
    if noise is not None:
        text += f" ± {noise * scale / 2:.2f}"
        axes.errorbar(
            row["measured_s"] * scale, place, xerr=noise * scale / 2, color=BLACK, capsize=3,
            linewidth=1.2, zorder=4,
        )  # fmt: skip
    bar("measured", 0.0, row["measured_s"], (BLACK, "", BLACK), text, (noise or 0.0) / 2)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(min(0.0, *ends), max(ends) * 1.28)
    axes.set_xlabel("time (ms)")
    stage = "time to first token" if row["stage"] == "total" else row["stage"]
    set_titles(axes, f"Roofline to clock: {stage}", title, labels=1.2)
    return figure


@styled
def plot_gap_over_tokens(
    rows: Sequence[Mapping[str, Any]], *, title: str = "", stage: str = "total"
) -> Figure:
    """Return the parts stacked over visual tokens, with the measured time on top of them.

    The rows are those of one stage of one curve: one model, dtype, method, batch and mode. Rounds of one
    token count are joined by their median. Where parts are negative (a stage faster than its explanation),
    they hang below zero, and the measured mark says where the sum is.
    """
    names = _shown(rows)
    figure, axes = new_figure(7.2, 5.0)
    items = [dict(row) for row in rows]
    counts, seconds = medians_by_count(items, itemgetter("measured_s"))
    measured = [second * 1e3 for second in seconds]
    place = np.arange(len(counts))
    above, below = np.zeros(len(counts)), np.zeros(len(counts))
    for name in ("ideal_s", *names):
        _, values = medians_by_count(items, itemgetter(name))
        height = np.asarray(values) * 1e3
        up, down = np.maximum(height, 0), np.minimum(height, 0)
        colour, hatch, edge = _FILL[name]
        for part, bottom in ((up, above), (down, below)):
            axes.bar(
                place, part, 0.7, bottom, color=colour, hatch=hatch, edgecolor=edge,
                linewidth=0.4, label=LABELS[name] if part is up else None,
            )  # fmt: skip
        above, below = above + up, below + down
    axes.plot(
        place, measured, linestyle="", marker="D", color="white", markeredgecolor=BLACK,
        markersize=7, label="measured", zorder=5,
    )  # fmt: skip
    axes.axhline(0, color=BLACK, linewidth=0.8)
    every = -(-len(counts) // MOST_LABELS)
    axes.set_xticks(place[::every], [str(count) for count in counts[::every]])
    axes.grid(visible=False, axis="x")
    axes.set_ylim(top=max(float(above.max()), max(measured)) * 1.05)
    axes.set_xlabel("visual tokens (not to scale)")
    what = "time to first token" if stage == "total" else f"{stage} time"
    axes.set_ylabel(f"{what} (ms)")
    legend_below(figure, axes, columns=3)
    set_titles(axes, "Where the time goes, by visual tokens", title)
    return figure
