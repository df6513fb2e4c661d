"""How every figure looks, and how it is saved.

Colours are those of Okabe and Ito (2008), told apart by people with any of the common colour
deficiencies; line styles, markers and hatches say the same again, so that a grey print loses nothing.
Figures are made without pyplot: no global state, no window, nothing to close.
"""

from __future__ import annotations

import io
import textwrap
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from hardware_specs.errors import MissingDependencyError
from hardware_specs.files.writing import check_ending, write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#777777"
PALE = "#BBBBBB"

#: (colour, line style, marker), in the order in which curves are drawn.
CYCLE = (
    (BLUE, "-", "o"),
    (VERMILLION, "--", "s"),
    (GREEN, "-.", "^"),
    (PURPLE, ":", "D"),
    (ORANGE, (0, (5, 1, 1, 1, 1, 1)), "v"),
    (SKY, (0, (1, 1)), "P"),
    (BLACK, (0, (3, 1)), "X"),
)
#: What is filled: (colour, hatch, edge, which also draws the hatch).
FILLS = (
    (PALE, "", "white"),
    (BLUE, "", "white"),
    (SKY, "//", "white"),
    (ORANGE, "\\\\", "white"),
    (VERMILLION, "xx", "white"),
    (GREEN, "..", "white"),
    (YELLOW, "--", "white"),
    (PURPLE, "oo", "white"),
    ("white", "///", BLACK),
)

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "path",
    # TrueType, which journals ask for: the default embeds outlines of Type 3.
    "pdf.fonttype": 42,
    "svg.hashsalt": "vlm-roofline",
    "savefig.dpi": 160,
}
FORMATS = (".png", ".svg", ".pdf")


def styled(function: Callable[P, T]) -> Callable[P, T]:
    """Run a plotting function under the style, and say clearly when matplotlib is missing."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            import matplotlib
        except ImportError:
            raise MissingDependencyError("matplotlib", "analysis") from None
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return run


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches with one pair of axes."""
    figure, (axes,) = new_panels(1, width, height)
    return figure, axes


def new_panels(number: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes below each other that share their horizontal axis.

    Args:
        number: of axes.
        width: inches.
        height: inches of each.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * number), layout="constrained")
    return figure, list(figure.subplots(number, 1, sharex=True, squeeze=False)[:, 0])


def set_titles(axes: Axes, title: str, subtitle: str, *, labels: float = 0.0) -> None:
    """Give axes a bold title and a line below that says device, model and software.

    Args:
        axes: the axes.
        title: what is shown.
        subtitle: device, model and software that the figure is of.
        labels: inches of the labels left of the axes, where they are more than numbers.
    """
    figure = axes.get_figure(root=True)
    width = (6.4 if figure is None else figure.get_figwidth()) - labels
    lines = textwrap.wrap(escape(subtitle), int(width * 15)) or [""]
    axes.set_title(escape(title) + "\n" * len(lines), fontweight="bold", pad=6)
    note = axes.text(
        0.0, 1.015, "\n".join(lines), transform=axes.transAxes, fontsize=8, color="#333333",
        va="bottom",
    )  # fmt: skip
    # Its place is under the title already; the layout need not make room for its width.
    note.set_in_layout(False)


def name_panel(axes: Axes, text: str) -> None:
    """Write a line above axes, below the figure's titles where these are the first."""
    first = bool(axes.get_title(loc="left"))
    if first:
        axes.set_title(axes.get_title(loc="left") + "\n", fontweight="bold", pad=6)
        for note in axes.texts:
            note.set_text(note.get_text() + "\n")
    axes.annotate(
        escape(text), (0, 1), xytext=(0, 4), xycoords="axes fraction", textcoords="offset points",
        fontsize=8, fontweight="bold",
    )  # fmt: skip


def legend_below(figure: Figure, *panels: Axes, columns: int = 2) -> None:
    """Put the legend below the axes, where it covers no line and no label at any size of the figure.

    What several panels name alike stands there once. Where the columns are wider than the figure, there are
    fewer.
    """
    named: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    for number in range(columns, 0, -1):
        legend = figure.legend(
            list(named.values()), list(named), loc="outside lower left", ncols=number
        )
        if number == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def plain_log_ticks(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers at 1, 2 and 5 of every decade.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def escape(text: str) -> str:
    r"""Return text that matplotlib prints as it is: a dollar sign would begin a formula.

    >>> escape("a$b")
    'a\\$b'
    """
    return text.replace("$", r"\$")


@styled
def figure_bytes(figure: Figure, format: str) -> bytes:  # noqa: A002 - matplotlib's own word
    """Return a figure as the bytes of a picture file; the same figure gives the same bytes.

    Args:
        figure: the figure.
        format: `png`, `svg` or `pdf`.
    """
    if figure.get_layout_engine() is not None:
        # The layout moves a little with every drawing: settle it once, so that all files agree.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    metadata: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format, {})
    figure.savefig(buffer, format=format, metadata=metadata)
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a PNG, SVG or PDF file, whole or not at all, and return its path.

    Args:
        figure: the figure.
        path: the file; its ending says which kind.

    Raises:
        InvalidInputError: another ending.
        OutputError: the file cannot be written.
    """
    kind = check_ending(path, *FORMATS)[1:]
    return write_file(path, figure_bytes(figure, kind))
