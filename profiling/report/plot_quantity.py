"""A measured quantity over visual tokens, with its prediction: memory, energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.plots.style import CYCLE, legend_below, new_figure, set_titles, styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure


@styled
def plot_quantity(
    curves: Mapping[str, Sequence[tuple[int, float, float | None]]],
    *,
    what: str,
    unit: str,
    scale: float = 1.0,
    title: str = "",
) -> Figure:
    """Return measured marks and predicted lines over visual tokens.

    Args:
        curves: by name, points of (visual tokens, measured, predicted or None), ascending.
        what: the quantity, such as `peak memory`.
        unit: in which it is drawn.
        scale: what one of the unit is in the points' own.
        title: device and software, for the second line.
    """
    figure, axes = new_figure(7.2, 4.4)
    for index, (name, points) in enumerate(curves.items()):
        colour, line, marker = CYCLE[index % len(CYCLE)]
        known = [(tokens, value) for tokens, _, value in points if value is not None]
        if known:
            axes.plot(
                [tokens for tokens, _ in known], [value / scale for _, value in known],
                color=colour, linestyle=line, label=f"{name}: predicted",
            )  # fmt: skip
        axes.plot(
            [tokens for tokens, _, _ in points], [value / scale for _, value, _ in points],
            linestyle="", marker=marker, color=colour, markeredgecolor="white",
            label=f"{name}: measured", zorder=5,
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("visual tokens entering the language model")
    axes.set_ylabel(f"{what} ({unit})")
    legend_below(figure, axes)
    set_titles(axes, f"{what[0].upper()}{what[1:]} against visual tokens", title)
    return figure
