"""Checks of every column of a measured table that a fit reads, before anything is fitted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hardware_specs.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

#: Columns that a table of each kind needs beside `time_s`, and those it may have.
NEEDED = {
    "gemm": ("m", "n", "k"),
    "attention": ("batch_size", "seq_len", "heads", "head_dim", "causal"),
    "stream": ("bytes",),
}
OPTIONAL = {
    "gemm": ("batch", "weight_copies"),
    "attention": ("kv_len", "kv_heads"),
    "stream": ("flops",),
}
#: Seconds that each host row may take: no host launches a kernel in less than 0.1 us or in more
#: than 1 ms; a wait for an idle device may take longer.
HOST_SECONDS = {"module_kernel": (1e-7, 1e-3), "launch": (1e-7, 1e-3), "synchronise": (1e-7, 1e-2)}


class _Rule(NamedTuple):
    """What the cells of one column must be."""

    says: str
    holds: Any


_POSITIVE = _Rule("not positive", lambda values: values > 0)
_NO_LESS_THAN_ZERO = _Rule("negative", lambda values: values >= 0)
_FLAG = _Rule("neither 0 nor 1", lambda values: (values == 0) | (values == 1))
_RULES = {"causal": _FLAG, "flops": _NO_LESS_THAN_ZERO}
_WORDS = {"true": 1.0, "false": 0.0}


def checked(name: str, frame: pd.DataFrame, kind: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the columns of one kind as numbers, and remarks.

    An optional column without any value in a class is as if it were absent.

    Args:
        name: what the table is called in messages.
        frame: rows of one kind, indexed by their place in the table.
        kind: `gemm`, `attention` or `stream`.

    Raises:
        CalibrationError: a cell that is no number, empty, infinite or out of its range; names the
            table, the column, the number of such cells and the first row.
    """
    remarks: list[str] = []
    found = {each: numbers(name, frame[each]) for each in ("time_s", *NEEDED[kind])}
    for column, values in found.items():
        _hold(name, column, values, frame.index, _RULES.get(column, _POSITIVE))
    classes = labels(name, frame, "op_class")
    for column in OPTIONAL[kind]:
        if column not in frame:
            continue
        values = numbers(name, frame[column])
        empty = np.isnan(values)
        if empty.all():
            # A table of several kinds leaves the columns of the others empty.
            if classes is None:
                remarks.append(f"{name}: column {column!r} is empty: taken as absent")
            continue
        # A class either has the column in all its rows or in none.
        full = (
            np.full(len(empty), True)
            if classes is None
            else classes.isin(classes[~empty]).to_numpy()
        )
        rule = _RULES.get(column, _POSITIVE)
        _hold(name, column, values[full], frame.index[full], rule, len(full))
        found[column] = values
    return found, remarks


def as_in_models(name: str, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows that time ops as models run them in a burst, and remarks on the others.

    `load` tells a burst from a second without a pause, `variant` what differs from a model's own op
    (strided copies, unaligned products, an attention implementation that was forced), and `cache` a
    chain of products whose weights fit the last cache. Tables without these columns keep all rows.
    """
    remarks = []
    for column, keeps, what in (
        ("load", ("burst",), "under a sustained load"),
        ("variant", (), "of ops unlike a model's own"),
        ("cache", ("weights-cold", "no-weights"), "with weights in the last cache"),
    ):
        if column not in frame:
            continue
        other = frame[column].notna() & ~frame[column].isin(keeps)
        if other.any():
            remarks.append(f"{name}: {int(other.sum())} points {what} left out")
            frame = frame[~other]
    return frame, remarks


def labels(name: str, frame: pd.DataFrame, column: str) -> pd.Series | None:
    """Return a column of names as text, None where the table has none or leaves it empty.

    Raises:
        CalibrationError: only some cells are empty.
    """
    if column not in frame or frame[column].isna().all():
        return None
    empty = frame[column].isna().to_numpy()
    if empty.any():
        first = frame.index[int(np.flatnonzero(empty)[0])]
        raise CalibrationError(
            f"{name}: {int(empty.sum())} of {len(empty)} values of {column!r} are empty (first in "
            f"row {first}); name them all, or leave the column out"
        )
    return frame[column].map(str)


def need(name: str, frame: pd.DataFrame, op_class: str, columns: Iterable[str]) -> None:
    """Refuse rows of a class that lack some of its columns.

    Raises:
        CalibrationError: names those that are missing.
    """
    missing = [column for column in columns if column not in frame]
    if missing:
        raise CalibrationError(
            f"{name}: rows of class {op_class!r} need the column{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}"
        )


def host_times(name: str, frame: pd.DataFrame) -> dict[str, list[float]]:
    """Return the seconds of a table's host rows by what was timed.

    Raises:
        CalibrationError: a time that is no number or that no host takes.
    """
    found: dict[str, list[float]] = {}
    need(name, frame, "host", ("name", "time_s"))
    names = frame["name"].map(str).to_numpy()
    seconds = numbers(name, frame["time_s"])
    _hold(name, "time_s", seconds, frame.index, _POSITIVE)
    for row in dict.fromkeys(names):
        part = names == row
        low, high = HOST_SECONDS.get(row, (0.0, math.inf))
        says = f"no host's ({low:g} to {high:g} s for {row!r}; are they in seconds?)"
        rule = _Rule(says, lambda v, low=low, high=high: (v >= low) & (v <= high))
        _hold(name, "time_s", seconds[part], frame.index[part], rule)
        found[row] = seconds[part].tolist()
    return found


def numbers(name: str, cells: pd.Series) -> np.ndarray:
    """Return a column as numbers, NaN where a cell is empty.

    Raises:
        CalibrationError: cells that are no numbers.
    """
    kind = getattr(cells.dtype, "kind", "O")
    if isinstance(cells.dtype, np.dtype) and kind in "iufb":
        return cells.to_numpy(dtype=float)
    values = np.empty(len(cells))
    words = _WORDS if cells.name == "causal" else {}
    bad = []
    for place, cell in enumerate(cells.tolist()):
        try:
            values[place] = _number(cell, words)
        except (TypeError, ValueError, OverflowError):
            values[place] = math.nan
            bad.append(place)
    if bad:
        raise CalibrationError(
            f"{name}: column {cells.name!r} holds more than numbers: {len(bad)} of {len(cells)} "
            f"values are none, the first in row {cells.index[bad[0]]} "
            f"({ascii(cells.iloc[bad[0]])[:40]})"
        )
    return values


def _number(cell: Any, words: Mapping[str, float]) -> float:
    """Return a cell as a number, NaN where it is empty."""
    import pandas as pd

    if cell is None or cell is pd.NA or cell is pd.NaT:
        return math.nan
    if isinstance(cell, str):
        text = cell.strip().lower()
        if text in ("", "nan"):
            return math.nan
        if text in words:
            return words[text]
        if "_" in text:
            raise ValueError(cell)
    return float(cell)


def _hold(
    name: str, column: str, values: np.ndarray, rows: Any, rule: _Rule, total: int | None = None
) -> None:
    """Raise where values are empty, infinite or break their column's rule."""
    empty, infinite = np.isnan(values), np.isinf(values)
    for what, bad in (
        ("NaN or empty" if column != "time_s" else "NaN", empty),
        ("infinite", infinite),
        (rule.says, ~rule.holds(values)),
    ):
        if bad.any():
            first = rows[int(np.flatnonzero(bad)[0])]
            raise CalibrationError(
                f"{name}: {int(bad.sum())} of {total or len(values)} values of {column!r} are "
                f"{what} (first in row {first}); remove those rows or measure them again"
            )
