"""How many tokens `keep` leaves, rounded as each method's program rounds, for numbers and arrays.

The three ways: `nearest` is round(ratio x n), ties to even; `down` is int(ratio x n); `up` is
ceil(ratio x n). The product is the double-precision one, rounding noise included.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.quantities import Num

_ARRAY: dict[str, Any] = {"nearest": np.rint, "down": np.floor, "up": np.ceil}
_SCALAR: dict[str, Any] = {"nearest": round, "down": int, "up": math.ceil}


def share(ratio: float, n: Num, rounding: str = "nearest") -> Num:
    """Return ratio x n as a whole number.

    >>> share(0.098, 576), share(0.7, 576, "up"), share(0.5, 5)  # 56.448; 403.2; 2.5, to even
    (56, 404, 2)
    """
    product = ratio * n
    rounded: Num = (_ARRAY if isinstance(product, np.ndarray) else _SCALAR)[rounding](product)
    return rounded


def kept_count(name: str, keep: Any, n: Num, rounding: str = "nearest") -> Num:
    """Return how many of `n` tokens a count or a ratio keeps; none where there are none.

    Args:
        name: the method, for the message.
        keep: a count (int or an array of them) or a ratio (float).
        n: tokens there are.
        rounding: how a ratio becomes a count.

    Raises:
        InvalidInputError: more tokens than there are.

    >>> kept_count("divprune", 64, 576), kept_count("divprune", 64, 0)
    (64, 0)
    >>> kept_count("divprune", 600, 576)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: divprune: keep=600 asks for more tokens than the 576 \
there are; give at most 576, or a ratio
    """
    if isinstance(keep, float):
        return share(keep, n, rounding)
    there = n > 0
    beyond = (keep > n) & there
    if np.any(beyond):
        most, given = _first(n, beyond), _first(keep, beyond)
        raise InvalidInputError(
            f"{name}: keep={given:g} asks for more tokens than the {most:g} there are; "
            f"give at most {most:g}, or a ratio"
        )
    if isinstance(keep, np.ndarray) or isinstance(n, np.ndarray):
        return np.where(there, keep, 0)
    return keep if there else 0


def _first(value: Num, where: Any) -> Any:
    array = np.broadcast_to(value, np.shape(where))
    return array[where].flat[0] if array.ndim else array[()]


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
