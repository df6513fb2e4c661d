"""The registry of op formulas: from shapes and numerics to what one execution costs.

Each formula is a small function that returns one `OpCost`. Matrix products and attention carry
`flops` as `torch.utils.flop_counter` counts them; everything else has `flops` 0 and its work in
`vector_flops`. A formula takes numbers and numpy arrays alike.

>>> from costmodel.precision import parse_precision
>>> fp16 = parse_precision("fp16").text
>>> get_op("linear")("q_proj", 616, 4096, 4096, fp16).flops  # 2 x 616 x 4096 x 4096
20669530112
"""

from __future__ import annotations

from costmodel.ops.attention import attention, attention_scores, attention_values, softmax
from costmodel.ops.linear import convolution, linear
from costmodel.ops.pointwise import (
    activation,
    cache_write,
    copy,
    embedding,
    norm,
    pointwise,
    residual,
    rope,
)
from costmodel.ops.registry import get_op, list_ops

__all__ = [
    "activation",
    "attention",
    "attention_scores",
    "attention_values",
    "cache_write",
    "convolution",
    "copy",
    "embedding",
    "get_op",
    "linear",
    "list_ops",
    "norm",
    "pointwise",
    "residual",
    "rope",
    "softmax",
]
