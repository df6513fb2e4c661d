"""How many tokens `keep` asks for: a count, a ratio, and each program's own rounding.

`keep` is a count when it is an int and a ratio when it is a float, so 1 keeps one token and 1.0
keeps them all. The authors' programs turn a ratio into a count in three ways:

    "nearest"  round(ratio * n), ties to even as Python rounds   (DivPrune, FastV)
    "down"     int(ratio * n)                                    (PruMerge, HiRED, PyramidDrop)
    "up"       ceil(ratio * n)                                   (EViT)

The product is the double-precision one, rounding noise included, since that is what they compute.
`resolve_keep` serves running a method on tokens; `kept_count` serves pricing one, on numbers and arrays.
"""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from costmodel.quantities import MOST_TOKENS, Num
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Callable


Rounding = Literal["nearest", "down", "up"]

_ARRAY: dict[str, Any] = {"nearest": np.rint, "down": np.floor, "up": np.ceil}
_SCALAR: dict[str, Any] = {"nearest": round, "down": int, "up": math.ceil}


def check_keep(keep: object) -> int | float:
    """Return a count (an int from 1, NumPy's too) as an int, a ratio (in (0, 1]) as a float.

    No method that is asked for a count keeps none: its program fails, or takes the best of nothing.

    Raises:
        InvalidInputError: a bool, another type, a count below 1 or beyond any prompt, a ratio outside
            (0, 1] or NaN.

    >>> check_keep(1), check_keep(1.0)
    (1, 1.0)
    """
    if not isinstance(keep, bool):
        if isinstance(keep, numbers.Integral) and 1 <= int(keep) <= MOST_TOKENS:
            return int(keep)
        if isinstance(keep, numbers.Real) and not isinstance(keep, numbers.Integral):
            ratio = float(keep)
            if 0.0 < ratio <= 1.0:
                return ratio
    none = "; for no visual tokens take vtw, or visual_tokens=0 without a method"
    raise InvalidInputError(
        "keep must be a count (an int from 1) or a ratio (a float in (0, 1]), not the "
        f"{type(keep).__name__} {shown(keep)}{none if isinstance(keep, (int, float)) and keep == 0 else ''}"
    )


def share(ratio: float, n: Num, rounding: str = "nearest") -> Num:
    """Return ratio x n as a whole number.

    >>> share(0.098, 576), share(0.7, 576, "up"), share(0.5, 5)  # 56.448; 403.2; 2.5, to even
    (56, 404, 2)
    """
    product = ratio * n
    rounded: Num = (_ARRAY if isinstance(product, np.ndarray) else _SCALAR)[rounding](product)
    return rounded


def resolve_keep(keep: float, n: int, *, rounding: Rounding = "nearest") -> int:
    """Return how many of `n` tokens a method that runs keeps: at least one, at most all.

    Raises:
        InvalidInputError: `keep` is neither count nor ratio, more tokens than there are, or none at all.

    >>> resolve_keep(0.098, 576), resolve_keep(0.0975, 576, rounding="down")
    (56, 56)
    >>> resolve_keep(1, 576), resolve_keep(1.0, 576)
    (1, 576)
    """
    checked = check_keep(keep)
    if isinstance(checked, int):
        if checked > n:
            raise _too_many(f"keep={checked}", n)
        return checked
    count = int(share(checked, n, rounding))
    if count < 1:
        raise _too_few("", checked, n)
    return min(count, n)


def kept_count(name: str, keep: Any, n: Num, rounding: str = "nearest") -> Num:
    """Return how many of `n` tokens a count, an array of counts or a ratio keeps; none of none.

    Raises:
        InvalidInputError: more tokens than there are, or a ratio of some that rounds to none.

    >>> kept_count("divprune", 64, 576), kept_count("divprune", 64, 0)
    (64, 0)
    >>> kept_count("divprune", 600, 576)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: divprune: keep=600 asks for more tokens than the 576 \
    there are; give at most 576, or a ratio
    """
    there = n > 0
    if isinstance(keep, float):
        count = share(keep, n, rounding)
        none = (count < 1) & there
        if some(none):
            raise of_rows(_too_few(name, keep, first(n, none)), none)
        return count
    beyond = (keep > n) & there
    if some(beyond):
        raise of_rows(_too_many(f"{name}: keep={first(keep, beyond):g}", first(n, beyond)), beyond)
    if isinstance(keep, np.ndarray) or isinstance(n, np.ndarray):
        return np.where(there, keep, 0)
    return keep if there else 0


def _too_few(name: str, ratio: float, n: Num) -> InvalidInputError:
    return InvalidInputError(
        f"{name}{': ' if name else ''}keep={ratio:g} of {n:g} tokens is {ratio * n:.3g}, which rounds to "
        f"none; give at least {1 / max(n, 1):.3g}, or a count"
    )


def _too_many(asked: str, n: Num) -> InvalidInputError:
    return InvalidInputError(
        f"{asked} asks for more tokens than the {n:g} there are; give at most {n:g}, or a ratio"
    )


def some(where: Any) -> bool:
    """Return whether a condition holds, or any of an array of them; numpy is slow to say so of one.

    >>> some(False), some(np.array([False, True]))
    (False, True)
    """
    return bool(where.any() if isinstance(where, np.ndarray) else where)


def first(value: Num, where: Any) -> Any:
    """Return the first number where a condition holds, both numbers or arrays.

    >>> first(np.array([1, 2, 3]), np.array([False, True, True]))
    np.int64(2)
    """
    array = np.broadcast_to(value, np.shape(where))
    return array[where].flat[0] if array.ndim else array[()]


def by_pair(function: Callable[[Any, Any], int], a: Num, b: Num) -> Num:
    """Return a function of two whole numbers, or over arrays of them, once per distinct pair.

    >>> by_pair(max, 3, 2), by_pair(max, np.array([1.0, 5.0]), 2)
    (3, array([2., 5.]))
    """
    if not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray):
        return function(a, b)
    wide_a, wide_b = np.broadcast_arrays(a, b)
    pairs, where = np.unique(
        np.stack([wide_a.ravel(), wide_b.ravel()]), axis=1, return_inverse=True
    )
    each = np.zeros(pairs.shape[1])
    errors: dict[int, InvalidInputError] = {}
    for place, (x, y) in enumerate(pairs.T):
        try:
            each[place] = function(int(x), int(y))
        except InvalidInputError as error:
            errors[place] = error
    if errors:
        refused = np.isin(where, list(errors)).reshape(wide_a.shape)
        raise of_rows(next(iter(errors.values())), refused)
    return each[where].reshape(wide_a.shape)


def of_rows(error: InvalidInputError, rows: Any) -> InvalidInputError:
    """Return an error that knows which of many scenarios it refuses.

    >>> of_rows(InvalidInputError("no"), np.array([True, False])).rows.tolist()
    [True, False]
    """
    error.rows = rows if isinstance(rows, np.ndarray) else None
    return error


def least(a: Num, b: Num) -> Num:
    """Return the smaller, number by number.

    >>> least(3, 2)
    2
    """
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.minimum(a, b)
    return min(a, b)


def greatest(a: Num, b: Num) -> Num:
    """Return the larger, number by number.

    >>> greatest(3, 2)
    3
    """
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.maximum(a, b)
    return max(a, b)
