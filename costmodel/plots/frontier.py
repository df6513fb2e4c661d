"""The picture of a frontier: score against time, methods apart by colour and by marker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods import list_methods
from costmodel.plots.style import (
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from costmodel.questions.frontiers import Frontier, FrontierPoint

#: Black is the unreduced model's.
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "8")


@styled
def plot_frontier(frontier: Frontier) -> Figure:
    """Draw a frontier: score against modelled time, the best points joined by a line.

    Args:
        frontier: what `costmodel.questions.frontiers.frontier` returned.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure, axes = new_figure(7.2, 5.4)
    _points(axes, frontier)
    _front(axes, frontier)
    _budget(axes, frontier)
    steps = frontier.fixed["output_tokens"]
    until = "to the first token" if not steps else f"with {steps} output tokens"
    axes.set_xlabel(f"modelled time {until} (ms)")
    axes.set_ylabel(_score_label(frontier))
    axes.margins(x=0.1, y=0.1)
    legend_below(figure, axes, columns=3)
    scenario = f"{frontier.model}, {frontier.benchmark.name}, on {frontier.hardware}"
    set_titles(axes, "What is best within a time", scenario)
    return figure


def _height(frontier: Frontier, point: FrontierPoint) -> float:
    if frontier.rank == "retained" and point.retained is not None:
        return 100 * point.retained
    return point.score


def _score_label(frontier: Frontier) -> str:
    bench = frontier.benchmark
    if frontier.rank == "retained":
        return f"{bench.name} against the unreduced model (%)"
    return f"{bench.name}: {bench.metric}"


def _look(method: str) -> tuple[str, str]:
    """Colour and marker of a method, the same in every picture."""
    if method == "none":
        return "black", "*"
    names = list_methods()
    order = names.index(method) if method in names else len(names)
    return COLOURS[order % len(COLOURS)], MARKERS[order % len(MARKERS)]


def _points(axes: Axes, frontier: Frontier) -> None:
    named: set[str] = set()
    trained = False
    for point in frontier.points:
        colour, marker = _look(point.method)
        hollow = point.training != "none"
        trained |= hollow
        label = None
        if point.method not in named:
            named.add(point.method)
            label = "unreduced" if point.method == "none" else point.method
        if frontier.rank == "retained" and point.tables > 1:
            low, high = (100 * (end or 0) for end in (point.retained_low, point.retained_high))
            axes.vlines(1e3 * point.time_s, low, high, colors=colour, linewidth=1, zorder=2)
        axes.plot(
            [1e3 * point.time_s],
            [_height(frontier, point)],
            linestyle="none",
            marker=marker,
            markersize=11 if marker == "*" else 7.5,
            markerfacecolor="white" if hollow else colour,
            markeredgecolor=colour,
            markeredgewidth=1.4,
            zorder=3,
            label=label,
        )
    if trained:
        axes.plot([], [], linestyle="none", marker="o", markerfacecolor="white",
                  markeredgecolor="black", label="hollow: trained, or not said")  # fmt: skip
    _name_front(axes, frontier)


def _name_front(axes: Axes, frontier: Frontier) -> None:
    """Write token counts beside the points of the front only: the others would overlap."""
    front = [p for p in frontier.points if p.pareto and p.visual_tokens is not None]
    for number, point in enumerate(front):
        left = number % 2 == 0
        axes.annotate(
            f"{point.visual_tokens}",
            (1e3 * point.time_s, _height(frontier, point)),
            xytext=(-8 if left else 8, 4),
            ha="right" if left else "left",
            textcoords="offset points",
            fontsize=8,
        )


def _front(axes: Axes, frontier: Frontier) -> None:
    front = [point for point in frontier.points if point.pareto]
    axes.step(
        [1e3 * point.time_s for point in front],
        [_height(frontier, point) for point in front],
        where="post",
        color="0.35",
        linewidth=1.2,
        linestyle="--",
        zorder=2,
        label="best so far (visual tokens)",
    )


def _budget(axes: Axes, frontier: Frontier) -> None:
    if frontier.latency_s is None:
        return
    limit = 1e3 * frontier.latency_s
    right = max(axes.get_xlim()[1], 1.05 * limit)
    axes.axvspan(limit, right, color="0.92", zorder=0)
    axes.axvline(limit, color="0.5", linewidth=1.0, label=f"budget {limit:g} ms")
    axes.set_xlim(right=right)
