"""Attention: the fused kernel, and the pieces of the one that writes its scores out.

Counted FLOPs take the full s x t square, as `torch.utils.flop_counter.sdpa_flop` does; executed
FLOPs take the lower triangle where attention is causal. Grouped queries share K and V: they change
the bytes, not the FLOPs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.ops.registry import formula
from costmodel.quantities import OpCost

if TYPE_CHECKING:
    from costmodel.precision import Numerics
    from costmodel.quantities import Num

#: Vector FLOPs of a softmax per score: subtract the maximum, exponentiate, add up, divide, compare.
SOFTMAX_FLOPS = 5


def attended_pairs(s: Num, t: Num, causal: bool) -> Num:
    """Query-key pairs that are computed: s t, or the lower triangle of the last s rows.

    >>> attended_pairs(3, 3, causal=True), attended_pairs(1, 7, causal=True)  # 1 + 2 + 3; 7
    (6, 7)
    """
    if not causal:
        return s * t
    return s * (t - s) + s * (s + 1) // 2


@formula("attention")
def attention(
    name: str,
    op_class: str,
    b: Num,
    s: Num,
    t: Num,
    h: int,
    k: int,
    e: int,
    num: Numerics,
    count: Num = 1,
    causal: bool = True,
    cached: bool = True,
    quantised: bool = False,
) -> OpCost:
    """A fused (flash) attention: 4 b h s t e FLOPs, scores never leave the chip.

    Source: `torch.utils.flop_counter.sdpa_flop_count`; traffic as in FlashAttention with K and V
    read once.

    Args:
        name: the op's name.
        op_class: `attention_prefill`, `attention_encoder` or `attention_decode`.
        b: batch.
        s: query length.
        t: key length.
        h: query heads.
        k: KV heads.
        e: head dim.
        num: the module's numerics.
        count: how often it runs.
        causal: whether a query sees only keys up to itself.
        cached: whether K and V come from a KV cache (else they are activations).
        quantised: whether the output is written as the next product wants it.

    >>> from costmodel.precision import parse_precision
    >>> op = attention("attn", "attention_prefill", 1, 616, 616, 32, 32, 128,
    ...                parse_precision("fp16").text)
    >>> op.flops * 32  # the 32 layers of LLaVA-1.5-7B
    198944227328
    """
    # q[b, h, s, e] @ k[b, h, t, e]^T, then p[b, h, s, t] @ v[b, h, t, e]
    flops = 4 * b * h * s * t * e
    pairs = b * h * attended_pairs(s, t, causal)
    rows = b * s * h * e
    keys_values = 2 * b * t * k * e
    kv_read = keys_values * num.kv_bytes if cached else 0
    kv_as_activation = 0 if cached else keys_values * num.activation_bytes
    return OpCost(
        name,
        op_class,
        num.attention_dtype,
        count,
        flops,
        4 * e * pairs,
        SOFTMAX_FLOPS * pairs,
        0,
        kv_read,
        0,
        rows * num.activation_bytes + kv_as_activation,
        rows * (num.operand_bytes if quantised else num.activation_bytes),
        1,
        (b, s, t, h, k, e, causal),
    )


@formula("attention_scores")
def attention_scores(
    name: str,
    b: Num,
    s: Num,
    t: Num,
    h: int,
    k: int,
    e: int,
    num: Numerics,
    count: Num = 1,
    cached: bool = True,
) -> OpCost:
    """The scores of a materialised attention, written out: 2 b h s t e FLOPs, all s x t of them.

    Args: as `attention`, a batched matrix product of b h pairs of heads.

    >>> from costmodel.precision import parse_precision
    >>> op = attention_scores("qk", 1, 10, 10, 2, 2, 4,
    ...                       parse_precision("fp16").text)
    >>> op.flops, op.activation_write_bytes  # 2 x 2 x 10 x 10 x 4; 2 x 10 x 10 x 2 B
    (1600, 400)
    """
    # q[b, h, s, e] @ k[b, h, t, e]^T -> [b, h, s, t]
    flops = 2 * b * h * s * t * e
    keys = b * t * k * e
    return OpCost(
        name,
        "gemm",
        num.attention_dtype,
        count,
        flops,
        flops,
        0,
        0,
        keys * num.kv_bytes if cached else 0,
        0,
        b * s * h * e * num.activation_bytes + (0 if cached else keys * num.activation_bytes),
        b * h * s * t * num.activation_bytes,
        1,
        (s, t, e, b * h),
    )


@formula("softmax")
def softmax(name: str, rows: Num, t: Num, num: Numerics, count: Num = 1) -> OpCost:
    """A softmax over t scores per row, read and written once.

    Args:
        name: the op's name.
        rows: b x h x s.
        t: scores per row.
        num: the module's numerics.
        count: how often it runs.
    """
    size = rows * t * num.activation_bytes
    return OpCost(
        name, "pointwise", num.attention_dtype, count, 0, 0, SOFTMAX_FLOPS * rows * t,
        0, 0, 0, size, size,
    )  # fmt: skip


@formula("attention_values")
def attention_values(
    name: str,
    b: Num,
    s: Num,
    t: Num,
    h: int,
    k: int,
    e: int,
    num: Numerics,
    count: Num = 1,
    cached: bool = True,
    quantised: bool = False,
) -> OpCost:
    """The weighted sum of a materialised attention: 2 b h s t e FLOPs.

    Args: as `attention`; `s` counts the rows whose values are summed.
    """
    # p[b, h, s, t] @ v[b, h, t, e] -> [b, h, s, e]
    flops = 2 * b * h * s * t * e
    values = b * t * k * e
    return OpCost(
        name,
        "gemm",
        num.attention_dtype,
        count,
        flops,
        flops,
        0,
        0,
        values * num.kv_bytes if cached else 0,
        0,
        b * h * s * t * num.activation_bytes + (0 if cached else values * num.activation_bytes),
        b * s * h * e * (num.operand_bytes if quantised else num.activation_bytes),
        1,
        (s, e, t, b * h),
    )
