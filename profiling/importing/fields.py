"""Fields of foreign files: a number, a count or a text where there is one, and None where there is none.

What a file lacks, or has as an empty cell, `NaN`, a negative time or a text, is missing; it is never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: No run takes longer, in seconds; no count is larger.
_MOST_SECONDS = 1e9
_MOST = 2**53
_LONGEST = 200


def positive(value: Any) -> float | None:
    """Return a number above 0, from a number or a text of one.

    >>> positive("0.5"), positive(""), positive(-1), positive(True), positive("nan")
    (0.5, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and 0 < number <= _MOST else None


def seconds(value: Any, scale: float = 1.0) -> float | None:
    """Return a time in seconds; `scale` is the unit's, 1e-3 for milliseconds."""
    found = positive(value)
    return None if found is None or not 0 < found * scale <= _MOST_SECONDS else found * scale


def all_seconds(values: Any, otherwise: float | None) -> tuple[float, ...]:
    """Return a list's times in seconds, what is none left out; where there is none, the one that is known."""
    items = values if isinstance(values, list) else []
    found = tuple(time for value in items if (time := seconds(value)) is not None)
    return found or (() if otherwise is None else (otherwise,))


def count(value: Any, least: int = 1) -> int | None:
    """Return a whole number of at least `least`; means of counts are rounded.

    >>> count("8.0"), count(0), count(0, least=0), count("x")
    (8, None, 0, None)
    """
    if least == 0 and value in (0, 0.0, "0", "0.0") and not isinstance(value, bool):
        return 0
    found = positive(value)
    return None if found is None or round(found) < least else round(found)


def text(value: Any) -> str | None:
    """Return a short printable text."""
    if not isinstance(value, str):
        return None
    found = "".join(letter for letter in value if letter.isprintable()).strip()
    return found[:_LONGEST] or None


def inner(document: Any, *names: str) -> Any:
    """Return what stands at the end of some names in nested objects; None where it is missing.

    >>> inner({"a": {"b": 1}}, "a", "b"), inner({"a": 1}, "a", "b")
    (1, None)
    """
    for name in names:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document
