"""Attention: the fused kernel, and the pieces of the one that writes its scores out.

Counted FLOPs take the full s x t square, as `torch.utils.flop_counter.sdpa_flop` does; executed
FLOPs take the lower triangle where attention is causal. Grouped queries share K and V: they change
the bytes, not the FLOPs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from costmodel.ops.linear import product
from costmodel.quantities import op_cost

if TYPE_CHECKING:
    from costmodel.precision import Numerics
    from costmodel.quantities import Num, OpCost

#: Vector FLOPs of a softmax per score: subtract the maximum, exponentiate, add up, divide, compare.
SOFTMAX_FLOPS = 5
#: What PyTorch upcasts softmax to, in bytes.
SOFTMAX_BYTES = 4


class AttentionCost(Protocol):
    """A formula of attention whose fixed half is done: batch, queries, keys, executions to an op."""

    def __call__(self, b: Num, s: Num, t: Num, count: Num = 1, /) -> OpCost:
        """Return the op of s queries over t keys in each of b samples."""


def attended_pairs(s: Num, t: Num, causal: bool, window: int = 0) -> Num:
    """Query-key pairs that are computed: s t, or the lower triangle of the last s rows.

    A window leaves each row its last keys: sum of min(i, w) over i = t - s + 1 ... t.

    >>> attended_pairs(3, 3, causal=True), attended_pairs(1, 7, causal=True)  # 1 + 2 + 3; 7
    (6, 7)
    >>> attended_pairs(5, 5, causal=True, window=2)  # 1 + 2 + 2 + 2 + 2
    9
    """
    if not causal:
        return s * t
    pairs = s * (t - s) + s * (s + 1) // 2
    if not window:
        return pairs
    over = (t - window) * (t > window)
    before = (t - s - window) * (t - s > window)
    return pairs - (over * (over + 1) - before * (before + 1)) // 2


def masked_share(s: Num, t: Num, pairs: Num) -> Num:
    """Return the masked pairs over those that causal attention masks, s (s - 1) / 2; 1 for one query.

    >>> masked_share(4, 4, 10), masked_share(4, 4, 16), masked_share(4, 4, 4)  # causal, all, window 1
    (1.0, 0.0, 2.0)
    """
    one = s < 2
    return (s * t - pairs + one) / (s * (s - 1) / 2 + one)


def attention(
    name: str,
    op_class: str,
    h: int,
    k: int,
    e: int,
    numerics: Numerics,
    *,
    causal: bool = True,
    cached: bool = True,
    quantised: bool = False,
    window: int = 0,
    skips: bool = True,
) -> AttentionCost:
    """A fused (flash) attention: 4 b h s t e FLOPs, scores never leave the chip.

    Source: `torch.utils.flop_counter.sdpa_flop_count`; traffic as in FlashAttention with K and V
    read once.

    Args:
        name: the op's name.
        op_class: `attention_prefill`, `attention_encoder` or `attention_decode`.
        h: query heads.
        k: KV heads.
        e: head dim.
        numerics: of the module.
        causal: whether a query sees only keys up to itself.
        cached: whether K and V come from a KV cache (else they are activations).
        quantised: whether the output is written as the next product wants it.
        window: keys that a query sees at most; 0 for all.
        skips: whether keys outside the window are skipped. A kernel that takes a mask instead runs
            over the full square as soon as the keys fill the window.

    >>> from costmodel.precision import parse_precision
    >>> fp16 = parse_precision("fp16").text
    >>> op = attention("attn", "attention_prefill", 32, 32, 128, fp16)(1, 616, 616)
    >>> op.flops * 32  # the 32 layers of LLaVA-1.5-7B
    198944227328
    """
    size, dtype = numerics.activation_bytes, numerics.attention_dtype
    written = numerics.operand_bytes if quantised else size
    # Of a query, and of the keys and values of a token.
    width, cache_width = h * e, 2 * k * e
    cache_bytes = cache_width * numerics.kv_bytes if cached else 0
    input_bytes = 0 if cached else cache_width * size

    def cost(b: Num, s: Num, t: Num, count: Num = 1, /) -> OpCost:
        each = attended_pairs(s, t, causal, window if skips else 0)
        masked: Any = causal
        if window and skips:
            masked = masked_share(s, t, each)
        elif window:
            full = (t >= window) * 1
            each, masked = each + (s * t - each) * full, full < 1
        pairs = b * h * each
        queries, keys = b * s * width, b * t
        return op_cost(
            name,
            op_class,
            dtype,
            count,
            # q[b, h, s, e] @ k[b, h, t, e]^T, then p[b, h, s, t] @ v[b, h, t, e]
            flops=4 * queries * t,
            matrix_flops=4 * e * pairs,
            vector_flops=SOFTMAX_FLOPS * pairs,
            kv_read_bytes=keys * cache_bytes,
            activation_read_bytes=queries * size + keys * input_bytes,
            activation_write_bytes=queries * written,
            shape=(b, s, t, h, k, e, masked),
        )

    return cost


def attention_scores(
    name: str, h: int, k: int, e: int, numerics: Numerics, *, cached: bool = True
) -> AttentionCost:
    """The scores of an attention, written out: 2 b h s t e FLOPs, all s x t of them.

    A batched product of b h pairs of heads; the arguments are those of `attention`.

    >>> from costmodel.precision import parse_precision
    >>> op = attention_scores("qk", 2, 2, 4, parse_precision("fp16").text)(1, 10, 10)
    >>> op.flops, op.activation_write_bytes  # 2 x 2 x 10 x 10 x 4; 2 x 10 x 10 x 2 B
    (1600, 400)
    """
    size = numerics.activation_bytes

    def cost(b: Num, s: Num, t: Num, count: Num = 1, /) -> OpCost:
        keys = b * t * k * e
        # q[b, h, s, e] @ k[b, h, t, e]^T -> [b, h, s, t]
        return product(
            name,
            numerics.attention_dtype,
            b * h,
            s,
            t,
            e,
            count,
            kv_read_bytes=keys * numerics.kv_bytes if cached else 0,
            read_bytes=b * s * h * e * size + (0 if cached else keys * size),
            write_bytes=b * h * s * t * size,
        )

    return cost


def softmax(name: str, numerics: Numerics, h: int) -> AttentionCost:
    """A softmax over t scores for each of b h s rows, read and written once."""
    size = numerics.activation_bytes

    def cost(b: Num, s: Num, t: Num, count: Num = 1, /) -> OpCost:
        scores = b * h * s * t
        return op_cost(
            name,
            "pointwise",
            numerics.attention_dtype,
            count,
            vector_flops=SOFTMAX_FLOPS * scores,
            activation_read_bytes=scores * size,
            activation_write_bytes=scores * size,
        )

    return cost


def attention_values(
    name: str,
    h: int,
    k: int,
    e: int,
    numerics: Numerics,
    *,
    cached: bool = True,
    quantised: bool = False,
) -> AttentionCost:
    """The weighted sum of an attention whose scores were written out: 2 b h s t e FLOPs.

    The arguments are those of `attention`; s counts the rows whose values are summed.
    """
    size = numerics.activation_bytes
    written = numerics.operand_bytes if quantised else size

    def cost(b: Num, s: Num, t: Num, count: Num = 1, /) -> OpCost:
        values = b * t * k * e
        # p[b, h, s, t] @ v[b, h, t, e] -> [b, h, s, e]
        return product(
            name,
            numerics.attention_dtype,
            b * h,
            s,
            e,
            t,
            count,
            kv_read_bytes=values * numerics.kv_bytes if cached else 0,
            read_bytes=b * h * s * t * size + (0 if cached else values * size),
            write_bytes=b * s * h * e * written,
        )

    return cost
