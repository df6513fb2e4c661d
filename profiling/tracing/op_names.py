"""Mapping a module's path and the op it called to the cost model's op names and classes.

Names follow `costmodel.plans` under the plan hf-eager, so that a measured table and an estimated one
can be laid side by side. An op that has no counterpart there keeps its own name with the class that
its kind of work has.
"""

from __future__ import annotations

import re

#: Last words of a module's path -> (op, class). The projector's linear_1 and linear_2 keep theirs.
_PRODUCTS = (
    "q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2",
    "linear_1", "linear_2", "lm_head",
)  # fmt: skip
_LEAVES = {name: (name, "gemm") for name in _PRODUCTS} | {
    "patch_embedding": ("patch_embed", "conv"),
    "position_embedding": ("position_embed", "embedding"),
    "embed_tokens": ("embed_tokens", "embedding"),
    "input_layernorm": ("input_norm", "norm"),
    "post_attention_layernorm": ("post_attention_norm", "norm"),
    "layer_norm1": ("norm1", "norm"),
    "layer_norm2": ("norm2", "norm"),
    "pre_layrnorm": ("pre_norm", "norm"),
    "post_layernorm": ("post_norm", "norm"),
    "rotary_emb": ("rope_setup", "pointwise"),
    "act_fn": ("act_mul", "pointwise"),
    "activation_fn": ("gelu", "pointwise"),
    "act": ("gelu", "pointwise"),
}
_ATTENTION = re.compile(r"scaled_dot_product|flash_attention|efficient_attention")
_PRODUCT = re.compile(r"aten::(bmm|matmul|baddbmm|mm|addmm|linear)$")


def op_of(module: str, op: str, stage: str, *, repeat: int = 0) -> tuple[str, str]:
    """Return the cost model's (op, class) for an op that a module called itself.

    Args:
        module: the path of the innermost module, such as `model.language_model.layers.0.mlp`.
        op: the op, such as `aten::mul`.
        stage: the stage it ran in.
        repeat: how many calls of the same op this visit of the module had made before.

    >>> op_of("model.language_model.layers.0.self_attn.q_proj", "aten::linear", "prefill")
    ('q_proj', 'gemm')
    >>> op_of("model.language_model.layers.0.self_attn", "aten::cat", "prefill", repeat=2)
    ('cache_cat', 'copy')
    """
    last = module.rsplit(".", 1)[-1]
    if last in _LEAVES:
        return _LEAVES[last]
    if (last == "norm" and "language" in module) or module == "model.norm":
        return "final_norm", "norm"
    language = not re.search(r"tower", module)
    if last == "self_attn":
        return _attention_op(op, stage, language, repeat)
    if last == "mlp":
        return ("act_mul", "pointwise") if language else ("gelu", "pointwise")
    if last.isdigit() and op == "aten::add":
        return ("attention_residual", "mlp_residual")[min(repeat, 1)], "pointwise"
    if last == "embeddings":
        if op == "aten::cat":
            return "class_token", "copy"
        if op == "aten::add":
            return "position_add", "pointwise"
    if stage in ("projector", "total") and op in ("aten::cat", "aten::masked_scatter"):
        return "merge_tokens", "copy"
    return op.removeprefix("aten::"), class_of(op)


def _attention_op(op: str, stage: str, language: bool, repeat: int) -> tuple[str, str]:
    kind = (
        "attention_encoder"
        if not language
        else ("attention_decode" if stage == "decode" else "attention_prefill")
    )
    if _ATTENTION.search(op):
        return "attention", kind
    if _PRODUCT.search(op):
        return ("attention_scores", "attention_values")[min(repeat, 1)], kind
    if op == "aten::softmax":
        return "softmax", "norm"
    if op == "aten::cat" and language:
        # The rotary embedding concatenates query and key; what comes after lengthens the cache.
        return ("rope", "pointwise") if repeat < 2 else ("cache_cat", "copy")
    if language and op in ("aten::mul", "aten::neg", "aten::add"):
        return "rope", "pointwise"
    if op in ("aten::contiguous", "aten::clone", "aten::reshape"):
        return "attention_output", "copy"
    return op.removeprefix("aten::"), class_of(op)


def class_of(op: str) -> str:
    """Return the class of an op by its kind of work alone.

    >>> class_of("aten::copy_"), class_of("aten::layer_norm"), class_of("aten::exp")
    ('copy', 'norm', 'pointwise')
    """
    if _ATTENTION.search(op):
        return "attention_prefill"
    if _PRODUCT.search(op):
        return "gemm"
    if re.search(r"conv", op):
        return "conv"
    if re.search(r"norm|softmax", op):
        return "norm"
    if re.search(r"embedding|index_select|gather", op):
        return "embedding"
    if re.search(r"copy|cat|clone|contiguous|to$|index|scatter|repeat|expand|reshape|Memcpy", op):
        return "copy"
    return "pointwise"
