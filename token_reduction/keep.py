"""How many tokens `keep` asks for: a count, a ratio, and each program's own rounding.

`keep` is a count when it is an int and a ratio when it is a float, so 1 keeps one token and 1.0
keeps them all. The authors' programs turn a ratio into a count in three ways:

    "nearest"  round(ratio * n), ties to even as Python rounds   (DivPrune, FastV)
    "down"     int(ratio * n)                                    (PruMerge, HiRED, PyramidDrop)
    "up"       ceil(ratio * n)                                   (EViT)

The product is the double-precision one, rounding noise included, since that is what they compute.
"""

from __future__ import annotations

import math
import numbers
from typing import Literal

from hardware_specs.errors import InvalidInputError

Rounding = Literal["nearest", "down", "up"]


def check_keep(keep: object) -> int | float:
    """Say whether `keep` is a count or a ratio, and refuse what is neither.

    Args:
        keep: a count (int >= 1, NumPy's integers too) or a ratio (float in (0, 1]).

    Returns:
        An int for a count, a float for a ratio.

    Raises:
        InvalidInputError: a bool, another type, a count below 1, a ratio outside (0, 1] or NaN.

    >>> check_keep(1), check_keep(1.0)
    (1, 1.0)
    """
    if isinstance(keep, bool):
        raise InvalidInputError(
            f"keep={keep} is a bool; give a count of tokens (int) or a ratio (float in (0, 1])"
        )
    if isinstance(keep, numbers.Integral):
        count = int(keep)
        if count < 1:
            raise InvalidInputError(f"keep={count} keeps nothing; a count of tokens starts at 1")
        return count
    if isinstance(keep, numbers.Real):
        ratio = float(keep)
        if not 0.0 < ratio <= 1.0:
            raise InvalidInputError(
                f"keep={ratio} is a float, so a ratio, and must be in (0, 1]; "
                "for a count of tokens give an int"
            )
        return ratio
    raise InvalidInputError(
        f"keep={keep!r} is neither a count of tokens (int) nor a ratio (float in (0, 1])"
    )


def resolve_keep(keep: float, n: int, *, rounding: Rounding = "nearest") -> int:
    """Number of tokens kept out of `n`.

    Formula: the count itself, or ratio * n rounded as the method's program does it (see the
    module's table).

    Args:
        keep: a count (int) or a ratio (float in (0, 1]).
        n: tokens there are.
        rounding: how a ratio becomes a count.

    Raises:
        InvalidInputError: `keep` is neither, more tokens than there are, or none at all.

    >>> resolve_keep(0.098, 576), resolve_keep(0.0975, 576, rounding="down")
    (56, 56)
    >>> resolve_keep(0.7, 576, rounding="up")  # 403.2
    404
    >>> resolve_keep(1, 576), resolve_keep(1.0, 576)
    (1, 576)
    >>> resolve_keep(0.5, 5)  # 2.5, to even
    2
    """
    checked = check_keep(keep)
    if isinstance(checked, int):
        if checked > n:
            raise InvalidInputError(
                f"keep={checked} asks for more tokens than the {n} there are; "
                f"give at most {n}, or a ratio"
            )
        return checked
    product = checked * n
    if rounding == "nearest":
        count = round(product)
    elif rounding == "down":
        count = int(product)
    else:
        count = math.ceil(product)
    if count < 1:
        raise InvalidInputError(
            f"keep={checked} of {n} tokens is {product:.3g}, which rounds to none; "
            f"give at least {1 / max(n, 1):.3g}, or a count"
        )
    return min(count, n)
