"""A sweep's table as curves: one quantity against one argument, a curve for each setting of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.plots.style import CYCLE, escape, legend_below, new_figure, set_titles, styled
from costmodel.request import ARGUMENTS, names_of
from hardware_specs.errors import InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

#: More curves are not told apart.
MOST_CURVES = 2 * len(CYCLE)
#: Ending of a column -> what one of the axis' units is of the column's, and the axis' unit.
_UNITS = {"_s": (1e-3, "ms"), "_bytes": (1e9, "GB"), "flops": (1e12, "TFLOP")}


@styled
def plot_sweep(
    table: pd.DataFrame,
    *,
    x: str | None = None,
    y: str = "ttft_s",
    where: Mapping[str, str] | None = None,
) -> Figure:
    """Return the figure of a table that `sweep` made.

    Args:
        table: a sweep's rows.
        x: the argument along the horizontal axis; None takes the first number of which there are several.
        y: the column along the vertical axis.
        where: column -> the value, as text, of the rows to draw.

    Raises:
        InvalidInputError: no such column, nothing to draw, several rows for one point of a curve, or more
            curves than can be told apart.
    """
    for name, value in (where or {}).items():
        _known(table, name, "where")
        kept = table[table[name].astype(str) == value]
        if kept.empty:
            there = ", ".join(sorted(table[name].astype(str).unique())[:12])
            raise InvalidInputError(f"no row has {name} = {value}; there is: {there}")
        table = kept
    numbers = [name for name in names_of("number") if name in table]
    varying = [name for name in numbers if table[name].nunique() > 1]
    x = x or next(iter(varying), None)
    if x is None:
        raise InvalidInputError(
            "no number varies in the table; sweep several --visual-tokens, say, or name --x"
        )
    for name, axis in ((x, "x"), (y, "y")):
        _known(table, name, axis)
        if table[name].dtype.kind not in "iuf":
            raise InvalidInputError(f"column {name} holds no numbers; an axis needs them")
    table = table.dropna(subset=[x, y])
    if table.empty:
        raise InvalidInputError(f"no row has both {x} and {y}")
    told = _told_apart(table, x)
    groups = (
        list(table.groupby(told, dropna=False, sort=False, observed=True))
        if told
        else [((), table)]
    )
    if len(groups) > MOST_CURVES:
        raise InvalidInputError(
            f"{len(groups)} curves ({', '.join(told)}) cannot be told apart; at most {MOST_CURVES}: keep "
            "some with --where"
        )
    unit, unit_name = next(
        (found for ending, found in _UNITS.items() if y.endswith(ending)), (1.0, "")
    )
    figure, axes = new_figure(7.2, 5.0)
    for index, (values, rows) in enumerate(groups):
        colour, line, marker = CYCLE[index % len(CYCLE)]
        rows = rows.sort_values(x)
        label = _label(told, values)
        if "method" in told and "keep" not in told and rows["keep"].nunique() == 1:
            label += f", keep {_text(rows['keep'].iloc[0])}"
        axes.plot(
            rows[x], rows[y] / unit, color=colour, linestyle=line, label=escape(label),
            marker=marker if len(rows) <= 40 or index >= len(CYCLE) else "",
            markerfacecolor="white" if index >= len(CYCLE) else colour,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x.replace("_", " "))
    named = y.removesuffix("_s").replace("_", " ")
    named = named.upper() if named in ("ttft", "tpot") else named
    axes.set_ylabel(f"{named} ({unit_name})" if unit_name else named)
    if told:
        legend_below(figure, axes)
    shared = [name for name in ARGUMENTS if name in table and name not in (x, *told)]
    set_titles(
        axes, f"{named[0].upper()}{named[1:]} against {x.replace('_', ' ')}", _shared(table, shared)
    )
    return figure


def _known(table: pd.DataFrame, name: str, axis: str) -> None:
    if name not in table:
        raise InvalidInputError(str(UnknownNameError(name, map(str, table), f"column of --{axis}")))


def _told_apart(table: pd.DataFrame, x: str) -> list[str]:
    """Return the arguments that tell curves apart: those without which one place has several rows."""
    told: list[str] = []
    for name in (each for each in ARGUMENTS if each in table and each != x):
        if not table.duplicated([*told, x]).any():
            break
        before = len(table.drop_duplicates([*told, x]))
        if len(table.drop_duplicates([*told, name, x])) > before:
            told.append(name)
    if table.duplicated([*told, x]).any():
        raise InvalidInputError(
            f"several rows have the same {', '.join([*told, x])}; this is no table of one sweep"
        )
    return told


def _label(told: Sequence[str], values: Any) -> str:
    parts = []
    for name, value in zip(told, values, strict=True):
        if value != value:  # a keep or layer that a method does not have
            continue
        text = _text(value)
        plain = name in ("model", "hardware", "precision", "method", "execution")
        parts.append(text if plain else f"{name.replace('_', ' ')} {text}")
    return ", ".join(parts)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shared(table: pd.DataFrame, names: Sequence[str]) -> str:
    """Say what all curves have in common, leaving out what nobody set."""
    parts = []
    for name in ("model", "hardware", "precision", "method", "keep", "visual_tokens", "text_tokens",
                 "batch_size", "output_tokens", "execution"):  # fmt: skip
        values: list[Any] = list(table[name].unique()) if name in names else []
        if len(values) != 1 or values[0] != values[0] or values[0] in ("none", 0):
            continue
        parts.append(_label([name], [values[0]]))
    return ", ".join(parts)
