"""Pieces of a sweep, and how they become a table.

A sweep of 10^8 rows is written piece by piece, so a column must have the same type in every piece,
whatever is known of its rows: names are categories, counts are whole numbers, costs are float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.parallel.degrees import DEGREES
from costmodel.request import BUDGET
from costmodel.roofline import BOUNDS
from hardware_specs.showing import brief, harmless, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

#: Columns of whole numbers; costs are float64, exact below 2^53.
COUNTS = (
    "visual_tokens", "text_tokens", "cached_tokens", "batch_size", "output_tokens", "images", "crops",
)  # fmt: skip
#: Fixed values that are whole numbers; the others are names. `keep` is one of them: as a number a
#: count of 1 and a ratio of 1.0 would be the same.
_FIXED_COUNTS = ("layer", "frames", *BUDGET, "memory_margin_bytes", *DEGREES)
#: Fixed values that are any number.
_FIXED_NUMBERS = ("host_s", "power_limit_w", "request_s")


class Chunk(NamedTuple):
    """A piece of a sweep: `fixed` values that hold for all its rows, and `columns` of arrays.

    Columns named `bound` hold indices into `costmodel.roofline.BOUNDS`, -1 for an empty stage. A
    column that is not known (rows that could not be priced, a device without a capacity) is None.
    `warnings` are those that hold for all of its rows, `first` is the number of the first one in the sweep.
    """

    fixed: dict[str, Any]
    columns: dict[str, Any]
    rows: int
    warnings: tuple[str, ...] = ()
    first: int = 0

    def __repr__(self) -> str:
        """Return the fields that are set, as far as they fit."""
        return brief(self)


def join_chunks(chunks: Sequence[Chunk]) -> pd.DataFrame:
    """Return pieces of a sweep as one DataFrame, the fixed values first.

    Columns of names are categorical: a million rows repeat a handful of them. The warnings of all
    pieces, each once, are in `attrs["warnings"]`.

    Args:
        chunks: the pieces, in their order; at least one.

    >>> pieces = [Chunk({"model": "a"}, {"crops": np.array([1, 2])}, 2),
    ...           Chunk({"model": "b"}, {"crops": None}, 1)]
    >>> join_chunks(pieces).values.tolist()
    [['a', 1], ['a', 2], ['b', <NA>]]
    """
    import pandas as pd

    rows = [chunk.rows for chunk in chunks]
    columns: dict[str, Any] = {}
    for name in _in_order(chunk.fixed for chunk in chunks):
        values = [chunk.fixed.get(name) for chunk in chunks]
        if name in _FIXED_NUMBERS:
            numbers = [value if isinstance(value, float) else np.nan for value in values]
            columns[name] = np.repeat(numbers, rows)
        elif name in _FIXED_COUNTS:
            columns[name] = _repeated(values, rows)
        else:
            columns[name] = _categorical(values, rows)
    for name in _in_order(chunk.columns for chunk in chunks):
        columns[name] = _joined(name, [chunk.columns.get(name) for chunk in chunks], rows)
    frame = pd.DataFrame(columns, copy=False)
    told = dict.fromkeys(text for chunk in chunks for text in chunk.warnings)
    frame.attrs["warnings"] = list(told)
    return frame


def _in_order(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all mappings, each once, in the order they appear."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _repeated(values: list[Any], rows: list[int]) -> Any:
    import pandas as pd

    # What was refused (a layer 2.5) stands in the error, not in a column of numbers.
    numbers = [value if type(value) is int and abs(value) < 2**63 else None for value in values]
    return pd.Series(numbers, dtype="Int64").repeat(rows).array


def _categorical(values: list[Any], rows: list[int]) -> Any:
    import pandas as pd

    texts = [None if value is None else _text(value) for value in values]
    names = list(dict.fromkeys(text for text in texts if text is not None))
    place = {name: code for code, name in enumerate(names)}
    codes = [-1 if text is None else place[text] for text in texts]
    return pd.Categorical.from_codes(np.repeat(codes, rows), pd.Index(names, dtype=str))


def as_held(name: str, value: Any) -> str | int | float | None:
    """Return a fixed value as a table holds it: numbers of numbers, and text of everything else.

    >>> as_held("tp", 2), as_held("keep", 1), as_held("keep", 1.0)
    (2, '1', '1.0')
    """
    if value is None or (name in (*_FIXED_COUNTS, *_FIXED_NUMBERS) and type(value) in (int, float)):
        found: int | float | None = value
        return found
    return _text(value)


def _text(value: Any) -> str:
    """Return a value as a table holds it: without the lone surrogates that a path may have."""
    return shown(value) if type(value) is int else harmless(str(value))


def _joined(name: str, parts: list[Any], rows: list[int]) -> Any:
    """Return a column of several pieces, some of which may not be known."""
    import pandas as pd

    pieces = list(zip(parts, rows, strict=True))
    if name.endswith("bound"):
        codes = [np.full(n, -1) if part is None else part for part, n in pieces]
        return pd.Categorical.from_codes(np.concatenate(codes), pd.Index(BOUNDS))
    if name in COUNTS or name == "fits":
        if all(part is not None for part in parts):
            return np.concatenate(parts)
        kind: Any = "boolean" if name == "fits" else "Int64"
        return pd.concat(
            [pd.Series([None] * n if part is None else part, dtype=kind) for part, n in pieces]
        ).array
    return np.concatenate([np.full(n, np.nan) if part is None else part for part, n in pieces])
