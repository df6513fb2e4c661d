"""The language model's ops: prefill over a token schedule, and one decode step.

The hf-eager kernel chains were read off `transformers`' Llama layer, kernel by kernel, for a 16-bit
model: RMSNorm is cast, square, mean, add epsilon, reciprocal root, scale, cast, weight (8 kernels,
36 bytes per element); rotating q or k is multiply, negate, concatenate, multiply, add (5 kernels,
20 bytes); the cache concatenates K and V (2); SwiGLU is SiLU and multiply (2). With 7 products,
1 attention and 2 residual adds a layer launches 40 kernels; position angles take 10, the final norm
8 and the head 1: 1,299 in all for 32 layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.ops.linear import linear
from costmodel.ops.pointwise import activation, embedding, norm, pointwise, residual, rope
from costmodel.plans.attention_block import attention_ops
from costmodel.quantities import Num, OpCost

if TYPE_CHECKING:
    from costmodel.models import TextConfig
    from costmodel.precision import Numerics, Precision
    from costmodel.schedule import LayerSpan


def prefill_ops(
    text: TextConfig,
    precision: Precision,
    b: Num,
    text_tokens: Num,
    spans: tuple[LayerSpan, ...],
    *,
    execution: str,
    attention: str,
    logits: str,
    embeds_text: bool,
) -> list[OpCost]:
    """Return the ops of one prefill.

    Args:
        text: the language model.
        precision: the numerics of every module.
        b: batch.
        text_tokens: text tokens per sample, seen by every layer.
        spans: visual tokens per layer.
        execution: a plan's name.
        attention: `flash` or `eager`.
        logits: `last` computes one row of logits per sample, `all` every row.
        embeds_text: whether the embedding look-up belongs here (it does without a vision tower).
    """
    num = precision.text
    eager = execution != "fused"
    ops: list[OpCost] = []
    if embeds_text:
        ops.append(embedding("embed_tokens", b * (text_tokens + spans[0].tokens), text.hidden_size,
                             precision.lm_head))  # fmt: skip
    if eager:
        s = text_tokens + spans[0].tokens
        ops.append(_rope_setup(s, text.head_dim, num))
        if attention == "eager":
            ops.append(_causal_mask(b * s * s, num, kernels=10))
    first = 0
    for span in spans:
        if span.layers == 0:
            continue
        out_tokens = span.tokens if span.out_tokens is None else span.out_tokens
        mlp_tokens = out_tokens if span.mlp_tokens is None else span.mlp_tokens
        s = text_tokens + span.tokens
        layer = _layer_ops(
            text,
            num,
            b,
            s,
            s,
            b * (text_tokens + out_tokens),
            b * (text_tokens + mlp_tokens),
            span.layers,
            op_class="attention_prefill",
            eager=eager,
            materialised=span.materialised or attention == "eager",
        )
        if span.layers < text.num_layers:
            where = f"[{first}:{first + span.layers}]"
            layer = [op._replace(name=op.name + where) for op in layer]
        first += span.layers
        ops += layer
    last = spans[-1]
    kept = last.mlp_tokens if last.mlp_tokens is not None else last.out_tokens
    rows = b * (text_tokens + (last.tokens if kept is None else kept))
    ops += _head_ops(text, precision, rows, rows if logits == "all" else b, eager)
    return ops


def decode_ops(
    text: TextConfig,
    precision: Precision,
    b: Num,
    context: tuple[tuple[int, Num], ...],
    steps: Num,
    *,
    execution: str,
    attention: str,
) -> list[OpCost]:
    """Return the ops of `steps` decode steps, each at its mean context.

    FLOPs and bytes are linear in the context, so the mean stands exactly for the sum.

    Args:
        text: the language model.
        precision: the numerics of every module.
        b: batch.
        context: per span of layers, (layers, mean keys attended to, the new token included).
        steps: decode steps.
        execution: a plan's name.
        attention: `flash` or `eager`.
    """
    num = precision.text
    eager = execution != "fused"
    ops = [embedding("embed_tokens", b, text.hidden_size, precision.lm_head, steps)]
    if eager:
        ops.append(_rope_setup(1, text.head_dim, num, steps))
        if attention == "eager":
            longest = context[0][1]
            ops.append(_causal_mask(b * longest, num, kernels=7, count=steps))
    first = 0
    for layers, t in context:
        if layers == 0:
            continue
        layer = _layer_ops(
            text,
            num,
            b,
            1,
            t,
            b,
            b,
            layers * steps,
            op_class="attention_decode",
            eager=eager,
            materialised=attention == "eager",
        )
        if layers < text.num_layers:
            layer = [op._replace(name=f"{op.name}[{first}:{first + layers}]") for op in layer]
        first += layers
        ops += layer
    ops += _head_ops(text, precision, b, b, eager, steps)
    return ops


def _layer_ops(
    text: TextConfig,
    num: Numerics,
    b: Num,
    s: Num,
    t: Num,
    out_rows: Num,
    mlp_rows: Num,
    count: Num,
    *,
    op_class: str,
    eager: bool,
    materialised: bool,
) -> list[OpCost]:
    """One decoder layer: s queries over t keys; `out_rows` through o_proj, `mlp_rows` through FFN."""
    d, f = text.hidden_size, text.intermediate_size
    h, k, e = text.num_heads, text.num_kv_heads, text.head_dim
    rows = b * s
    bias = text.qkv_bias
    scores = attention_ops(
        op_class, b, s, t, h, k, e, num, count, causal=True, cached=True,
        materialised=materialised, eager_kernels=eager,
    )  # fmt: skip
    if not eager:
        return [
            norm("input_norm", rows, d, num, count, residual_add=True),
            linear("qkv_proj", rows, d, (h + 2 * k) * e, num, count, bias),
            rope("rope_cache", b, s, h, k, e, num, count),
            *scores,
            linear("o_proj", out_rows, h * e, d, num, count, text.output_bias),
            norm("post_attention_norm", mlp_rows, d, num, count, residual_add=True),
            linear("gate_up_proj", mlp_rows, d, 2 * f, num, count, text.mlp_bias),
            activation("act_mul", mlp_rows, f, num, count),
            linear("down_proj", mlp_rows, f, d, num, count, text.mlp_bias),
        ]
    size = num.activation_bytes
    past = t - s
    ops = [
        _eager_rms_norm("input_norm", rows, d, num, count),
        linear("q_proj", rows, d, h * e, num, count, bias),
        linear("k_proj", rows, d, k * e, num, count, bias),
        linear("v_proj", rows, d, k * e, num, count, bias),
        pointwise("rope", b * s * (h + k) * e, num, read=5.5 * size, write=4.5 * size,
                  flops_per_element=4, kernels=10, count=count),
        _cache_concatenation(b, past, s, k, e, num, count),
        *scores,
        linear("o_proj", out_rows, h * e, d, num, count, text.output_bias),
        residual("attention_residual", out_rows, d, num, count),
        _eager_rms_norm("post_attention_norm", mlp_rows, d, num, count),
        linear("gate_proj", mlp_rows, d, f, num, count, text.mlp_bias),
        linear("up_proj", mlp_rows, d, f, num, count, text.mlp_bias),
        pointwise("act_mul", mlp_rows * f, num, read=3 * size, write=2 * size,
                  flops_per_element=5, kernels=2, count=count),
        linear("down_proj", mlp_rows, f, d, num, count, text.mlp_bias),
        residual("mlp_residual", mlp_rows, d, num, count),
    ]  # fmt: skip
    if num.operand_bytes < size:
        ops += [
            quantise("quantise_attention_input", rows * d, num, count),
            quantise("quantise_attention_output", out_rows * h * e, num, count),
            quantise("quantise_mlp_input", mlp_rows * d, num, count),
            quantise("quantise_mlp_hidden", mlp_rows * f, num, count),
        ]
    return ops


def _head_ops(
    text: TextConfig, precision: Precision, rows: Num, logit_rows: Num, eager: bool, count: Num = 1
) -> list[OpCost]:
    final = (
        _eager_rms_norm("final_norm", rows, text.hidden_size, precision.text, count)
        if eager
        else norm("final_norm", rows, text.hidden_size, precision.lm_head, count, residual_add=True)
    )
    head = linear(
        "lm_head", logit_rows, text.hidden_size, text.vocab_size, precision.lm_head, count
    )
    return [final, head]


def _eager_rms_norm(name: str, rows: Num, d: int, num: Numerics, count: Num) -> OpCost:
    """RMSNorm as eager PyTorch runs it, in float32 with casts around it when the model is narrower."""
    size = num.activation_bytes
    if size >= 4:
        read, write, kernels = 4.0 * size, 3.0 * size, 6
    else:
        read, write, kernels = 2 * size + 16.0, 2 * size + 12.0, 8
    return pointwise(
        name, rows * d, num, read=read, write=write, flops_per_element=4, kernels=kernels,
        op_class="norm", weights=d * size, count=count,
    )  # fmt: skip


def _rope_setup(s: Num, e: int, num: Numerics, count: Num = 1) -> OpCost:
    """Angles of every position: range, cast, product, concatenate, cos, sin, scale, cast."""
    return pointwise(
        "rope_setup", s * e, num, read=28.0, write=26.0, flops_per_element=6, kernels=10,
        count=count,
    )  # fmt: skip


def _causal_mask(pairs: Num, num: Numerics, kernels: int, count: Num = 1) -> OpCost:
    """Positions compared, then 0 or minus infinity for every pair; one query needs fewer kernels."""
    return pointwise(
        "causal_mask", pairs, num, read=1, write=1 + num.activation_bytes, flops_per_element=2,
        kernels=kernels, count=count,
    )  # fmt: skip


def _cache_concatenation(
    b: Num, past: Num, s: Num, k: int, e: int, num: Numerics, count: Num
) -> OpCost:
    """DynamicCache concatenates: it reads the old cache and the new keys, and writes both anew."""
    new, old = 2 * b * s * k * e, 2 * b * past * k * e
    return OpCost(
        "cache_cat", "copy", num.attention_dtype, count, 0, 0, 0, 0, old * num.kv_bytes,
        (old + new) * num.kv_bytes, new * num.activation_bytes, 0, 2,
    )  # fmt: skip


def quantise(name: str, elements: Num, num: Numerics, count: Num) -> OpCost:
    """Dynamic quantisation of a product's input: find the largest value, then scale and round."""
    return pointwise(
        name, elements, num, read=2 * num.activation_bytes, write=num.operand_bytes,
        flops_per_element=3, kernels=2, count=count,
    )  # fmt: skip
