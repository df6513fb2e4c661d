"""The law of attention kernels that never write their scores (flash attention).

A block of tq queries of one head passes over all keys it may see; blocks take whole waves over the
SMs. With b batch, q queries, t keys, h heads, k KV heads, e head dimension (padded to 16):

    blocks = b h ceil(q / tq)                               w = blocks / SMs
    waves  = 1 if w <= 1 else ceil(w) - o (ceil(w) - w)
    mean   = keys a block sees on average: t - c max(q - tq, 0) / 2
    most   = keys its longest block sees: t, or t (1 - sqrt(c - 1)) where c > 1
    T_math = max(waves (mean R + t_block), most R + t_block),  R = 4 tq (e + x) SMs / (e_P P)
    T_mem  = 2 b e (q h + t k) bytes / (e_B BW)
    t = t0 + (T_math^p + T_mem^p)^(1/p)

c is the number of masked pairs over those above a causal triangle's diagonal: 0 without a mask, 1 for
causal attention, up to 2 under a sliding window. So a block of a window of w keys sees w + tq - 1.

| parameter | unit | meaning |
|---|---|---|
| compute_efficiency e_P | 1 | share of the datasheet's matrix peak |
| memory_efficiency e_B | 1 | share of the datasheet bandwidth |
| overhead_s t0 | s | launch and drain |
| exponent p | 1 | how sharply the two times combine |
| tail_overlap o | 1 | share of the last wave's idle time that is hidden |
| block_overhead_s t_block | s | prologue and epilogue of one query block |
| score_cost x | 1 | softmax work per query-key pair, in units of a head's width |
| sequence_overhead_s t_seq | s | decoding: an SM's start and end of one sequence's KV head |

Decoding splits the keys over the SMs, so it has no waves: family `split-keys` is the smooth law, and
b k t_seq / SMs besides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.law import combine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.calibration.parameters import Device

#: Queries per block, by kernel family; 0 has no blocks.
FAMILIES = {"flash-128": 128, "flash-192": 192, "split-keys": 0}
#: Keys are read in blocks of this many.
KEY_BLOCK = 64
HEAD_MULTIPLE = 16


def attention_pairs(q_len: Any, kv_len: Any, causal: Any) -> Any:
    """Return the query-key pairs that are computed, with the queries at the end of the keys.

    q t - c q (q - 1) / 2, where c is true for causal attention.

    >>> attention_pairs(4, 4, True), attention_pairs(4, 4, False), attention_pairs(1, 10, True)
    (10, 16, 10)
    """
    return q_len * kv_len - causal * (q_len * (q_len - 1) // 2)


def attention_time_s(
    values: Mapping[str, float],
    device: Device,
    family: str,
    element_bytes: float,
    peak: float,
    batch: Any,
    q_len: Any,
    kv_len: Any,
    heads: Any,
    kv_heads: Any,
    head_dim: Any,
    causal: Any,
) -> Any:
    """Return the predicted seconds of attention kernels, arrays in, arrays out.

    Args:
        values: the law's parameters.
        device: the datasheet's SMs and bandwidth.
        family: a key of `FAMILIES`.
        element_bytes: bytes per query, key, value and output element.
        peak: FLOP/s of the arithmetic.
        batch: sequences.
        q_len: queries per sequence.
        kv_len: keys per sequence.
        heads: query heads.
        kv_heads: key-value heads.
        head_dim: width of one head.
        causal: whether later keys are masked, or c.
    """
    sizes = (batch, q_len, kv_len, heads, kv_heads, head_dim)
    arrays = any(isinstance(size, np.ndarray) for size in sizes)
    ceil: Any = np.ceil if arrays else math.ceil
    largest: Any = np.maximum if arrays else max
    width = ceil(head_dim / HEAD_MULTIPLE) * HEAD_MULTIPLE + values.get("score_cost", 0.0)
    rate = 4.0 * width / (values["compute_efficiency"] * peak)
    moved = 2.0 * element_bytes * batch * head_dim * (q_len * heads + kv_len * kv_heads)
    block = FAMILIES[family]
    if block:
        blocks = batch * heads * ceil(q_len / block)
        waves = blocks / device.units
        whole = largest(ceil(waves), 1)
        # The only wave is never shorter than one block.
        waves = whole - values["tail_overlap"] * (whole - waves) * (whole > 1)
        keys = ceil(kv_len / KEY_BLOCK) * KEY_BLOCK
        mean = keys - largest(causal * (q_len - block) / 2, 0)
        per_key = rate * block * device.units
        extra = values["block_overhead_s"]
        if isinstance(causal, np.ndarray) or causal > 1:
            most = keys * (1.0 - np.sqrt(np.clip(causal - 1.0, 0.0, 1.0)))
            keys = largest(most, mean)
        math_s = largest(waves * (per_key * mean + extra), per_key * keys + extra)
    else:
        math_s = batch * heads * attention_pairs(q_len, kv_len, causal) * rate
    memory_s = moved / (values["memory_efficiency"] * device.bandwidth_bytes_per_s)
    time = values["overhead_s"] + combine(math_s, memory_s, values["exponent"])
    per_sequence = values.get("sequence_overhead_s", 0.0)
    if per_sequence:
        time = time + batch * kv_heads * (per_sequence / device.units)
    return time * (moved > 0)
