"""Linear layers and convolutions: the matrix products with weights.

`linear` counts y[m, n] = x[m, k] @ w[k, n]; `convolution` a patch embedding, whose windows do not
overlap, as the implicit GEMM it is. Biases ride in the epilogue: their bytes count, their adds are
vector work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.ops.registry import formula
from costmodel.precision import SCALE_BYTES
from costmodel.quantities import OpCost

if TYPE_CHECKING:
    from costmodel.precision import Numerics
    from costmodel.quantities import Num


def stored_weight_bytes(k: int, n: int, num: Numerics) -> Num:
    """Bytes of a [k, n] weight as it is stored, its scales included.

    Args:
        k: input width.
        n: output width.
        num: the module's numerics.

    >>> from costmodel.precision import parse_precision
    >>> stored_weight_bytes(4096, 4096, parse_precision("fp16").text)  # 2 B x 4096^2
    33554432
    >>> stored_weight_bytes(4096, 4096, parse_precision("w4a16").text)  # + 2 B per 128 weights
    8650752.0
    """
    size = k * n * num.weight_bytes
    if num.group_size > 0:
        size += n * -(-k // num.group_size) * SCALE_BYTES
    elif num.group_size == 0:
        size += n * SCALE_BYTES
    return size


@formula("linear")
def linear(
    name: str, m: Num, k: int, n: int, num: Numerics, count: Num = 1, bias: bool = False
) -> OpCost:
    """One linear layer: 2 m k n FLOPs.

    Weight-only quantisation adds 2 k n vector FLOPs (subtract, scale) to expand the weights.

    Source: `torch.utils.flop_counter.mm_flop`.

    Args:
        name: the op's name.
        m: rows, batch x tokens.
        k: input width.
        n: output width.
        num: the module's numerics.
        count: how often it runs.
        bias: whether it has one.

    >>> from costmodel.precision import parse_precision
    >>> op = linear("q_proj", 2, 3, 5, parse_precision("fp16").text)
    >>> op.flops, op.weight_bytes, op.activation_read_bytes, op.activation_write_bytes
    (60, 30, 12, 20)
    """
    weights = stored_weight_bytes(k, n, num)
    vector = 2 * k * n if num.dequantise else 0
    if bias:
        weights += n * num.activation_bytes
        vector = vector + m * n
    # x[m, k] @ w[k, n]
    flops = 2 * m * k * n
    return OpCost(
        name,
        "gemm",
        num.label,
        count,
        flops,
        flops,
        vector,
        weights,
        0,
        0,
        m * k * num.operand_bytes,
        m * n * num.activation_bytes,
        1,
        (m, n, k),
    )


@formula("convolution")
def convolution(
    name: str, m: Num, k: int, n: int, num: Numerics, count: Num = 1, bias: bool = False
) -> OpCost:
    """One patch embedding with non-overlapping windows: 2 m k n FLOPs.

    Source: `torch.utils.flop_counter.conv_flop_count`.

    Args:
        name: the op's name.
        m: batch x patches.
        k: channels x patch height x patch width.
        n: output channels.
        num: the module's numerics.
        count: how often it runs.
        bias: whether it has one.

    >>> from costmodel.precision import parse_precision
    >>> convolution("patch_embed", 576, 588, 1024, parse_precision("fp16").vision).flops
    693633024
    """
    flops = 2 * m * k * n
    size = num.activation_bytes
    return OpCost(
        name,
        "conv",
        num.attention_dtype,
        count,
        flops,
        flops,
        m * n if bias else 0,
        (k * n + (n if bias else 0)) * size,
        0,
        0,
        m * k * size,
        m * n * size,
        1,
        (m, n, k),
    )
