"""Op formulas: from shapes and numerics to what one execution costs.

Each formula comes in two steps: what stays fixed (widths, heads, numerics) gives a function of the
numbers that vary (rows, lengths, how often it runs), which returns one `OpCost`. So the first half is
computed once for a million scenarios, and the second takes numbers and numpy arrays alike. Matrix
products and attention carry `flops` as `torch.utils.flop_counter` counts them; everything else has
`flops` 0 and its work in `vector_flops`.

>>> from costmodel.precision import parse_precision
>>> q_proj = linear("q_proj", 4096, 4096, parse_precision("fp16").text)
>>> q_proj(616).flops  # 2 x 616 x 4096 x 4096
20669530112
"""

from __future__ import annotations

from costmodel.ops.attention import attention, attention_scores, attention_values, softmax
from costmodel.ops.linear import convolution, linear, product
from costmodel.ops.pointwise import activation, copy, embedding, norm, pointwise, residual, rope

__all__ = [
    "activation",
    "attention",
    "attention_scores",
    "attention_values",
    "convolution",
    "copy",
    "embedding",
    "linear",
    "norm",
    "pointwise",
    "product",
    "residual",
    "rope",
    "softmax",
]
