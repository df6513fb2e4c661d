"""The vision tower's and the projector's ops.

Under hf-eager a CLIP layer launches 14 kernels (two norms, four products with bias in the epilogue,
attention, three for quick-GELU, two MLP products, two residual adds); patch convolution, class-token
concatenation, position look-up and add, pre-norm and the norm of the class token add 6: 342 for the
24 layers of CLIP ViT-L. SigLIP has no class token and no pre-norm; its GELU is one kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.ops.linear import convolution, linear
from costmodel.ops.pointwise import activation, copy, embedding, norm, pointwise, residual
from costmodel.plans.attention_block import attention_ops
from costmodel.plans.language import quantise

if TYPE_CHECKING:
    from costmodel.models import ProjectorConfig, TextConfig, VisionConfig
    from costmodel.precision import Numerics, Precision
    from costmodel.quantities import Num, OpCost
    from costmodel.schedule import LayerSpan


def executed_layers(vision: VisionConfig, vision_layers: str) -> int:
    """Layers of the tower that run: all of them, or up to the one whose features are read.

    `vision_feature_layer=-2` reads the output of the last layer but one; `transformers` runs the
    last layer all the same, serving engines do not.
    """
    if vision_layers == "executed":
        return vision.num_layers
    layer = vision.feature_layer
    return vision.num_layers + 1 + layer if layer < 0 else layer


def vision_ops(
    vision: VisionConfig,
    num: Numerics,
    images: Num,
    spans: tuple[LayerSpan, ...],
    *,
    execution: str,
    attention: str,
) -> list[OpCost]:
    """Return the ops of the vision tower over a batch of crops or frames.

    Args:
        vision: the tower.
        num: its numerics.
        images: batch x crops.
        spans: tokens per layer, the class token included; they cover the layers that run.
        execution: a plan's name.
        attention: `flash` or `eager`.
    """
    eager = execution != "fused"
    c = vision.hidden_size
    patches = images * vision.patches
    rows = images * vision.tokens
    window = vision.num_channels * vision.patch_size**2
    ops = [convolution("patch_embed", patches, window, c, num, bias=vision.patch_bias)]
    if eager:
        if vision.has_cls:
            ops.append(copy("class_token", rows * c, num))
        ops.append(embedding("position_embed", vision.tokens, c, num))
        ops.append(residual("position_add", rows, c, num))
    if vision.pre_norm:
        ops.append(norm("pre_norm", rows, c, num))
    first = 0
    for span in spans:
        if span.layers == 0:
            continue
        layer = _layer_ops(vision, num, images, span, eager, attention)
        if len(spans) > 1:
            where = f"[{first}:{first + span.layers}]"
            layer = [op._replace(name=op.name + where) for op in layer]
        first += span.layers
        ops += layer
    if vision.post_norm:
        ops.append(norm("post_norm", images if vision.has_cls else rows, c, num))
    if vision.pooling_head:
        ops += _pooling_ops(vision, num, images, rows)
    return ops


def _pooling_ops(vision: VisionConfig, num: Numerics, images: Num, rows: Num) -> list[OpCost]:
    """SigLIP's pooling head, which `transformers` runs where a config keeps it: one query per image."""
    c, f, h = vision.hidden_size, vision.intermediate_size, vision.num_heads
    return [
        linear("head_q_proj", images, c, c, num, bias=True),
        linear("head_kv_proj", rows, c, 2 * c, num, bias=True),
        *attention_ops(
            "attention_encoder", images, 1, vision.tokens, h, h, c // h, num, 1, causal=False,
            cached=False, materialised=True, eager_kernels=False,
        ),
        linear("head_out_proj", images, c, c, num, bias=True),
        norm("head_norm", images, c, num),
        linear("head_fc1", images, c, f, num, bias=True),
        activation("head_gelu", images, f, num, gated=False),
        linear("head_fc2", images, f, c, num, bias=True),
    ]  # fmt: skip


def _layer_ops(
    vision: VisionConfig, num: Numerics, images: Num, span: LayerSpan, eager: bool, attention: str
) -> list[OpCost]:
    c, f, h = vision.hidden_size, vision.intermediate_size, vision.num_heads
    out_tokens = span.tokens if span.out_tokens is None else span.out_tokens
    mlp_tokens = out_tokens if span.mlp_tokens is None else span.mlp_tokens
    rows, out_rows, mlp_rows = images * span.tokens, images * out_tokens, images * mlp_tokens
    count = span.layers
    scores = attention_ops(
        "attention_encoder", images, span.tokens, span.tokens, h, h, c // h, num, count,
        causal=False, cached=False, materialised=span.materialised or attention == "eager",
        eager_kernels=eager, values_rows=span.query_tokens,
    )  # fmt: skip
    if not eager:
        return [
            norm("norm1", rows, c, num, count, residual_add=True),
            linear("qkv_proj", rows, c, 3 * c, num, count, True),
            *scores,
            linear("out_proj", out_rows, c, c, num, count, True),
            norm("norm2", mlp_rows, c, num, count, residual_add=True),
            linear("fc1", mlp_rows, c, f, num, count, True),
            activation("gelu", mlp_rows, f, num, count, gated=False),
            linear("fc2", mlp_rows, f, c, num, count, True),
        ]
    size = num.activation_bytes
    chain = 3 if vision.activation == "quick_gelu" else 1
    ops = [
        norm("norm1", rows, c, num, count),
        *(linear(name, rows, c, c, num, count, True) for name in ("q_proj", "k_proj", "v_proj")),
        *scores,
        linear("out_proj", out_rows, c, c, num, count, True),
        residual("attention_residual", out_rows, c, num, count),
        norm("norm2", mlp_rows, c, num, count),
        linear("fc1", mlp_rows, c, f, num, count, True),
        pointwise("gelu", mlp_rows * f, num, read=size * (4 if chain == 3 else 1),
                  write=size * chain, flops_per_element=4, kernels=chain, count=count),
        linear("fc2", mlp_rows, f, c, num, count, True),
        residual("mlp_residual", mlp_rows, c, num, count),
    ]  # fmt: skip
    if num.operand_bytes < size:
        ops += [
            quantise("quantise_attention_input", rows * c, num, count),
            quantise("quantise_attention_output", out_rows * c, num, count),
            quantise("quantise_mlp_input", mlp_rows * c, num, count),
            quantise("quantise_mlp_hidden", mlp_rows * f, num, count),
        ]
    return ops


def projector_ops(
    projector: ProjectorConfig,
    text: TextConfig,
    precision: Precision,
    b: Num,
    projected_tokens: Num,
    visual_tokens: Num,
    text_tokens: Num,
) -> list[OpCost]:
    """Return the ops from vision features to the language model's input.

    The two products with a GELU between them, then the text's embedding look-up and the copy that
    sets the visual tokens among it.

    Args:
        projector: the projector.
        text: the language model, for its embedding.
        precision: the numerics of every module.
        b: batch.
        projected_tokens: visual tokens per sample through the projector.
        visual_tokens: visual tokens per sample that reach the language model.
        text_tokens: text tokens per sample.
    """
    num = precision.projector
    rows = b * projected_tokens
    p = projector
    d = text.hidden_size
    # Without visual tokens the projector does not run, and there is nothing to merge.
    runs = (projected_tokens > 0) * 1
    return [
        linear("linear_1", rows, p.in_features, p.hidden_features, num, runs, p.bias),
        activation("gelu", rows, p.hidden_features, num, runs, gated=False),
        linear("linear_2", rows, p.hidden_features, p.out_features, num, runs, p.bias),
        embedding("embed_tokens", b * text_tokens, d, precision.lm_head),
        copy("merge_tokens", b * (visual_tokens + text_tokens) * d, precision.lm_head, runs),
    ]
