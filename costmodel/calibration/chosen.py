"""Which products to measure: spread evenly over sizes, on both sides of the steps that tiles make.

The points of an additive recurrence, u_i = i (1/g, 1/g^2, 1/g^3) mod 1 with g^4 = g + 1, fill the cube more
evenly than chance. Widths n and k are even in their logarithms; rows m in their cube root, between few and
many, since products of many rows take the time. Every other product has one row more than a multiple of
64, where a tile's step begins.
"""

from __future__ import annotations

import numpy as np

#: Rows and widths between which products are chosen.
ROWS, WIDTHS = (32, 8192), (512, 16384)
#: The root of g^4 = g + 1.
_G = 1.2207440846057596
_STEP, _MULTIPLE = 64, 128


def chosen_products(number: int) -> np.ndarray:
    """Return sizes (m, n, k) of products worth measuring, shape (number, 3).

    >>> chosen_products(3).tolist()
    [[4993, 5248, 3456], [2752, 1664, 768], [1281, 512, 4864]]
    """
    share = np.outer(np.arange(1, number + 1), [1 / _G, 1 / _G**2, 1 / _G**3]) % 1
    low, high = np.cbrt(ROWS)
    rows = _rounded((low + (high - low) * share[:, 0]) ** 3, _STEP)
    rows[::2] += 1
    narrow, wide = np.log(WIDTHS)
    widths = _rounded(np.exp(narrow + (wide - narrow) * share[:, 1:]), _MULTIPLE)
    return np.column_stack([rows, widths])


def _rounded(values: np.ndarray, multiple: int) -> np.ndarray:
    return (multiple * np.maximum(1, np.rint(values / multiple))).astype(np.int64)
