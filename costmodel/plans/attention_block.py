"""One attention as a plan launches it: a fused kernel, or scores, softmax and sum apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.ops.attention import attention, attention_scores, attention_values, softmax
from costmodel.ops.pointwise import copy, pointwise

if TYPE_CHECKING:
    from costmodel.precision import Numerics
    from costmodel.quantities import Num, OpCost

#: What PyTorch upcasts softmax to, in bytes.
SOFTMAX_BYTES = 4


def attention_ops(
    op_class: str,
    b: Num,
    s: Num,
    t: Num,
    h: int,
    k: int,
    e: int,
    num: Numerics,
    count: Num,
    *,
    causal: bool,
    cached: bool,
    materialised: bool,
    eager_kernels: bool,
    values_rows: Num | None = None,
) -> list[OpCost]:
    """Return the ops of one attention.

    Args:
        op_class: `attention_prefill`, `attention_encoder` or `attention_decode`.
        b: batch.
        s: query length.
        t: key length.
        h: query heads.
        k: KV heads.
        e: head dim.
        num: the module's numerics.
        count: how often it runs.
        causal: whether only the lower triangle is attended to.
        cached: whether K and V come from the cache.
        materialised: whether the scores are written out.
        eager_kernels: whether the scores pass through PyTorch's separate kernels.
        values_rows: rows whose values are summed, when fewer than s.

    >>> from costmodel.precision import parse_precision
    >>> num = parse_precision("fp16").text
    >>> fused = attention_ops("attention_prefill", 1, 8, 8, 2, 2, 4, num, 1, causal=True,
    ...                       cached=True, materialised=False, eager_kernels=False)
    >>> apart = attention_ops("attention_prefill", 1, 8, 8, 2, 2, 4, num, 1, causal=True,
    ...                       cached=True, materialised=True, eager_kernels=True)
    >>> sum(op.flops for op in fused) == sum(op.flops for op in apart)
    True
    >>> [op.name for op in apart][:4]
    ['contiguous_heads', 'attention_scores', 'scale', 'mask']
    >>> [op.name for op in apart][4:]
    ['softmax', 'attention_values', 'attention_output']
    """
    # PyTorch quantises the output of attention in a kernel of its own, serving engines inside it.
    quantised = not eager_kernels
    if not materialised and values_rows is None:
        return [
            attention(
                "attention", op_class, b, s, t, h, k, e, num, count, causal, cached, quantised
            )
        ]
    size = num.activation_bytes
    pairs = b * h * s * t
    rows = s if values_rows is None else values_rows
    ops: list[OpCost] = []
    if eager_kernels and h > 1 and op_class != "attention_decode":
        # Batched products want each head in one piece: q is cut from its projection's rows, and so
        # are K and V where no cache has laid them out anew. One token's row is its heads already.
        moved = b * s * h * e + (0 if cached else 2 * b * t * k * e)
        ops.append(copy("contiguous_heads", moved, num, count, kernels=1 if cached else 3))
    if eager_kernels and h > k:
        ops.append(copy("repeat_kv", 2 * b * t * h * e, num, count, kernels=2))
    ops.append(attention_scores("attention_scores", b, s, t, h, k, e, num, count, cached))
    if eager_kernels:
        ops.append(pointwise("scale", pairs, num, read=size, write=size, count=count))
        if causal:
            # All heads of a sample read the same mask.
            read = size * (1 + 1 / h)
            ops.append(pointwise("mask", pairs, num, read=read, write=size, count=count))
        # The result is cast back from float32. CUDA's softmax reads FP16 but not BF16, which is cast
        # first.
        back = size < SOFTMAX_BYTES
        first = back and num.attention_dtype == "bf16"
        ops.append(
            pointwise(
                "softmax",
                pairs,
                num,
                read=size + SOFTMAX_BYTES * (back + first),
                write=SOFTMAX_BYTES + size * back + SOFTMAX_BYTES * first,
                flops_per_element=5,
                kernels=1 + back + first,
                count=count,
            )
        )
    else:
        ops.append(softmax("softmax", b * h * s, t, num, count))
    ops.append(
        attention_values("attention_values", b, rows, t, h, k, e, num, count, cached, quantised)
    )
    if eager_kernels:
        ops.append(copy("attention_output", b * rows * h * e, num, count))
    return ops
