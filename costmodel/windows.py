"""What a sliding window leaves: the tokens that a layer's cache keeps, and the keys of decode steps.

As `transformers` holds them (`DynamicSlidingWindowLayer` of cache_utils.py): a sliding layer of
window w keeps the last w - 1 tokens, and a new one sees min(t, w) of the t there are, itself among
them. Serving engines that free the pages outside a window keep the same up to a page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from costmodel.quantities import Num


def cached_tokens(tokens: Num, window: int) -> Num:
    """Return the tokens that a layer's cache keeps of so many: all, or the last w - 1.

    Args:
        tokens: that have passed the layer.
        window: w, or 0 for none.

    >>> cached_tokens(16384, 0), cached_tokens(16384, 4096), cached_tokens(3000, 4096)
    (16384, 4095, 3000)
    """
    if not window:
        return tokens
    return tokens - (tokens - window + 1) * (tokens >= window)


def decode_parts(mean: Num, steps: Num, window: int) -> list[tuple[Num, Num]]:
    """Return the mean keys of decode steps and how many there are, before and after the window is full.

    Costs are linear in the keys on either side of the bend of min(t, w), so both means stand exactly
    for the sums. Of t, t + 1, ... keys the steps with fewer than w come first, then those with w.

    Args:
        mean: the keys that there are, on average.
        steps: decode steps.
        window: w, or 0 for none.

    >>> decode_parts(12.0, 5, 12)  # 10, 11, then 12 three times
    [(10.5, 2), (12, 3)]
    >>> decode_parts(12.0, 5, 0)
    [(12.0, 5)]
    """
    if not window:
        return [(mean, steps)]
    first: Any = mean - (steps - 1) / 2
    if isinstance(first, np.ndarray):
        growing: Any = np.clip(np.ceil(window - first), 0, steps)
        parts = [(first + (growing - 1) / 2, growing), (window, steps - growing)]
        return [(keys, count) for keys, count in parts if np.any(count)]
    growing = min(max(-int((first - window) // 1), 0), steps)
    if growing == steps:
        return [(mean, steps)]
    full = (window, steps - growing)
    return [(first + (growing - 1) / 2, growing), full] if growing else [full]
