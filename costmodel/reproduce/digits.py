"""Printed digits: what a value looks like on LLM-Viewer's page and in a paper's table.

A cell is reproduced when the recomputed value, rounded half up to the digits the paper prints, is
the printed number. Table 2 of PruMerge was read off LLM-Viewer's web page, which has rounded once
already: a page that shows 4.6 cannot tell 4.60 from 4.64, so the cell's trailing zero is no digit.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware_specs.errors import InvalidFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Lets a value that is a decimal half (4.55) round up although its binary form is just below.
_HALF_SLACK = 1e-9


def decimals(published: str) -> int:
    """Return how many decimals a printed number has.

    Raises:
        InvalidFileError: the text is not a plain decimal number.

    >>> decimals("9.3"), decimals("0.28"), decimals("70")
    (1, 2, 0)
    """
    try:
        exponent = Decimal(published).as_tuple().exponent
    except InvalidOperation:
        exponent = "n"
    if not isinstance(exponent, int) or exponent > 0:
        raise InvalidFileError(f"published value {published!r} is not a plain decimal number")
    return -exponent


def round_half_up(value: Any, places: Any) -> NDArray[np.float64]:
    """Round to `places` decimals, halves away from zero; arrays broadcast.

    >>> float(round_half_up(4.55, 1)), float(round_half_up(18.2 / 4, 1))
    (4.6, 4.6)
    """
    scale = np.power(10.0, places)
    rounded: NDArray[np.float64] = np.floor(np.asarray(value) * scale + 0.5 + _HALF_SLACK) / scale
    return rounded


def prints_as(value: Any, published: str) -> Any:
    """Return whether a value prints as the published number; arrays give an array.

    >>> prints_as(9.3276, "9.3"), prints_as(4.6449, "4.60")
    (True, False)
    """
    places = decimals(published)
    same = np.rint(round_half_up(value, places) * 10**places) == np.rint(
        float(published) * 10**places
    )
    return bool(same) if np.ndim(same) == 0 else same


def page_value(value: Any) -> Any:
    """Return operations or bytes as LLM-Viewer's page shows them, in the same unit.

    The page scales by 1000 and prints one decimal up to 100 of a unit and none from there:
    9.3T, 909G, 283.9M becomes 284M. Source: `frontend/src/utils.js`, `strNumber`.

    >>> page_value(9.3276e12), page_value(909.531e9), page_value(283.917e6), page_value(70.979e6)
    (9300000000000.0, 910000000000.0, 284000000.0, 71000000.0)
    """
    array = np.asarray(value, dtype=np.float64)
    unit = 1000.0 ** np.clip(np.floor(np.log10(array) / 3), 1, 4)
    places = np.where(array / unit > 100, 0, 1)
    shown = round_half_up(array / unit, places) * unit
    return float(shown) if shown.ndim == 0 else shown


def page_time_s(seconds: Any) -> Any:
    """Return a time as LLM-Viewer's page shows it: one decimal of a millisecond.

    >>> round(page_time_s(0.088614219), 6)
    0.0886
    """
    shown = round_half_up(np.asarray(seconds) * 1e3, 1) / 1e3
    return float(shown) if shown.ndim == 0 else shown


def interval_of(mask: NDArray[np.bool_], values: NDArray[Any]) -> tuple[Any, Any] | None:
    """Return the first and last value where a mask holds, or None where it nowhere does.

    >>> interval_of(np.array([False, True, True]), np.array([1, 2, 3]))
    (2, 3)
    """
    found = values[mask]
    return (found[0].item(), found[-1].item()) if found.size else None
