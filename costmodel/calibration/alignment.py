"""Batched products whose rows do not start on 16 bytes run slower kernels.

Eager attention multiplies (s, e) x (e, t) and (s, t) x (t, e) for every head, and its contiguous dimensions
are e and t: 577 tokens, 576 patches and a class token, start every other row on 2 bytes. On an H100 such
FP16 products take 2.8 times as long, by four shapes of a public profiler trace; 4 and 8 bytes are assumed.
Rows alone never matter, nor do products with weights, whose widths are even: linear layers are exempt.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Factor on the time of a batched product by the bytes that all its contiguous rows start on.
COST = {2: 2.8, 4: 1.3, 8: 1.1}


def alignment_cost(n: Any, k: Any, element_bytes: float) -> Any:
    """Return the factor on a batched product's time; numbers or arrays.

    >>> alignment_cost(577, 64, 2), alignment_cost(576, 64, 2), alignment_cost(578, 64, 2)
    (2.8, 1.0, 1.3)
    """
    if not isinstance(n, np.ndarray) and not isinstance(k, np.ndarray):
        return next((cost for start, cost in COST.items() if _off(n, k, element_bytes, start)), 1.0)
    factor = np.ones(np.broadcast(n, k).shape)
    for start, cost in reversed(COST.items()):
        factor = np.where(_off(n, k, element_bytes, start), cost, factor)
    return factor


def _off(n: Any, k: Any, element_bytes: float, start: int) -> Any:
    """Whether rows start on no more than `start` bytes."""
    return ((n * element_bytes) % (2 * start) > 0) | ((k * element_bytes) % (2 * start) > 0)
