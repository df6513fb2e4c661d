"""The law of attention kernels that never write their scores (flash attention).

    pairs = q t (full), or q (t - q) + q (q + 1) / 2 (causal, queries at the end of the keys)
    F = 4 b h e pairs                                     two products of one multiply-add each
    B = 2 b e (2 q h + 2 t k)                             queries, outputs, keys, values once
    t = t0 + ((F / (e_P P))^p + (B / (e_B BW))^p)^(1/p)

b batch, q queries, t keys, h heads, k KV heads, e head dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.law import smooth_time_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.calibration.parameters import Device

PARAMETERS = ("compute_efficiency", "memory_efficiency", "overhead_s", "exponent")


def attention_pairs(q_len: Any, kv_len: Any, causal: Any) -> Any:
    """Return the query-key pairs that are computed.

    >>> attention_pairs(4, 4, True), attention_pairs(4, 4, False), attention_pairs(1, 10, True)
    (10, 16, 10)
    """
    full = q_len * kv_len
    return full - causal * (q_len * (q_len - 1) // 2)


def attention_time_s(
    values: Mapping[str, float],
    device: Device,
    element_bytes: float,
    peak: float,
    batch: Any,
    q_len: Any,
    kv_len: Any,
    heads: Any,
    kv_heads: Any,
    head_dim: Any,
    causal: Any,
) -> np.ndarray:
    """Return the predicted seconds of attention kernels, arrays in, arrays out.

    Args:
        values: the law's parameters.
        device: bandwidth.
        element_bytes: bytes per query, key, value and output element.
        peak: FLOP/s of the arithmetic.
        batch: sequences.
        q_len: queries per sequence.
        kv_len: keys per sequence.
        heads: query heads.
        kv_heads: key-value heads.
        head_dim: width of one head.
        causal: whether later keys are masked.
    """
    flops = 4.0 * batch * heads * head_dim * attention_pairs(q_len, kv_len, causal)
    moved = 2.0 * element_bytes * batch * head_dim * (q_len * heads + kv_len * kv_heads)
    time = smooth_time_s(values, flops / peak, moved / device.bandwidth_bytes_per_s)
    return np.asarray(time)
